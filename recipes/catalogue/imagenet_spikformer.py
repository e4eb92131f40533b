"""ImageNet with Spikformer-8-384, by the authors' imagenet/imagenet.yml on eight GPUs with 24 images each.

Their file is for Spikformer-8-512.
"""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.imagenet_recipe(
    models.Spikformer, depth=8, heads=12, learning_rate=5e-4, epochs=300, batch_size=192, mix="mixup"
)

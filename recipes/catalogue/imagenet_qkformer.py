"""ImageNet with QKFormer-10-384, by the defaults of the authors' imagenet/train.py: 200 epochs, for several GPUs.

Their learning rate is 6e-4 for 256 images in a batch and grows with the batch; 512 is the batch of this repository's ResNets.
"""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.imagenet_recipe(models.QKFormer, depth=10, heads=6, learning_rate=1.2e-3, epochs=200, batch_size=512)

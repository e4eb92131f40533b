"""ImageNet with Max-Former-10-384, by the authors' imagenet/conf/10_384_t4.yml: 200 epochs, for several GPUs.

Their learning rate is 1.35e-3 for 256 images in a batch and grows with the batch. They name 64 images for each GPU; here of
eight GPUs.
"""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.imagenet_recipe(
    models.MaxFormer, depth=10, heads=6, learning_rate=2.7e-3, epochs=200, batch_size=512, mix="mixup"
)

"""CIFAR-10 with Max-Former-4-384, by the authors' cifar10-100/cifar10.yaml: 400 epochs, for a GPU."""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.cifar_recipe(models.MaxFormer, "cifar10", heads=8, learning_rate=1.5e-3, epochs=400, batch_size=128)

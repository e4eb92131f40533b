"""CIFAR-10 with QKFormer-4-384, by the authors' cifar10/cifar10.yml: 400 epochs, for a GPU."""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.cifar_recipe(models.QKFormer, "cifar10", heads=8, learning_rate=1e-3, epochs=400, batch_size=64)

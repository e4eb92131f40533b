"""CIFAR-10 with Spikformer-4-384, by the authors' cifar10/cifar10.yml: 300 epochs, for a GPU."""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.cifar_recipe(models.Spikformer, "cifar10", heads=12, learning_rate=5e-4, epochs=300, batch_size=128)

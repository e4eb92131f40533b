"""CIFAR-100 with Spikformer-4-384; the authors have one file of settings for CIFAR, cifar10/cifar10.yml. For a GPU."""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.cifar_recipe(models.Spikformer, "cifar100", heads=12, learning_rate=5e-4, epochs=300, batch_size=128)

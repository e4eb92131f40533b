"""CIFAR10-DVS with Max-Former-2-256, by the authors' event/cifar10dvs.yaml: T = 16, 96 epochs, for a GPU."""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.dvs_recipe(models.MaxFormer, learning_rate=5e-3)

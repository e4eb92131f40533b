"""CIFAR10-DVS with QKFormer-2-256, by the defaults of the authors' cifar10-dvs/train.py: T = 16, 96 epochs, for a GPU."""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.dvs_recipe(models.QKFormer, learning_rate=5e-3)

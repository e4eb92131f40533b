"""CIFAR10-DVS with Spikformer-2-256, by the defaults of the authors' cifar10dvs/train.py: T = 16, 96 epochs, for a GPU."""

from keras_ratesnn import models
from recipes.catalogue import transformers

RECIPE = transformers.dvs_recipe(models.Spikformer, learning_rate=1e-3)

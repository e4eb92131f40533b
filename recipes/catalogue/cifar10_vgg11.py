"""CIFAR-10 with VGG-11, as in the paper: 300 epochs, best on a GPU."""

from keras_ratesnn import models
from recipes.catalogue import paper

RECIPE = paper.cifar_recipe("cifar10_vgg11", "cifar10", classes=10, build=models.VGG11)

"""CIFAR-10 with ResNet-18, as in the paper: 300 epochs, best on a GPU."""

from keras_ratesnn import models
from recipes.catalogue import paper

RECIPE = paper.cifar_recipe("cifar10_resnet18", "cifar10", classes=10, build=models.ResNet18)

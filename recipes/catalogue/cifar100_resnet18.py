"""CIFAR-100 with ResNet-18, as in the paper: 300 epochs, best on a GPU."""

from keras_ratesnn import models
from recipes.catalogue import paper

RECIPE = paper.cifar_recipe("cifar100_resnet18", "cifar100", classes=100, build=models.ResNet18)

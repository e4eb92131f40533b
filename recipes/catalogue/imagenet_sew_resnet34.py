"""ImageNet with SEW-ResNet-34, as in the paper: 100 epochs, batches of 512, for several GPUs."""

from keras_ratesnn import models
from recipes.catalogue import paper

RECIPE = paper.imagenet_recipe("imagenet_sew_resnet34", build=models.SEWResNet34)

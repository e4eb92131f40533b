"""ImageNet with PreAct-ResNet-34, as in the paper: 100 epochs, batches of 512, for several GPUs."""

from keras_ratesnn import models
from recipes.catalogue import paper

RECIPE = paper.imagenet_recipe("imagenet_preact_resnet34", build=models.PreActResNet34)

"""The augmentation for the training images of each data set, applied before normalisation."""

from recipes.augmentation.auto_augment import auto_augment
from recipes.augmentation.compose import compose
from recipes.augmentation.crops import random_crop, random_resized_crop
from recipes.augmentation.cutout import cutout
from recipes.augmentation.flip import random_flip
from recipes.augmentation.roll import random_roll
from recipes.data import cifar
from recipes.data.fashion_mnist import MEAN_PIXEL

cifar10 = compose(random_crop(4), random_flip, auto_augment(), cutout(16, cifar.MEAN_COLORS["cifar10"]))
cifar100 = compose(random_crop(4), random_flip, auto_augment(), cutout(16, cifar.MEAN_COLORS["cifar100"]))
"""The authors' settings, which use the CIFAR-10 policy for CIFAR-100, too."""

cifar10_dvs = compose(random_flip, random_roll(5))
fashion_mnist = compose(random_crop(2), random_flip)
fashion_mnist_cutout = compose(random_crop(2), random_flip, cutout(8, (MEAN_PIXEL,)))
imagenet = compose(random_resized_crop(224), random_flip)

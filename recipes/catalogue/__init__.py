"""The recipes there are, by name. One small file a recipe."""

from recipes.catalogue import (
    cifar10_dvs_vggsnn,
    cifar10_resnet18,
    cifar10_resnet19,
    cifar10_vgg11,
    cifar100_resnet18,
    cifar100_resnet19,
    cifar100_vgg11,
    digits,
    fashion_mnist,
    fashion_mnist_resnet18,
    imagenet_preact_resnet34,
    imagenet_sew_resnet34,
)

_FILES = (
    digits,
    fashion_mnist,
    fashion_mnist_resnet18,
    cifar10_resnet18,
    cifar10_resnet19,
    cifar10_vgg11,
    cifar100_resnet18,
    cifar100_resnet19,
    cifar100_vgg11,
    cifar10_dvs_vggsnn,
    imagenet_sew_resnet34,
    imagenet_preact_resnet34,
)

RECIPES = {file.RECIPE.name: file.RECIPE for file in _FILES}


def find(name):
    """The recipe called `name`.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}. The recipes are: {', '.join(RECIPES)}.")
    return RECIPES[name]

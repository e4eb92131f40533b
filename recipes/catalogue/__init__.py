"""The recipes by name. Each is a small file of the same name."""

import importlib

_NAMES = (
    "digits",
    "digits_detection",
    "digits_segmentation",
    "fashion_mnist",
    "fashion_mnist_resnet18",
    "fashion_mnist_events",
    "cifar10_resnet18",
    "cifar10_resnet19",
    "cifar10_vgg11",
    "cifar100_resnet18",
    "cifar100_resnet19",
    "cifar100_vgg11",
    "cifar10_dvs_vggsnn",
    "imagenet_sew_resnet34",
    "imagenet_preact_resnet34",
)

RECIPES = {name: importlib.import_module(f"{__name__}.{name}").RECIPE for name in _NAMES}


def find(name):
    """The recipe called `name`.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}. The recipes are: {', '.join(RECIPES)}.")
    return RECIPES[name]

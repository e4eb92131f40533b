"""The recipes of the paper's experiments, best on a GPU; ImageNet needs several.

The authors' settings, method and networks: Yu et al., "Advancing Training Efficiency of
Deep Spiking Neural Networks through Rate-based Backpropagation", NeurIPS 2024. Learning
rate and weight decay are those of the authors' program, which divides its gradient by
T. This library does not; `paper_rates` converts them
(`recipes.optimizers.of_the_paper`).
"""

import functools

from keras_ratesnn import models
from recipes import blocks
from recipes.data import cifar, cifar10_dvs, imagenet
from recipes.optimizers import SGD
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

SETTINGS = {
    "optimizer": SGD(paper_rates=True),
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "epochs": 300,
    "batch_size": 128,
}


def cifar_recipe(build, data_set):
    """A network on CIFAR-10 or CIFAR-100, T = 4 (the paper also has 2 and 6: `--set
    timesteps=6`).

    Args:
        build: A function of `keras_ratesnn.models`.
        data_set: `"cifar10"` or `"cifar100"`.

    Returns:
        A `Recipe`.
    """

    def build_network(width, normalization="batch"):
        # The gradient of this model is not used (the recipe sets its own), but it must
        # support any network.
        options = {"gradient": "bptt", "width": width, "normalization": normalization}
        network = build(
            input_shape=cifar.IMAGE_SHAPE, classes=cifar.classes(data_set), **options
        ).network
        return blocks.on_pixels(
            network, cifar.MEAN_COLORS[data_set], cifar.COLOR_DEVIATIONS[data_set]
        )

    return Recipe(
        name=f"{data_set}_{build.__name__.lower()}",
        description=f"{build.__name__} on {cifar.title(data_set)}, as in the paper",
        load_data=functools.partial(cifar.load, data_set),
        build_network=build_network,
        spiking=SpikingStage(timesteps=4),
        augment=data_set,
        **SETTINGS,
    )


def imagenet_recipe(build, name):
    """A network on ImageNet, T = 4; `name` is the end of that of the recipe."""

    def build_network(width):
        network = build(
            input_shape=imagenet.IMAGE_SHAPE, classes=imagenet.CLASSES, width=width
        ).network
        return blocks.on_pixels(network, imagenet.MEAN_COLOR, imagenet.COLOR_DEVIATION)

    return Recipe(
        name=f"imagenet_{name}",
        description=f"{build.__name__} on ImageNet, as in the paper",
        load_data=imagenet.load,
        build_network=build_network,
        optimizer=SGD(paper_rates=True),
        learning_rate=0.2,
        weight_decay=2e-5,
        epochs=100,
        batch_size=512,
        spiking=SpikingStage(timesteps=4),
        augment="imagenet",
    )


RECIPES = (
    cifar_recipe(models.VGG11, "cifar10"),
    cifar_recipe(models.VGG11, "cifar100"),
    cifar_recipe(models.ResNet18, "cifar10"),
    cifar_recipe(models.ResNet18, "cifar100"),
    cifar_recipe(models.ResNet19, "cifar10"),
    cifar_recipe(models.ResNet19, "cifar100"),
    imagenet_recipe(models.SEWResNet34, "sew_resnet34"),
    imagenet_recipe(models.PreActResNet34, "preact_resnet34"),
    Recipe(
        name="cifar10_dvs_vggsnn",
        description="VGGSNN on CIFAR10-DVS, as in the paper",
        load_data=cifar10_dvs.load,
        build_network=functools.partial(
            blocks.on_event_frames, cifar10_dvs.IMAGE_SHAPE, cifar10_dvs.CLASSES
        ),
        has_time=True,
        spiking=SpikingStage(timesteps=10),
        augment="cifar10_dvs",
        **SETTINGS,
    ),
)

"""The recipes of the paper's experiments, best on a GPU; ImageNet needs several.

The authors' settings, method and networks: Yu et al., "Advancing Training Efficiency of
Deep Spiking Neural Networks through Rate-based Backpropagation", NeurIPS 2024. Learning
rate and weight decay are those of the authors' program, which divides its gradient by
T. This library does not; `as_the_authors` converts them
(`recipes.optimizers.paper_rates`). On CIFAR the paper also has T = 2 and 6: `--set
timesteps=6`.
"""

import functools

from keras_ratesnn import models
from recipes import layers
from recipes.data import cifar, events, imagenet
from recipes.recipe import Recipe

recipe = functools.partial(
    Recipe,
    as_the_authors=True,
    learning_rate=0.1,
    weight_decay=5e-4,
    epochs=300,
    batch_size=128,
    timesteps=4,
)


def cifar_network(build, data_set, width, normalization="batch"):
    """A network of a function of `keras_ratesnn.models`, for CIFAR-10 or CIFAR-100."""
    network = build(
        input_shape=cifar.IMAGE_SHAPE,
        classes=cifar.CLASSES[data_set],
        # The gradient of this model is not used (the recipe sets its own), but it must
        # support any network.
        gradient="bptt",
        width=width,
        normalization=normalization,
    ).network
    return layers.on_pixels(network, *cifar.PIXELS[data_set])


def imagenet_network(build, width):
    """A network of a function of `keras_ratesnn.models`, for ImageNet."""
    network = build(
        input_shape=imagenet.IMAGE_SHAPE, classes=imagenet.CLASSES, width=width
    ).network
    return layers.on_pixels(network, *imagenet.PIXELS)


CIFAR = tuple(
    recipe(
        name=f"{data_set}_{build.__name__.lower()}",
        load_data=functools.partial(cifar.load, data_set),
        build_network=functools.partial(cifar_network, build, data_set),
        augment=data_set,
    )
    for build in (models.VGG11, models.ResNet18, models.ResNet19)
    for data_set in cifar.CLASSES
)

IMAGENET = tuple(
    recipe(
        name=f"imagenet_{name}",
        load_data=imagenet.load,
        build_network=functools.partial(imagenet_network, build),
        learning_rate=0.2,
        weight_decay=2e-5,
        epochs=100,
        batch_size=512,
        augment="imagenet",
    )
    for name, build in (
        ("sew_resnet34", models.SEWResNet34),
        ("preact_resnet34", models.PreActResNet34),
    )
)

DVS = recipe(
    name="cifar10_dvs_vggsnn",
    load_data=events.CIFAR10_DVS.load,
    build_network=functools.partial(layers.on_event_frames, (48, 48, 2), 10),
    has_time=True,
    timesteps=10,
    augment="cifar10_dvs",
)

RECIPES = (*CIFAR, *IMAGENET, DVS)

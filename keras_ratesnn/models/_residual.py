"""Shared parts of the residual networks: the stem, the stages of blocks, and the
shortcut."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D
from keras_ratesnn.models._arguments import checked_classes, image_input, scaled
from keras_ratesnn.models._blocks import channel_axis, dense, neurons, sides
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._neuron_argument import checked_neuron

CHANNELS = (64, 128, 256, 512)
STEMS = ("auto", "cifar", "imagenet")
SMALLEST_FOR_IMAGENET_STEM = 96


def stem_block(x, filters, stem, neuron, unit, pools=True):
    """The stem: a 3x3 convolution for small images; a 7x7 convolution and max pooling,
    a reduction by 4, for large ones.

    `neuron` is a function that returns a new neuron layer, or `None` for a stem without
    neurons; for `unit` see `Family`. Without `pools` it has no max pooling.
    """
    size, strides = (7, 2) if stem == "imagenet" else (3, 1)
    x = unit(x, filters, size, strides, neuron, name="stem")
    return (
        PaddedMaxPooling2D(3, strides=2, name="stem_pool")(x)
        if pools and stem == "imagenet"
        else x
    )


class Family(NamedTuple):
    """The common parts of residual networks of a kind.

    Args:
        block: Function `(x, filters, strides, neuron, name)`.
        unit: Function that builds the stem's convolution with its neurons, see
            `conv_bn_neuron`.
        default: The default image: height and width, and number of channels. Defaults
            to `(32, 3)`.
        default_neuron: Function that returns a new neuron layer, used if the user
            passed none. Defaults to `LIF`.
        neurons_after_stem: Boolean, whether neurons follow the stem. Defaults to
            `True`.
        put_neurons: Function that builds the neurons of a hidden layer. Defaults to
            `neurons`.
        after_blocks: Function `(x, neuron)` applied after the last block, or `None`.
            Defaults to `None`.
        stem: Function `(x, filters, stem, neuron, unit)`. Defaults to `stem_block`.
        stem_reduction: Integer, the factor by which the stem for large images reduces
            them. Defaults to `4`.
        first_strides: Integer, the strides of the first stage. Defaults to `1`.
        dropout: Float, the fraction of inputs of the last layer that are dropped in
            training. Defaults to `0.0`.
    """

    block: Callable
    unit: Callable
    default: tuple[int, int] = (32, 3)
    default_neuron: Callable = LIF
    neurons_after_stem: bool = True
    put_neurons: Callable = neurons
    after_blocks: Callable | None = None
    stem: Callable = stem_block
    stem_reduction: int = 4
    first_strides: int = 1
    dropout: float = 0.0


def network(
    family,
    depths,
    input_shape,
    classes,
    neuron,
    width,
    include_top,
    stem,
    channels=CHANNELS,
    hidden=None,
    **_,
):
    """A residual network of one time step.

    Args: what the user passed, see `ResNet18`, and
        family: `Family`.
        depths: Number of blocks of each stage.
        channels: Number of filters of each stage, before they are multiplied by
            `width`. Defaults to `CHANNELS`.
        hidden: Integer, the number of neurons of a hidden layer before the last layer,
            or `None` for no hidden layer. Defaults to `None`.
        **_: Nothing: only the types of options have what `builder` takes itself.

    Returns:
        A Functional model.
    """
    neuron = checked_neuron(neuron, family.default_neuron)
    channels = scaled(channels, width)
    classes = checked_classes(classes)
    include_top = checks.boolean("include_top", include_top)
    reduction = 2 ** (len(depths) - 1) * family.first_strides
    inputs, stem = input_and_stem(
        input_shape, family.default, stem, reduction, family.stem_reduction
    )
    x = family.stem(
        inputs,
        channels[0],
        stem,
        neuron if family.neurons_after_stem else None,
        family.unit,
    )
    x = stages(
        x,
        functools.partial(family.block, neuron=neuron),
        depths,
        channels,
        family.first_strides,
    )
    x = x if family.after_blocks is None else family.after_blocks(x, neuron)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        if hidden is not None:
            x = family.put_neurons(
                dense(x, scaled((hidden,), width)[0], PYTORCH_DEFAULT, "hidden"),
                neuron,
                "hidden_neuron",
            )
        x = layers.Dropout(family.dropout, name="dropout")(x) if family.dropout else x
        x = dense(x, classes, PYTORCH_DEFAULT, "classifier")
    return keras.Model(inputs, x, name="network")


def input_and_stem(input_shape, default, stem, reduction, stem_reduction=4):
    """The input of a residual network, and the stem that fits it.

    Args:
        input_shape: See `image_input`.
        default: Likewise.
        stem: What the user passed as `stem`.
        reduction: Integer, the factor by which all stages reduce the image.
        stem_reduction: Integer, that of the stem for large images. Defaults to `4`.

    Returns:
        `(input, stem)`: a `keras.Input`, and `"cifar"` or `"imagenet"`.
    """
    checks.one_of("stem", stem, STEMS)

    def chosen(height, width):
        if stem != "auto":
            return stem
        if None in (height, width):
            raise ValueError(
                "`stem` must be 'cifar' or 'imagenet' if the size of the images is "
                f"not fixed. Received: stem={stem!r}, input_shape={input_shape!r}."
            )
        return (
            "imagenet" if min(height, width) >= SMALLEST_FOR_IMAGENET_STEM else "cifar"
        )

    def smallest(height, width):
        return reduction * (
            stem_reduction if chosen(height, width) == "imagenet" else 1
        )

    image = image_input(input_shape, default, smallest)
    return image, chosen(*sides(image))


def stages(x, block, depths, channels, first_strides=1):
    """Stages of blocks, named `stage1_block1` etc.; the first block of each stage but
    the first has stride 2.

    Args:
        x: Tensor, what the stem gives.
        block: Function `(x, filters, strides, name=...)`.
        depths: Number of blocks of each stage.
        channels: Number of filters of each stage.
        first_strides: The strides of the first block of the first stage. Defaults to
            `1`.
    """
    for stage, (depth, filters) in enumerate(zip(depths, channels, strict=True), 1):
        for index in range(1, depth + 1):
            strides = 1
            if index == 1:
                strides = 2 if stage > 1 else first_strides
            x = block(x, filters, strides, name=f"stage{stage}_block{index}")
    return x


def shortcut(x, filters, strides, neuron, unit, name):
    """The shortcut of a block: its input, passed through a 1x1 convolution if the
    output has a different shape."""
    if strides == 1 and x.shape[channel_axis()] == filters:
        return x
    return unit(x, filters, 1, strides, neuron, name=f"{name}_shortcut")


BASIC = ((3, 1, True), (3, 1, False))
BOTTLENECK = ((1, 1, False), (3, 1, True), (1, 4, False))
"""The convolutions of a block: size, what multiplies `filters`, and whether it has the
strides."""


def block(x, filters, strides, neuron, name, unit, kernels=BASIC, adds_spikes=False):
    """Convolutions with neurons, whose output is added to the shortcut: spikes, or
    currents before the last neurons."""
    last = neuron if adds_spikes else None
    y = x
    for number, (size, factor, strided) in enumerate(kernels, 1):
        after = last if number == len(kernels) else neuron
        y = unit(
            y,
            factor * filters,
            size,
            strides if strided else 1,
            after,
            name=name,
            number=number,
        )
    y = layers.Add(name=f"{name}_add")(
        [y, shortcut(x, factor * filters, strides, last, unit, name)]
    )
    return y if adds_spikes else neurons(y, neuron, f"{name}_neuron{len(kernels)}")

"""The residual networks and VGGs of rate-based backpropagation and of SpikingJelly, and
SEW ResNet of its authors."""

from typing import Any

from keras_ratesnn.layers import IF, LIF
from keras_ratesnn.models.preact_resnet import PreActResNet18, PreActResNet34
from keras_ratesnn.models.published._layouts import (
    Layout,
    builder_for,
    depths,
    inputs,
    numbers,
    outputs,
    reads,
)
from keras_ratesnn.models.published._names import named
from keras_ratesnn.models.resnet import ResNet18, ResNet19, ResNet34
from keras_ratesnn.models.sew_resnet import (
    SEWResNet18,
    SEWResNet34,
    SEWResNet50,
    SEWResNet101,
    SEWResNet152,
)
from keras_ratesnn.models.torchvision import BottleneckResNet, DenseVGG
from keras_ratesnn.models.vgg import VGG11, VGG13, VGG16, VGGSNN

_WIDEST = 512
"""The channels of the last stage for `width=1`."""

_LIF = {"neuron": (lambda: LIF(decay=0.2), "LIF(decay=0.2)")}
_IF = {"neuron": (lambda: IF(reset="hard"), "IF(reset='hard')")}

_ADDS = {"connect_f": "ADD"}

_CIFAR_NOTE = (
    "the authors' vggsnn_cifar has weights of these shapes, too, but averages "
    "images of 32 x 32 pixels to 3 x 3 at the end"
)

_IMAGES = {"cifar": 32, "imagenet": 224}
"""The height and width of images for each stem."""


def _names(stem, unit, shortcut, head="fc"):
    """The names of layers, given those of pairs of a convolution and its normalisation,
    and of the last layer."""
    names = {}
    for theirs, ours in zip(stem, ("conv", "bn"), strict=True):
        names[theirs] = f"stem_{ours}"
    block = "stage{s}_block{b+1}"
    for theirs, ours in zip(unit, ("conv{n}", "bn{n}"), strict=True):
        names[f"layer{{s}}.{{b}}.{theirs}"] = f"{block}_{ours}"
    for theirs, ours in zip(shortcut, ("conv", "bn"), strict=True):
        names[f"layer{{s}}.{{b}}.{theirs}"] = f"{block}_shortcut_{ours}"
    return {**names, head: "classifier"}


RESNET = _names(
    ("conv0.0", "conv0.1"),
    ("conv{n}", "bn{n}"),
    ("shortcut.0", "shortcut.1"),
    head="classifier.0",
)
RESNET19 = {**RESNET, "classifier.0": "hidden", "classifier.2": "classifier"}
PREACT = _names(
    ("conv1", "bn1"), ("conv{n}", "bn{n}"), ("downsample.0", "downsample.1")
)
SEW_BY_RATE = _names(
    ("convNeuron1.0", "convNeuron1.1"),
    ("convNeuron{n}.0", "convNeuron{n}.1"),
    ("downsample.0", "downsample.1"),
)
SEW = _names(
    ("conv1", "bn1"),
    ("conv{n}.module.0", "conv{n}.module.1"),
    ("downsample.0.module.0", "downsample.0.module.1"),
)


def vgg_names(sizes, root="feature", length=3):
    """The names of the layers of a VGG, whose names are their places, for the number of
    convolutions of each block.

    A convolution, its normalisation and neurons take `length` places.
    """
    names, place = {"classifier.0": "classifier"}, 0
    for block, size in enumerate(sizes, 1):
        for number in range(1, size + 1):
            names[f"{root}.{place}"] = f"block{block}_conv{number}"
            names[f"{root}.{place + 1}"] = f"block{block}_bn{number}"
            place += length
        # After pooling.
        place += 1
    return names


_PLACE = "best_net"
_BOTTLENECK = "bottleneck"
_TORCHVISION = "conv1.weight", "layer1.0.conv1.weight"
_RESNETS = {(2, 2, 2, 2): ResNet18, (3, 3, 2): ResNet19, (3, 4, 6, 3): ResNet34}
_PREACTS = {(2, 2, 2, 2): PreActResNet18, (3, 4, 6, 3): PreActResNet34}
_SEWS: dict[tuple, Any] = {
    (2, 2, 2, 2): SEWResNet18,
    (3, 4, 6, 3): SEWResNet34,
    (3, 4, 6, 3, _BOTTLENECK): SEWResNet50,
    (3, 4, 23, 3, _BOTTLENECK): SEWResNet101,
    (3, 8, 36, 3, _BOTTLENECK): SEWResNet152,
}
_SPIKING_RESNETS = {
    sizes: BottleneckResNet if _BOTTLENECK in sizes else _RESNETS[sizes]
    for sizes in _SEWS
}
VGGS = {
    (1, 2, 2, 1, 2): VGG11,
    (2, 2, 2, 3, 1): VGG13,
    (2, 2, 3, 3, 3): VGG16,
    (2, 2, 2, 2): VGGSNN,
}
"""The networks by the number of blocks of each stage, or of convolutions of each
block."""

_DENSE = {
    "classifier.0": "hidden1",
    "classifier.3": "hidden2",
    "classifier.6": "classifier",
}
_TORCHVISION_SIZES = (
    (1, 1, 2, 2, 2),
    (2, 2, 2, 2, 2),
    (2, 2, 3, 3, 3),
    (2, 2, 4, 4, 4),
)


def _torchvision_vggs(length):
    return {
        sizes: {**vgg_names(sizes, "features", length), **_DENSE}
        for sizes in _TORCHVISION_SIZES
    }


TORCHVISION_VGGS = {length: _torchvision_vggs(length) for length in (2, 3)}
"""The names of layers by the places of a convolution with what follows it, and by the
number of convolutions of each block."""


@reads([RESNET, RESNET19], "conv0.0.weight")
def resnet(weights):
    """ResNet-18, -19 and -34 of rate-based backpropagation."""
    has_hidden = _RESNETS.get(depths(weights)) is ResNet19
    return _layout(weights, _RESNETS, RESNET19 if has_hidden else RESNET)


# Other ResNets have these names, too, but no biases.
@reads([PREACT], "conv1.weight", "conv1.bias", "layer1.0.conv1.bias")
def preact_resnet(weights):
    """PreAct ResNets of rate-based backpropagation."""
    return _layout(weights, _PREACTS, PREACT)


@reads([SEW_BY_RATE], "convNeuron1.0.weight")
def sew_by_rate(weights):
    """SEW ResNets of rate-based backpropagation, whose convolutions have biases."""
    return _layout(weights, _SEWS, SEW_BY_RATE)


@reads([SEW], "conv1.weight", "layer1.0.conv1.0.weight")
def sew_resnet(weights):
    """SEW ResNets of their authors, without biases."""
    layout = _layout(weights, _SEWS, SEW)
    return layout._replace(assumed=_IF, without_biases=True, place="model", needs=_ADDS)


@reads([PREACT], *_TORCHVISION)
def spikingjelly_sew_resnet(weights):
    """SEW ResNets of SpikingJelly, without biases."""
    layout = _torchvision(weights, _SEWS)
    return layout and layout._replace(without_biases=True, needs=_ADDS)


@reads([PREACT], *_TORCHVISION)
def spikingjelly_spiking_resnet(weights):
    """ResNets of SpikingJelly, which have the same weights as its SEW ResNets."""
    layout = _torchvision(weights, _SPIKING_RESNETS)
    if layout and layout.builder is BottleneckResNet:
        layout.told["depths"] = depths(weights)
    return layout


def _torchvision(weights, builders):
    if "conv1.bias" in weights:
        return None
    return _as_spikingjelly(_layout(weights, builders, PREACT))


@reads(
    [*TORCHVISION_VGGS[2].values(), *TORCHVISION_VGGS[3].values()],
    "features.0.weight",
    "classifier.6.weight",
)
def spikingjelly_spiking_vgg(weights):
    """VGGs of SpikingJelly, with or without normalisation."""
    length = 3 if "features.1.running_var" in weights else 2
    sizes, last = _convolutions(weights, "features", length)
    told = {
        "input_shape": (_IMAGES["imagenet"], inputs(weights, "features.0")),
        "classes": outputs(weights, "classifier.6"),
        "width": outputs(weights, last) / _WIDEST,
        "depths": sizes,
        "normalized": length == 3,
    }
    return _as_spikingjelly(
        Layout(DenseVGG, told, builder_for(TORCHVISION_VGGS[length], sizes), {})
    )


def _as_spikingjelly(layout):
    note = (
        "torchvision's networks, which have no neurons, have weights of the same "
        "names and shapes"
    )
    return layout._replace(assumed=_IF, place="model", note=note, told_by_names=False)


@reads([*map(vgg_names, VGGS)], "feature.0.weight", "classifier.0.weight")
def vgg(weights):
    """VGGs of rate-based backpropagation, whose layers have the numbers of their
    places."""
    sizes, last = _convolutions(weights)
    builder = builder_for(VGGS, sizes)
    widest, seen = outputs(weights, last), inputs(weights, "classifier.0")
    side = 32
    if builder is VGGSNN:
        # Four times halved, and flattened.
        side = 2 ** len(sizes) * round((seen / widest) ** 0.5)
    told = {
        "input_shape": (side, inputs(weights, "feature.0")),
        "classes": outputs(weights, "classifier.0"),
        "width": widest / _WIDEST,
    }
    note = (
        _CIFAR_NOTE if builder is VGGSNN and inputs(weights, "feature.0") != 2 else ""
    )
    return Layout(
        builder,
        told,
        vgg_names(sizes),
        _LIF,
        size_is_told=builder is VGGSNN,
        note=note,
        place=_PLACE,
    )


def _convolutions(weights, root="feature", length=3):
    """The number of convolutions of each block of a VGG, and the name of the last one;
    for `length` see `vgg_names`."""
    convolutions = [
        n
        for n in numbers(weights, rf"{root}\.(\d{{1,9}})\.weight")
        if weights[f"{root}.{n}.weight"].ndim == 4
    ]
    sizes, before = [0], convolutions[0]
    for n in convolutions:
        # More than a convolution, normalisation and neurons: pooling, which ends a
        # block.
        if n - before > length:
            sizes.append(0)
        sizes[-1] += 1
        before = n
    return tuple(sizes), f"{root}.{before}"


def _layout(weights, builders, names):
    """The layout of a residual network, one of the builders for its stages."""

    def convolution(stage, number):
        ours = "stage{s}_block{b+1}_conv{n}"
        return named(names, ours, s=stage, b=0, n=number)

    sizes, stem = depths(weights), named(names, "stem_conv")
    is_bottleneck = f"{convolution(1, 3)}.weight" in weights
    builder = builder_for(builders, (*sizes, _BOTTLENECK) if is_bottleneck else sizes)
    chosen = "imagenet" if weights[f"{stem}.weight"].shape[-1] == 7 else "cifar"
    told = {
        "input_shape": (_IMAGES[chosen], inputs(weights, stem)),
        "classes": outputs(weights, named(names, "classifier")),
        "width": outputs(weights, convolution(len(sizes), 1)) / _WIDEST,
        "stem": chosen,
    }
    return Layout(builder, told, names, _LIF, place=_PLACE)

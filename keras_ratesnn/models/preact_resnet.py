"""Pre-activation ResNets: residual networks with neurons before the convolutions."""

import functools
import os
from collections.abc import Callable, Sequence

from keras import layers

from keras_ratesnn._core.annotations import Config, Stem, StepModeName
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers import Neuron
from keras_ratesnn.models import _residual
from keras_ratesnn.models._blocks import conv_bn_neuron, neurons
from keras_ratesnn.models._initializers import KAIMING_FAN_OUT
from keras_ratesnn.models._weights import with_weights
from keras_ratesnn.spiking_model import SpikingModel

# As in the authors' program, every convolution has a bias and its own initialisation; the last layer uses PyTorch's default.
STYLE = {"use_bias": True, "initialization": KAIMING_FAN_OUT}
_CHANNELS = (64, 128, 256, 512)


def PreActResNet18(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 1000,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    stem: Stem = "auto",
    weights: str | os.PathLike[str] | None = None,
    name: str = "preactresnet18",
) -> SpikingModel:
    """PreAct ResNet-18: the stages of `ResNet18`, with neurons before the convolutions of a block and none after the sum.

    Example:

    >>> model = PreActResNet18(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`, but
        input_shape: Defaults to 224 x 224 pixels of 3 channels.
        classes: Defaults to `1000`.

    Source: Yu et al., NeurIPS 2024; He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """
    network = _network(basic_block, (2, 2, 2, 2), _CHANNELS, input_shape, classes, neuron, width, include_top, stem)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "PreActResNet18")


def PreActResNet34(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 1000,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    stem: Stem = "auto",
    weights: str | os.PathLike[str] | None = None,
    name: str = "preactresnet34",
) -> SpikingModel:
    """PreAct ResNet-34: the stages of `PreActResNet18`, with 3, 4, 6 and 3 blocks.

    Example:

    >>> model = PreActResNet34(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `PreActResNet18`.

    Source: Yu et al., NeurIPS 2024; He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """
    network = _network(basic_block, (3, 4, 6, 3), _CHANNELS, input_shape, classes, neuron, width, include_top, stem)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "PreActResNet34")


def basic_block(x, filters, strides, neuron, name):
    """Neurons before each of two 3x3 convolutions, added to the shortcut; the output of a block is not spikes."""
    y = conv_bn_neuron(neurons(x, neuron, f"{name}_neuron1"), filters, 3, strides, None, name=name, number=1, **STYLE)
    y = conv_bn_neuron(neurons(y, neuron, f"{name}_neuron2"), filters, 3, 1, None, name=name, number=2, **STYLE)
    return layers.Add(name=f"{name}_add")([y, _residual.shortcut(x, filters, strides, None, name=name, **STYLE)])


# As in the authors' program, there are no neurons after the stem or before the classifier.
_network = functools.partial(_residual.network, style=STYLE, default=(224, 3), neurons_after_stem=False)

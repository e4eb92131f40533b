"""SEW ResNets: residual networks whose blocks add spikes to spikes."""

import functools
import os
from collections.abc import Callable, Sequence

from keras import layers

from keras_ratesnn._core.annotations import Config, Stem, StepModeName
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers import Neuron
from keras_ratesnn.models import _residual
from keras_ratesnn.models._blocks import conv_bn_neuron
from keras_ratesnn.models._initializers import KAIMING_FAN_OUT
from keras_ratesnn.models._weights import with_weights
from keras_ratesnn.spiking_model import SpikingModel

# As in the authors' program, every convolution has a bias and its own initialisation; the last layer uses PyTorch's default.
STYLE = {"use_bias": True, "initialization": KAIMING_FAN_OUT}
_CHANNELS = (64, 128, 256, 512)


def SEWResNet18(
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
    name: str = "sewresnet18",
) -> SpikingModel:
    """SEW ResNet-18: the stages of `ResNet18`, with blocks that add their spikes to those of their input.

    Example:

    >>> model = SEWResNet18(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`, but
        input_shape: Defaults to 224 x 224 pixels of 3 channels.
        classes: Defaults to `1000`.

    Source: Yu et al., NeurIPS 2024; Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021.
    """
    network = _network(basic_block, (2, 2, 2, 2), _CHANNELS, input_shape, classes, neuron, width, include_top, stem)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "SEWResNet18")


def SEWResNet34(
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
    name: str = "sewresnet34",
) -> SpikingModel:
    """SEW ResNet-34: the stages of `SEWResNet18`, with 3, 4, 6 and 3 blocks.

    Example:

    >>> model = SEWResNet34(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `SEWResNet18`.

    Source: Yu et al., NeurIPS 2024; Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021.
    """
    network = _network(basic_block, (3, 4, 6, 3), _CHANNELS, input_shape, classes, neuron, width, include_top, stem)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "SEWResNet34")


def SEWResNet50(
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
    name: str = "sewresnet50",
) -> SpikingModel:
    """SEW ResNet-50: stages of 3, 4, 6 and 3 blocks with 256, 512, 1024 and 2048 output channels.

    Example:

    >>> model = SEWResNet50(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `SEWResNet18`.

    Source: Fang et al., NeurIPS 2021, with neurons and initialisation as in `SEWResNet34`.
    """
    network = _network(bottleneck_block, (3, 4, 6, 3), _CHANNELS, input_shape, classes, neuron, width, include_top, stem)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "SEWResNet50")


def basic_block(x, filters, strides, neuron, name):
    """Two 3x3 convolutions with neurons; their spikes are added to those of the shortcut."""
    y = conv_bn_neuron(x, filters, 3, strides, neuron, name=name, number=1, **STYLE)
    y = conv_bn_neuron(y, filters, 3, 1, neuron, name=name, number=2, **STYLE)
    return layers.Add(name=f"{name}_add")([y, _residual.shortcut(x, filters, strides, neuron, name=name, **STYLE)])


def bottleneck_block(x, filters, strides, neuron, name):
    """A 1x1, a 3x3 and a 1x1 convolution with neurons; the last has four times `filters` channels."""
    y = conv_bn_neuron(x, filters, 1, 1, neuron, name=name, number=1, **STYLE)
    y = conv_bn_neuron(y, filters, 3, strides, neuron, name=name, number=2, **STYLE)
    y = conv_bn_neuron(y, 4 * filters, 1, 1, neuron, name=name, number=3, **STYLE)
    return layers.Add(name=f"{name}_add")([y, _residual.shortcut(x, 4 * filters, strides, neuron, name=name, **STYLE)])


_network = functools.partial(_residual.network, style=STYLE, default=(224, 3))

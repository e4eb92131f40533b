"""ResNets with spiking neurons as activations."""

import functools
import os
from collections.abc import Callable, Sequence

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config, Normalizer, Stem, StepModeName
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers import Neuron
from keras_ratesnn.models import _normalizer_free, _residual
from keras_ratesnn.models._blocks import conv_bn_neuron, conv_osr_neuron, neurons, stabilized_neurons
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._weights import with_weights
from keras_ratesnn.spiking_model import SpikingModel

# The authors use PyTorch's default initialisation. Convolutions have no bias, because each is followed by a normalisation.
STYLE = {"use_bias": False, "initialization": PYTORCH_DEFAULT}
_CHANNELS = (64, 128, 256, 512)


def ResNet18(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 10,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    stem: Stem = "auto",
    weights: str | os.PathLike[str] | None = None,
    name: str = "resnet18",
    normalization: Normalizer = "batch",
) -> SpikingModel:
    """ResNet-18: four stages with 64, 128, 256 and 512 channels, two blocks each, and neurons instead of ReLUs.

    Example:

    >>> model = ResNet18(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args:
        input_shape: Tuple of three integers, the shape of one image in Keras' image data format, `(height, width, channels)`
            or, with `channels_first`, `(channels, height, width)`. Height and width can be `None` for images of any size.
            Defaults to 32 x 32 pixels of 3 channels.
        classes: Integer >= 1, the number of outputs, which are logits. Defaults to `10`.
        timesteps: Integer >= 1, see `keras_ratesnn.SpikingModel`. Defaults to `4`.
        gradient: The training method, see `keras_ratesnn.SpikingModel`. Defaults to `"rate"`.
        step_mode: `"multi"` or `"single"`, see `keras_ratesnn.SpikingModel`. Defaults to `"multi"`.
        neuron: Function without arguments that returns a new neuron layer each time; the network sets its name. Defaults to
            `None`, which stands for `keras_ratesnn.layers.LIF()`, the paper's neurons.
        width: Float > 0 that multiplies the number of channels of every layer. Defaults to `1.0`.
        include_top: Boolean, whether the network ends in pooling and the classifier. Without them the output is the time mean
            of the last feature map, and `classes` is ignored. Defaults to `True`.
        stem: The first layers. `"cifar"`: a 3x3 convolution, for small images. `"imagenet"`: a 7x7 convolution with
            stride 2 and 3x3 max pooling with stride 2. `"auto"`: `"imagenet"` for images of 96 x 96 pixels or more, else
            `"cifar"`. Defaults to `"auto"`.
        weights: The initial weights. `None`: random. The name of a pretrained network with this architecture, see
            `keras_ratesnn.models.list_pretrained()`: images must be preprocessed as described on its card, and the last layer
            is replaced if `classes` differs. A path that ends in `.keras`: a file of the same network, written by
            `SpikingModel.save`. Defaults to `None`.
        name: String, the model's name. Defaults to `"resnet18"`.
        normalization: How currents are kept near the threshold. `"batch"`: batch normalisation after each convolution, as in
            the paper. `"weight"`: a normaliser-free network (Brock et al., ICLR 2021) without batch statistics: standardised
            kernels, spikes multiplied by 2.74 after each neuron layer, and blocks x + 0.2 f(x / β) with neurons before the
            convolutions; β² is the expected variance of x. `"online"`:
            `keras_ratesnn.layers.OnlineRenormalization`, and by default `LIF(threshold_stabilizer=True)`, for `gradient="sltt"`
            with `step_mode="single"` (Zhu et al., ICLR 2024). Defaults to `"batch"`.

    Returns:
        A `keras_ratesnn.SpikingModel`, not compiled. Its layers always have the same names, so that weights load by name.

    Raises:
        ValueError: If a value is out of bounds, an image is too small, a name is unknown, or `weights` belong to another
            network.
        TypeError: If an argument has the wrong type, or `neuron` does not return a neuron layer.
        OSError: If the file of `weights` does not exist or cannot be downloaded.

    Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based
    Backpropagation", NeurIPS 2024; He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """
    network = _network(normalization, (2, 2, 2, 2), _CHANNELS, input_shape, classes, neuron, width, include_top, stem)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "ResNet18")


def ResNet19(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 10,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    stem: Stem = "auto",
    weights: str | os.PathLike[str] | None = None,
    name: str = "resnet19",
    normalization: Normalizer = "batch",
) -> SpikingModel:
    """ResNet-19: stages of 3, 3 and 2 blocks with 128, 256 and 512 channels, and a hidden layer of 256 neurons before the last.

    There is no normalisation before these 256 neurons. They start silent, so the kernel of the last layer has no gradient in
    the first training steps.

    Example:

    >>> model = ResNet19(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`.

    Source: Yu et al., NeurIPS 2024; Zheng et al., "Going Deeper With Directly-Trained Larger Spiking Neural Networks",
    AAAI 2021.
    """
    network = _network(
        normalization, (3, 3, 2), (128, 256, 512), input_shape, classes, neuron, width, include_top, stem, hidden=256
    )
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "ResNet19")


def ResNet34(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 10,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    stem: Stem = "auto",
    weights: str | os.PathLike[str] | None = None,
    name: str = "resnet34",
    normalization: Normalizer = "batch",
) -> SpikingModel:
    """ResNet-34: the stages of `ResNet18`, with 3, 4, 6 and 3 blocks.

    Example:

    >>> model = ResNet34(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`.

    Source: He et al., CVPR 2016, with neurons as in Yu et al., NeurIPS 2024.
    """
    network = _network(normalization, (3, 4, 6, 3), _CHANNELS, input_shape, classes, neuron, width, include_top, stem)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "ResNet34")


def basic_block(x, filters, strides, neuron, name, unit=conv_bn_neuron):
    """Two 3x3 convolutions, with neurons after the first and after the sum with the shortcut."""
    y = unit(x, filters, 3, strides, neuron, name=name, number=1, **STYLE)
    y = unit(y, filters, 3, 1, None, name=name, number=2, **STYLE)
    y = layers.Add(name=f"{name}_add")([y, _residual.shortcut(x, filters, strides, None, name=name, unit=unit, **STYLE)])
    return neurons(y, neuron, f"{name}_neuron2")


NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "batch": functools.partial(_residual.network, basic_block, style=STYLE),
    "weight": _normalizer_free.network,
    "online": functools.partial(
        _residual.network,
        functools.partial(basic_block, unit=conv_osr_neuron),
        style=STYLE,
        unit=conv_osr_neuron,
        default_neuron=stabilized_neurons,
    ),
}
"""The network function for each normalisation."""


def _network(normalization, *arguments, **options):
    return NETWORKS[checks.one_of("normalization", normalization, NETWORKS)](*arguments, default=(32, 3), **options)

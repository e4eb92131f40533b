"""VGGs with spiking neurons as activations, and average pooling."""

import functools
import os
from collections.abc import Callable, Sequence

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config, Normalizer, StepModeName
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers import LIF, Neuron
from keras_ratesnn.models._arguments import checked_classes, image_input, scaled
from keras_ratesnn.models._blocks import conv_bn_neuron, conv_osr_neuron, conv_ws_neuron, dense, stabilized_neurons
from keras_ratesnn.models._initializers import NORMAL_HALF, STANDARDIZED
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models._weights import with_weights
from keras_ratesnn.spiking_model import SpikingModel

UNITS = {
    "batch": functools.partial(conv_bn_neuron, use_bias=True, initialization=NORMAL_HALF),
    "weight": functools.partial(conv_ws_neuron, use_bias=True, initialization=STANDARDIZED),
    "online": functools.partial(conv_osr_neuron, use_bias=True, initialization=NORMAL_HALF),
}
"""The function that builds a convolution with its neurons, for each normalisation."""


def VGG11(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 10,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    name: str = "vgg11",
    normalization: Normalizer = "batch",
) -> SpikingModel:
    """VGG-11 as in the paper: eight convolutions with 64 to 512 channels in five blocks, and one dense layer.

    Between blocks there is average pooling by 2, and after the last one global average pooling. There are no hidden dense
    layers.

    Example:

    >>> model = VGG11(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
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
        include_top: Boolean, whether the network ends in global average pooling and the classifier. Without them the output
            is the time mean of the last feature map, and `classes` is ignored. Defaults to `True`.
        weights: The initial weights. `None`: random. The name of a pretrained network with this architecture, see
            `keras_ratesnn.models.list_pretrained()`: images must be preprocessed as described on its card, and the last layer
            is replaced if `classes` differs. A path that ends in `.keras`: a file of the same network, written by
            `SpikingModel.save`. Defaults to `None`.
        name: String, the model's name. Defaults to `"vgg11"`.
        normalization: How currents are kept near the threshold. `"batch"`: batch normalisation after each convolution, as in
            the paper. `"weight"`: standardised kernels, and spikes multiplied by 2.74 after each neuron layer, without batch
            statistics. Its authors (Xiao et al., NeurIPS 2022) use neurons that leak less, `LIF(decay=0.5)`; with others the
            last layers may start silent. `"online"`: `keras_ratesnn.layers.OnlineRenormalization`, and by
            default `LIF(threshold_stabilizer=True)`, for `gradient="sltt"` with `step_mode="single"` (Zhu et al., ICLR 2024).
            Defaults to `"batch"`.

    Returns:
        A `keras_ratesnn.SpikingModel`, not compiled. Its layers always have the same names, so that weights load by name.

    Raises:
        ValueError: If a value is out of bounds, an image is too small, a name is unknown, or `weights` belong to another
            network.
        TypeError: If an argument has the wrong type, or `neuron` does not return a neuron layer.
        OSError: If the file of `weights` does not exist or cannot be downloaded.

    Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based
    Backpropagation", NeurIPS 2024; Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015.
    """
    blocks = ((64,), (128, 256), (512, 512), (512,), (512, 512))
    network = _network(blocks, input_shape, classes, neuron, width, include_top, normalization)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "VGG11")


def VGG13(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 10,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    name: str = "vgg13",
    normalization: Normalizer = "batch",
) -> SpikingModel:
    """VGG-13 as in the authors' program: `VGG11` with ten convolutions.

    Example:

    >>> model = VGG13(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `VGG11`.

    Source: Yu et al., NeurIPS 2024, and the authors' program, which pools before the last convolution instead of before the
        last two.
    """
    blocks = ((64, 64), (128, 128), (256, 256), (512, 512, 512), (512,))
    network = _network(blocks, input_shape, classes, neuron, width, include_top, normalization)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "VGG13")


def VGG16(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 10,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    name: str = "vgg16",
    normalization: Normalizer = "batch",
) -> SpikingModel:
    """VGG-16: the thirteen convolutions of VGG-16, global average pooling and one dense layer, as in `VGG11`.

    The paper does not use this network.

    Example:

    >>> model = VGG16(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `VGG11`.

    Source: Simonyan and Zisserman, ICLR 2015, with neurons, pooling and classifier as in Yu et al., NeurIPS 2024.
    """
    blocks = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    network = _network(blocks, input_shape, classes, neuron, width, include_top, normalization)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "VGG16")


def VGGSNN(
    input_shape: Sequence[int | None] | None = None,
    classes: int = 10,
    timesteps: int = 10,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    width: float = 1.0,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    name: str = "vggsnn",
    normalization: Normalizer = "batch",
) -> SpikingModel:
    """VGGSNN, for event frames: eight convolutions with 64 to 512 channels, pooling after every second, and one dense layer.

    Example:

    >>> model = VGGSNN(input_shape=(16, 16, 2), classes=10, timesteps=2, width=0.125)
    >>> model.predict(np.ones((1, 2, 16, 16, 2)), verbose=0).shape
    (1, 10)

    Args: as in `VGG11`, but
        input_shape: With `include_top=True` height and width must be given. Defaults to 48 x 48 pixels of 2 channels.
        timesteps: Defaults to `10`, as in the paper for CIFAR10-DVS.

    Source: Yu et al., NeurIPS 2024; Deng et al., "Temporal Efficient Training of Spiking Neural Network via Gradient
    Re-weighting", ICLR 2022.
    """
    blocks = ((64, 128), (256, 256), (512, 512), (512, 512))
    network = _network(blocks, input_shape, classes, neuron, width, include_top, normalization, default=(48, 2), flattened=True)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "VGGSNN")


def block(x, channels, neuron, name, normalization="batch"):
    """3x3 convolutions, each with normalisation and neurons."""
    for number, filters in enumerate(channels, 1):
        x = UNITS[normalization](x, filters, 3, 1, neuron, name=name, number=number)
    return x


def pool(x, name):
    """Average pooling by 2."""
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def _network(blocks, input_shape, classes, neuron, width, include_top, normalization, default=(32, 3), flattened=False):
    """A VGG of one time step.

    Args:
        blocks: The number of filters of each convolution of each block, before they are multiplied by `width`.
        input_shape: Argument of the user, see `VGG11`.
        classes: Likewise.
        neuron: Likewise.
        width: Likewise.
        include_top: Likewise.
        normalization: Likewise.
        default: The default image: height and width, and number of channels.
        flattened: Boolean, whether the last block is pooled by 2 and flattened instead of averaged over the image.
    """
    checks.one_of("normalization", normalization, UNITS)
    neuron = checked_neuron(neuron, stabilized_neurons if normalization == "online" else LIF)
    blocks = [scaled(channels, width) for channels in blocks]
    classes, include_top = checked_classes(classes), checks.boolean("include_top", include_top)
    poolings = len(blocks) if flattened else len(blocks) - 1
    x = inputs = image_input(input_shape, default, smallest=2**poolings)
    if flattened and include_top and None in inputs.shape[1:]:
        raise ValueError(
            "`input_shape` must have a known height and width, which determine the number of weights of the classifier. "
            f"Received: input_shape={input_shape!r}. With include_top=False they can be None."
        )
    for number, channels in enumerate(blocks, 1):
        x = block(x, channels, neuron, f"block{number}", normalization)
        if number <= poolings:
            x = pool(x, f"block{number}")
    if include_top:
        x = layers.Flatten(name="flatten")(x) if flattened else layers.GlobalAveragePooling2D(name="pool")(x)
        x = dense(x, classes, NORMAL_HALF, "classifier")
    return keras.Model(inputs, x, name="network")

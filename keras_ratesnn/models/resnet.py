"""ResNets with spiking neurons as activations."""

import functools
import math
from typing import Unpack

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.models import _residual
from keras_ratesnn.models._blocks import (
    channel_axis,
    conv_bn_neuron,
    conv_ws_neuron,
    online_renormalization,
    scaled_neurons,
    stabilized_neurons,
)
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._options import ImageShape, ResNetOptions, builder

# The authors use PyTorch's default initialisation. Convolutions have no bias, because
# each is followed by a normalisation.
unit = functools.partial(conv_bn_neuron, use_bias=False, initialization=PYTORCH_DEFAULT)
online_unit = functools.partial(unit, normalization=online_renormalization)

ALPHA = 0.2
"""The weight α of the residual branch of each block of a normaliser-free network."""


@builder
def ResNet18(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[ResNetOptions],
) -> keras.Model:
    """ResNet-18: four stages with 64, 128, 256 and 512 channels, two blocks each, and
    neurons instead of ReLUs.

    Example:

    >>> model = ResNet18(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args:
        input_shape: Tuple of three integers, the shape of one image in Keras' image
            data format, `(height, width, channels)` or, with `channels_first`,
            `(channels, height, width)`. Height and width can be `None` for images of
            any size. Defaults to 32 x 32 pixels of 3 channels.
        classes: Integer >= 1, the number of outputs, which are logits. Defaults to
            `10`.
        timesteps: Integer >= 1, see `keras_ratesnn.SpikingModel`. Defaults to `4`.
        neuron: Function without arguments that returns a new neuron layer each time;
            the network sets its name. Defaults to `None`, which stands for
            `keras_ratesnn.layers.LIF()`, the paper's neurons.
        width: Float > 0 that multiplies the number of channels of every layer. Defaults
            to `1.0`.
        include_top: Boolean, whether the network ends in pooling and the classifier.
            Without them the output is the time mean of the last feature map, and
            `classes` is ignored. Defaults to `True`.
        stem: The first layers. `"cifar"`: a 3x3 convolution, for small images.
            `"imagenet"`: a 7x7 convolution with stride 2 and 3x3 max pooling with
            stride 2. `"auto"`: `"imagenet"` for images of 96 x 96 pixels or more, else
            `"cifar"`. Defaults to `"auto"`.
        normalization: How currents are kept near the threshold. `"batch"`: batch
            normalisation after each convolution, as in the paper. `"weight"`: a
            normaliser-free network (Brock et al., ICLR 2021) without batch statistics:
            standardised kernels, spikes multiplied by 2.74 after each neuron layer, and
            blocks x + 0.2 f(x / β) with neurons before the convolutions; β² is the
            expected variance of x. `"online"`:
            `keras_ratesnn.layers.OnlineRenormalization`, and by default
            `LIF(threshold_stabilizer=True)`, for `gradient="sltt"` with
            `step_mode="single"` (Zhu et al., ICLR 2024). Defaults to `"batch"`.
        gradient: The training method, see `keras_ratesnn.SpikingModel`. Defaults to
            `"rate"`.
        step_mode: `"multi"` or `"single"`, see `keras_ratesnn.SpikingModel`. Defaults
            to `"multi"`.
        weights: The initial weights. `None`: random. The name of a pretrained network
            with this architecture, see `keras_ratesnn.models.list_pretrained()`: images
            must be preprocessed as described on its card, and the last layer is
            replaced if `classes` differs. A path that ends in `.keras`: a file of the
            same network, written by `SpikingModel.save`. Defaults to `None`.
        name: String, the model's name. Defaults to `None`, the name of the function in
            lower case.

    Returns:
        A `keras_ratesnn.SpikingModel`, not compiled. Its layers always have the same
        names, so that weights load by name.

    Raises:
        ValueError: If a value is out of bounds, an image is too small, a name is
            unknown, or `weights` belong to another network.
        TypeError: If an argument has the wrong type, or `neuron` does not return a
            neuron layer.
        OSError: If the file of `weights` does not exist or cannot be downloaded.

    Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks
    through Rate-based Backpropagation", NeurIPS 2024; He et al., "Deep Residual
    Learning for Image Recognition", CVPR 2016.
    """
    return _network((2, 2, 2, 2), input_shape, classes, **options)


@builder
def ResNet19(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[ResNetOptions],
) -> keras.Model:
    """ResNet-19: stages of 3, 3 and 2 blocks with 128, 256 and 512 channels, and a
    hidden layer of 256 neurons before the last.

    There is no normalisation before these 256 neurons. They start silent, so the kernel
    of the last layer has no gradient in the first training steps.

    Example:

    >>> model = ResNet19(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`.

    Source: Yu et al., NeurIPS 2024; Zheng et al., "Going Deeper With Directly-Trained
    Larger Spiking Neural Networks", AAAI 2021.
    """
    return _network(
        (3, 3, 2), input_shape, classes, channels=(128, 256, 512), hidden=256, **options
    )


@builder
def ResNet34(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[ResNetOptions],
) -> keras.Model:
    """ResNet-34: the stages of `ResNet18`, with 3, 4, 6 and 3 blocks.

    Example:

    >>> model = ResNet34(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`.

    Source: He et al., CVPR 2016, with neurons as in Yu et al., NeurIPS 2024.
    """
    return _network((3, 4, 6, 3), input_shape, classes, **options)


basic_block = functools.partial(_residual.block, unit=unit)
"""Two 3x3 convolutions, with neurons after the first and after the sum with the
shortcut."""


class NormalizerFreeBlocks:
    """Blocks x + α · f(x / β), with two 3x3 convolutions in f and neurons before each.

    β² is the expected variance of x: 1 after the stem, increased by α² in each block,
    and 1 + α² after a block whose shortcut is a convolution. Such a shortcut starts
    after the block's first neurons.

    Source: Brock et al., "Characterizing signal propagation to close the performance
    gap in unnormalized ResNets", ICLR 2021.
    """

    def __init__(self):
        self.variance = 1.0

    def block(self, x, filters, strides, neuron, name):
        """Adds a block; blocks must be added in order."""
        spikes = self._neurons(x, neuron, f"{name}_neuron1")
        y = conv_ws_neuron(spikes, filters, 3, strides, None, name=name, number=1)
        y = scaled_neurons(y, neuron, f"{name}_neuron2")
        y = conv_ws_neuron(y, filters, 3, 1, None, name=name, number=2)
        if strides > 1 or x.shape[channel_axis()] != filters:
            shortcut = f"{name}_shortcut"
            x = conv_ws_neuron(spikes, filters, 1, strides, None, name=shortcut)
            self.variance = 1.0
        self.variance += ALPHA**2
        return layers.Add(name=f"{name}_add")(
            [x, layers.Rescaling(ALPHA, name=f"{name}_alpha")(y)]
        )

    def after(self, x, neuron):
        """Adds neurons after the last block."""
        return self._neurons(x, neuron, "last_neuron")

    def _neurons(self, x, neuron, name):
        x = layers.Rescaling(1 / math.sqrt(self.variance), name=f"{name}_beta")(x)
        return scaled_neurons(x, neuron, name)


def _normalizer_free():
    blocks = NormalizerFreeBlocks()
    return _residual.Family(
        blocks.block,
        conv_ws_neuron,
        neurons_after_stem=False,
        put_neurons=scaled_neurons,
        after_blocks=blocks.after,
    )


FAMILIES = {
    "batch": lambda: _residual.Family(basic_block, unit),
    "weight": _normalizer_free,
    "online": lambda: _residual.Family(
        functools.partial(basic_block, unit=online_unit),
        online_unit,
        default_neuron=stabilized_neurons,
    ),
}
"""For each normalisation a function that returns the family of its networks."""


def _network(depths, input_shape, classes, *, normalization, **options):
    family = FAMILIES[checks.one_of("normalization", normalization, FAMILIES)]()
    return _residual.network(family, depths, input_shape, classes, **options)

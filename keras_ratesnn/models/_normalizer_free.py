"""Normaliser-free residual networks: kernels are standardised, and blocks are scaled by the expected input variance."""

import math

from keras import layers

from keras_ratesnn.models import _residual
from keras_ratesnn.models._blocks import channel_axis, conv_ws_neuron, scaled_neurons
from keras_ratesnn.models._initializers import STANDARDIZED

STYLE = {"use_bias": True, "initialization": STANDARDIZED}
ALPHA = 0.2
"""The weight α of the residual branch of each block."""


def network(*arguments, **options):
    """A normaliser-free residual network; takes the arguments of `_residual.network`, starting with `depths`."""
    blocks = Blocks()
    parts = {"unit": conv_ws_neuron, "put_neurons": scaled_neurons, "neurons_after_stem": False}
    return _residual.network(  # type: ignore[misc]  # None of the arguments is given twice.
        blocks.block, *arguments, style=STYLE, after_blocks=blocks.after, **parts, **options
    )


class Blocks:
    """Blocks x + α · f(x / β), with two 3x3 convolutions in f and neurons before each.

    β² is the expected variance of x: 1 after the stem, increased by α² in each block, and 1 + α² after a block whose shortcut
        is
    a convolution. Such a shortcut starts after the block's first neurons.

    Source: Brock et al., "Characterizing signal propagation to close the performance gap in unnormalized ResNets", ICLR 2021.
    """

    def __init__(self):
        self.variance = 1.0

    def block(self, x, filters, strides, neuron, name):
        """Adds a block; blocks must be added in order."""
        spikes = self._neurons(x, neuron, f"{name}_neuron1")
        y = conv_ws_neuron(spikes, filters, 3, strides, None, name=name, number=1, **STYLE)
        y = scaled_neurons(y, neuron, f"{name}_neuron2")
        y = conv_ws_neuron(y, filters, 3, 1, None, name=name, number=2, **STYLE)
        if strides > 1 or x.shape[channel_axis()] != filters:
            x, self.variance = conv_ws_neuron(spikes, filters, 1, strides, None, name=f"{name}_shortcut", **STYLE), 1.0
        self.variance += ALPHA**2
        return layers.Add(name=f"{name}_add")([x, layers.Rescaling(ALPHA, name=f"{name}_alpha")(y)])

    def after(self, x, neuron):
        """Adds neurons after the last block."""
        return self._neurons(x, neuron, "last_neuron")

    def _neurons(self, x, neuron, name):
        x = layers.Rescaling(1 / math.sqrt(self.variance), name=f"{name}_beta")(x)
        return scaled_neurons(x, neuron, name)

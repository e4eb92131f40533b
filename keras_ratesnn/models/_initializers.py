"""The initialisation of the authors' networks, as Keras initializers."""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras import initializers


class Initialization(NamedTuple):
    """Initializers of kernels and biases.

    Args:
        kernel: Function without arguments that returns a new Keras initializer, because
            an initializer that is used twice draws the same numbers twice.
        bias: Function of the fan-in, the number of inputs of one output, that returns a
            new Keras initializer.
    """

    kernel: Callable
    bias: Callable


def _uniform_in_fan_in(fan_in):
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


def _zeros(fan_in):
    return initializers.Zeros()


# The default of PyTorch's Linear and Conv2d: kaiming_uniform with a = sqrt(5) has the
# gain sqrt(2 / (1 + 5)), so that kernels, like biases, are uniform in ±1/sqrt(fan_in).
PYTORCH_DEFAULT = Initialization(
    kernel=lambda: initializers.VarianceScaling(
        1 / 3, mode="fan_in", distribution="uniform"
    ),
    bias=_uniform_in_fan_in,
)

# He et al. 2015, "fan out": the gradient keeps its variance through convolutions and
# ReLUs. Biases are as above.
KAIMING_FAN_OUT = Initialization(
    kernel=lambda: initializers.VarianceScaling(
        2.0, mode="fan_out", distribution="untruncated_normal"
    ),
    bias=_uniform_in_fan_in,
)

# Standardisation makes the output independent of the scale of a kernel, like batch
# normalisation.
STANDARDIZED = Initialization(KAIMING_FAN_OUT.kernel, _zeros)

# Batch normalisation makes the output independent of the scale of a convolution kernel;
# for its gradient, the scale acts like a learning rate. No normalisation follows the
# last layer, so its logits start large.
NORMAL_HALF = Initialization(lambda: initializers.RandomNormal(0.0, 0.5), _zeros)

# The initialisation of all kernels of SpikingResformer.
NORMAL_SMALL = Initialization(lambda: initializers.RandomNormal(0.0, 0.02), _zeros)

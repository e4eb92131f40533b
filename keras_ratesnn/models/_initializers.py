"""How the authors' networks start, as Keras initializers."""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras import initializers


class Initialization(NamedTuple):
    """How kernels and biases start.

    Args:
        kernel: Function without arguments that returns a new Keras initializer: one that is used twice draws the same
            numbers twice.
        bias: Function of the fan-in, the number of inputs of one output, that returns a new Keras initializer.
    """

    kernel: Callable
    bias: Callable


def _uniform_in_fan_in(fan_in):
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


# What PyTorch's Linear and Conv2d do by themselves: kaiming_uniform with a = sqrt(5) has the gain sqrt(2 / (1 + 5)), so that
# kernels, as biases, are uniform in ±1/sqrt(fan_in).
PYTORCH_DEFAULT = Initialization(
    kernel=lambda: initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform"),
    bias=_uniform_in_fan_in,
)

# He et al. 2015, "fan out": the gradient keeps its variance through convolutions and ReLUs. It leaves the biases as they were.
KAIMING_FAN_OUT = Initialization(
    kernel=lambda: initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal"),
    bias=_uniform_in_fan_in,
)

# Standardisation makes the scale of a kernel irrelevant for what comes out, as batch normalisation does.
STANDARDIZED = Initialization(kernel=KAIMING_FAN_OUT.kernel, bias=lambda fan_in: initializers.Zeros())

# Batch normalisation makes the scale of a convolution's kernel irrelevant for what comes out; for its gradient it is a scale of
# the learning rate. No normalisation follows the last layer, whose logits start large.
NORMAL_HALF = Initialization(
    kernel=lambda: initializers.RandomNormal(0.0, 0.5),
    bias=lambda fan_in: initializers.Zeros(),
)

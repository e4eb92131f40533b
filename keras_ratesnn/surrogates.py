"""Surrogate derivatives, which replace the derivative of the spike function H(u), u = v
− θ, in the backward pass.

The spike itself is always the exact step function. Choose a surrogate by name,
`LIF(surrogate="atan")`, or as an object with its parameter,
`LIF(surrogate=surrogates.ATan(alpha=4.0))`. A custom surrogate is a subclass of
`Surrogate` with `derivative` and, if it has parameters, `get_config`.
"""

import math

from keras import ops

from keras_ratesnn._core import backend, checks, registry
from keras_ratesnn._core.annotations import Config, Tensor


class Surrogate(registry.Configured):
    """A function h(u) that replaces dH(u)/du, where u = v − θ is the membrane's
    distance from its threshold.

    Subclasses implement `derivative(u)` as an element-wise function with `keras.ops`,
    and return their constructor arguments from `get_config()`.
    """

    def derivative(self, distance: Tensor) -> Tensor:
        """h(u), with the shape and dtype of `distance`."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `derivative(distance)`."
        )


@registry.register
class Sigmoid(Surrogate):
    """h(u) = α σ(αu) (1 − σ(αu)), the derivative of a sigmoid. Largest value α/4,
    area 1.

    Args:
        alpha: Float > 0, steepness. Defaults to `4.0`, with which the largest value is
            1 (Yu et al., NeurIPS 2024).
    """

    def __init__(self, alpha: float = 4.0) -> None:
        self.alpha = checks.real("alpha", alpha, above=0)

    def derivative(self, distance: Tensor) -> Tensor:
        sigmoid = ops.sigmoid(self.alpha * distance)
        return sigmoid * backend.multiply_add(sigmoid, -self.alpha, self.alpha)

    def get_config(self) -> Config:
        return {"alpha": self.alpha}


@registry.register
class ATan(Surrogate):
    """h(u) = (α/2) / (1 + (π α u / 2)²), the derivative of an arctangent. Largest value
    α/2, area 1.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant", ICCV 2021;
    SpikingJelly's `ATan`.

    Args:
        alpha: Float > 0, steepness. Defaults to `2.0`.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        self.alpha = checks.real("alpha", alpha, above=0)

    def derivative(self, distance: Tensor) -> Tensor:
        return (self.alpha / 2) / (
            1.0 + ops.square((math.pi * self.alpha / 2) * distance)
        )

    def get_config(self) -> Config:
        return {"alpha": self.alpha}


@registry.register
class Triangle(Surrogate):
    """h(u) = max(0, 1 − |u| / width) / width. Largest value 1/width, area 1.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of
    spiking neurons", NeurIPS 2018.

    Args:
        width: Float > 0, the distance from the threshold at which the derivative
            reaches 0. Defaults to `1.0`.
    """

    def __init__(self, width: float = 1.0) -> None:
        self.width = checks.real("width", width, above=0)

    def derivative(self, distance: Tensor) -> Tensor:
        return ops.relu(1.0 - ops.abs(distance) / self.width) / self.width

    def get_config(self) -> Config:
        return {"width": self.width}


@registry.register
class Rectangular(Surrogate):
    """h(u) = 1/width where |u| < width/2, else 0. Area 1.

    Source: Wu et al., "Spatio-Temporal Backpropagation for Training High-Performance
    Spiking Neural Networks", 2018.

    Args:
        width: Float > 0, full width of the window around the threshold. Defaults to
            `1.0`.
    """

    def __init__(self, width: float = 1.0) -> None:
        self.width = checks.real("width", width, above=0)

    def derivative(self, distance: Tensor) -> Tensor:
        return ops.cast(ops.abs(distance) < self.width / 2, distance.dtype) / self.width

    def get_config(self) -> Config:
        return {"width": self.width}


@registry.register
class FastSigmoid(Surrogate):
    """h(u) = 1 / (1 + slope · |u|)², also known as SuperSpike. Largest value 1.

    Source: Zenke and Ganguli, "SuperSpike: Supervised Learning in Multilayer Spiking
    Neural Networks", 2018; snnTorch's `fast_sigmoid`.

    Args:
        slope: Float > 0, how fast the derivative falls off. Defaults to `25.0`.
    """

    def __init__(self, slope: float = 25.0) -> None:
        self.slope = checks.real("slope", slope, above=0)

    def derivative(self, distance: Tensor) -> Tensor:
        return 1.0 / ops.square(1.0 + self.slope * ops.abs(distance))

    def get_config(self) -> Config:
        return {"slope": self.slope}


@registry.register
class Gaussian(Surrogate):
    """h(u) = exp(−u² / 2σ²) / (σ √(2π)), a normal density. Largest value 0.4/σ, area 1.

    Source: Yin et al., "Accurate and efficient time-domain classification with adaptive
    spiking recurrent neural networks", 2021.

    Args:
        sigma: Float > 0, standard deviation. Defaults to `0.5`.
    """

    def __init__(self, sigma: float = 0.5) -> None:
        self.sigma = checks.real("sigma", sigma, above=0)

    def derivative(self, distance: Tensor) -> Tensor:
        height = 1.0 / (self.sigma * math.sqrt(2 * math.pi))
        return height * ops.exp(-0.5 * ops.square(distance / self.sigma))

    def get_config(self) -> Config:
        return {"sigma": self.sigma}


BY_NAME = {
    "sigmoid": Sigmoid,
    "atan": ATan,
    "triangle": Triangle,
    "rectangular": Rectangular,
    "fast_sigmoid": FastSigmoid,
    "superspike": FastSigmoid,
    "gaussian": Gaussian,
}


def get(identifier: str | Surrogate | Config) -> Surrogate:
    """Returns the surrogate for `identifier`: a name, a `Surrogate` or its config.

    >>> get("atan")
    ATan(alpha=2.0)

    Args:
        identifier: `"sigmoid"`, `"atan"`, `"triangle"`, `"rectangular"`,
            `"fast_sigmoid"` (or `"superspike"`), `"gaussian"`, a `Surrogate` or a
            serialised one.

    Returns:
        A `Surrogate`.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is none of these.
    """
    return registry.resolve("surrogate", identifier, Surrogate, BY_NAME)

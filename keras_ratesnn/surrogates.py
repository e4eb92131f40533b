"""Surrogate derivatives, which replace the derivative of the spike function H(u), u = v
− θ, in the backward pass.

The spike itself is always the exact step function. Choose a surrogate by name,
`LIF(surrogate="atan")`, or as an object with its parameter,
`LIF(surrogate=surrogates.ATan(alpha=4.0))`. A custom surrogate is a subclass of
`Surrogate` with `derivative` and, if it has parameters, `get_config`.

A surrogate is fixed when it is created. For one that changes in training, pass a Keras
variable as its number:

>>> steepness = keras.Variable(2.0, trainable=False)
>>> neurons = keras_ratesnn.layers.LIF(
...     surrogate=keras_ratesnn.surrogates.Sigmoid(alpha=steepness)
... )
>>> steeper_each_epoch = keras.callbacks.LambdaCallback(
...     on_epoch_begin=lambda epoch, logs: steepness.assign(2.0 + epoch)
... )

A new value compiles nothing. Several layers may share a variable. It is no weight: a
config and a saved file have its present value, as a number. On JAX, assign it between
epochs, or after `model.jax_state_sync()`: during an epoch `fit` has the values of all
variables, and assigns them at its end.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, keras_internals, registry, tree
from keras_ratesnn._core.annotations import Config, Tensor
from keras_ratesnn._core.backend import engine


class Surrogate(registry.Configured):
    """A function h(u) that replaces dH(u)/du, where u = v − θ is the membrane's
    distance from its threshold.

    Subclasses implement `derivative(u)` as an element-wise function with `keras.ops`,
    and return their constructor arguments from `get_config()`.
    """

    _remedy = (
        "Make a new one: LIF(surrogate={kind}({name}=...)). To change it in training, "
        "pass a variable: {kind}({name}=keras.Variable(..., trainable=False))."
    )

    @property
    def variables(self) -> list[keras.Variable]:
        """The Keras variables among its attributes, also in lists, dictionaries and
        surrogates."""
        found: dict[int, keras.Variable] = {}
        for leaf in tree.flatten(vars(self)):
            inside = leaf.variables if isinstance(leaf, Surrogate) else [leaf]
            found |= {id(x): x for x in inside if isinstance(x, keras.Variable)}
        return list(found.values())

    def derivative(self, distance: Tensor) -> Tensor:
        """h(u), with the shape and dtype of `distance`."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `derivative(distance)`."
        )


def _number(name: str, value: Any) -> Any:
    """A number > 0, or a Keras variable with one."""
    if not isinstance(value, keras.Variable):
        return checks.real(name, value, above=0)
    if value.shape != () or value.trainable:
        raise ValueError(
            f"A variable for `{name}` must be one number that is not trained: "
            f"keras.Variable(4.0, trainable=False). Received: {name}={value!r}"
        )
    checks.real(name, float(value), above=0)
    return value


def _present(number: Any, distance: Tensor) -> Any:
    """The present value of a number of a surrogate, in the dtype of `distance` if it is
    a variable."""
    if not isinstance(number, keras.Variable):
        return number
    with keras_internals.without_autocast():
        return ops.cast(number, distance.dtype)


class _OfOneNumber(Surrogate):
    """A surrogate with one number: subclasses name the argument."""

    _argument: str

    def get_config(self) -> Config:
        return {self._argument: float(getattr(self, self._argument))}


@registry.register
class Sigmoid(_OfOneNumber):
    """h(u) = α σ(αu) (1 − σ(αu)), the derivative of a sigmoid. Largest value α/4,
    area 1.

    Args:
        alpha: Float > 0, steepness. Defaults to `4.0`, with which the largest value is
            1 (Yu et al., NeurIPS 2024).
    """

    _argument = "alpha"

    def __init__(self, alpha: float | keras.Variable = 4.0) -> None:
        self.alpha = _number("alpha", alpha)

    def derivative(self, distance: Tensor) -> Tensor:
        alpha = _present(self.alpha, distance)
        sigmoid = ops.sigmoid(alpha * distance)
        return sigmoid * engine.multiply_add(sigmoid, -alpha, alpha)


@registry.register
class ATan(_OfOneNumber):
    """h(u) = (α/2) / (1 + (π α u / 2)²), the derivative of an arctangent. Largest value
    α/2, area 1.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant", ICCV 2021;
    SpikingJelly's `ATan`.

    Args:
        alpha: Float > 0, steepness. Defaults to `2.0`.
    """

    _argument = "alpha"

    def __init__(self, alpha: float | keras.Variable = 2.0) -> None:
        self.alpha = _number("alpha", alpha)

    def derivative(self, distance: Tensor) -> Tensor:
        alpha = _present(self.alpha, distance)
        return (alpha / 2) / (1.0 + ops.square((math.pi * alpha / 2) * distance))


@registry.register
class Triangle(_OfOneNumber):
    """h(u) = max(0, 1 − |u| / width) / width. Largest value 1/width, area 1.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of
    spiking neurons", NeurIPS 2018.

    Args:
        width: Float > 0, the distance from the threshold at which the derivative
            reaches 0. Defaults to `1.0`.
    """

    _argument = "width"

    def __init__(self, width: float | keras.Variable = 1.0) -> None:
        self.width = _number("width", width)

    def derivative(self, distance: Tensor) -> Tensor:
        width = _present(self.width, distance)
        return ops.relu(1.0 - ops.abs(distance) / width) / width


@registry.register
class Rectangular(_OfOneNumber):
    """h(u) = 1/width where |u| < width/2, else 0. Area 1.

    Source: Wu et al., "Spatio-Temporal Backpropagation for Training High-Performance
    Spiking Neural Networks", 2018.

    Args:
        width: Float > 0, full width of the window around the threshold. Defaults to
            `1.0`.
    """

    _argument = "width"

    def __init__(self, width: float | keras.Variable = 1.0) -> None:
        self.width = _number("width", width)

    def derivative(self, distance: Tensor) -> Tensor:
        width = _present(self.width, distance)
        return ops.cast(ops.abs(distance) < width / 2, distance.dtype) / width


@registry.register
class FastSigmoid(_OfOneNumber):
    """h(u) = 1 / (1 + slope · |u|)², also known as SuperSpike. Largest value 1.

    Source: Zenke and Ganguli, "SuperSpike: Supervised Learning in Multilayer Spiking
    Neural Networks", 2018; snnTorch's `fast_sigmoid`.

    Args:
        slope: Float > 0, how fast the derivative falls off. Defaults to `25.0`.
    """

    _argument = "slope"

    def __init__(self, slope: float | keras.Variable = 25.0) -> None:
        self.slope = _number("slope", slope)

    def derivative(self, distance: Tensor) -> Tensor:
        slope = _present(self.slope, distance)
        return 1.0 / ops.square(1.0 + slope * ops.abs(distance))


@registry.register
class Gaussian(_OfOneNumber):
    """h(u) = exp(−u² / 2σ²) / (σ √(2π)), a normal density. Largest value 0.4/σ, area 1.

    Source: Yin et al., "Accurate and efficient time-domain classification with adaptive
    spiking recurrent neural networks", 2021.

    Args:
        sigma: Float > 0, standard deviation. Defaults to `0.5`.
    """

    _argument = "sigma"

    def __init__(self, sigma: float | keras.Variable = 0.5) -> None:
        self.sigma = _number("sigma", sigma)

    def derivative(self, distance: Tensor) -> Tensor:
        sigma = _present(self.sigma, distance)
        height = 1.0 / (sigma * math.sqrt(2 * math.pi))
        return height * ops.exp(-0.5 * ops.square(distance / sigma))


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
    return registry.resolve(
        "surrogate", identifier, Surrogate, BY_NAME, {"arctan": "'atan'"}
    )

"""Layer kinds: the table of facts about Keras' layers and operations that training methods use.

A training method never checks the class of a layer, only facts: whether it is affine, normalises, draws random numbers, takes
the time step. The facts about Keras' own layers are listed here; a custom layer declares its facts in the class attribute
`layer_kind`:

>>> class Scale(keras.layers.Layer):
...     layer_kind = keras_ratesnn.LayerKind(affine=True)
...     def build(self, input_shape):
...         self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")
...     def call(self, inputs):
...         return inputs * self.scale
>>> kind_of(Scale()).affine
True

A layer without facts is run unchanged and works with every method. Facts save work, or declare what a call does not show.
"""

import dataclasses
import functools
import inspect
import math
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from keras_ratesnn._core import inheritance, keras_internals, normalization

_LayerClass = TypeVar("_LayerClass", bound=type)

OPERATION = "operation"
NEURON = "neuron"
ENCODER = "encoder"
CELL = "cell"
TIME_MEAN = "time mean"


@dataclasses.dataclass(frozen=True)
class Normalization:
    """How a layer normalises with batch statistics in training.

    Args:
        normalize: Function `(layer, inputs, times=1, mask=None) -> (outputs, mean, variance)`: normalises a tensor with its own
            statistics, without those rows that are masked, and updates the layer's moving averages `times` times.
        normalize_rate: Function `(layer, rate, mean, variance, weights=None) -> outputs`: normalises a rate with the given
            statistics, and with the derivatives of the rate's own statistics, in which it may have weights; `None` if there
            is no such function. Defaults to `None`.
        step_factors: Function `layer -> (steps,)`: the factor of the normalised output at each time step, for a layer that
            takes the time step; `None` if there are none. Defaults to `None`.
        after_steps: Function `(layer, mean, variance)`, called once after all steps of a batch with the statistics of all
            steps, for a layer whose averages must not change earlier; `None` if there is nothing to do. Defaults to `None`.
        scale_and_shift: Function `layer -> (scale, shift)`: two float64 arrays `(channels,)`, for a layer that in inference
            multiplies its input by one and adds the other along its axis `axis`; `None` for other layers. Defaults to `None`.
    """

    normalize: Callable
    normalize_rate: Callable | None = None
    step_factors: Callable | None = None
    after_steps: Callable | None = None
    scale_and_shift: Callable | None = None


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """Facts about a layer class.

    Args:
        role: `"operation"`, or `"neuron"`, `"encoder"`, `"cell"`, `"time mean"` for classes of `keras_ratesnn.layers`. Defaults
            to `"operation"`.
        affine: Boolean, whether `layer(x) = A x + b` for some `A` and `b`. Such a layer commutes with the time mean, so rate
            training needs only its derivative. The forward pass of any other layer is computed once more on the rate. If a
            layer is declared affine but is not, its gradients are wrong. Defaults to `False`.
        parameter_free: Boolean, whether an affine layer has no weights. Defaults to `False`.
        normalization: `Normalization` of a layer that normalises in training, and is otherwise affine at each step; `None` for
            other layers. Defaults to `None`.
        masks: Boolean, whether the layer, in training, multiplies its input by a random mask that does not depend on it.
            Defaults to `False`.
        function_of_tensors: Boolean, whether a call depends only on tensors, not on `training`, masks or earlier calls.
            Defaults to `False`.
        any_layout: Boolean, whether it is a Keras convolution or pooling layer, which all backends can run on data in any
            memory layout. Defaults to `False`.
        activation: String, the name of the activation function if the operation only applies one; `None` otherwise.
            Defaults to `None`.
        moves: Boolean, whether it only moves or scales a signal if it has no other input signal. Defaults to `False`.
        multiply_adds: Function `(layer, input_shape, output_shape) -> integer`, its multiply-adds for one sample; `None` if
            unknown. Defaults to `None`.
        fan_out: Function `(layer, input_shape, output_shape) -> array`, how many synapses each element of the input of a sample
            feeds, an array that broadcasts to the sample; `None` if all feed the same number, or it is unknown. Defaults to
            `None`.
        most_timesteps: Function `layer -> integer`, the largest number of time steps it can run for, if it has weights for
            each step; `None` if there is no limit. Defaults to `None`.
        output_factors: Function `layer -> (name, shape)`, for a layer with Keras' arguments `use_bias` and `data_format`: the
            name of the weight to which its outputs without bias are proportional, and the shape in which factors
            `(channels,)` of the outputs broadcast to this weight; `None` for other layers. Defaults to `None`.
    """

    role: str = OPERATION
    affine: bool = False
    parameter_free: bool = False
    normalization: Normalization | None = None
    masks: bool = False
    function_of_tensors: bool = False
    any_layout: bool = False
    activation: str | None = None
    moves: bool = False
    multiply_adds: Callable | None = None
    fan_out: Callable | None = None
    most_timesteps: Callable | None = None
    output_factors: Callable | None = None


def affine(layer_class: _LayerClass) -> _LayerClass:
    """Marks a custom layer class as affine in its input: `layer(x) = A x + b` for some `A` and `b`.

    Short for `layer_kind = LayerKind(affine=True)` in the class, see `LayerKind`. Subclasses that override anything must be
    marked themselves. Keras' own affine layers (Dense, convolutions, average pooling, padding, reshapes, Add, Concatenate, ...)
    are already marked.

    Example:

    >>> @affine
    ... class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")
    ...     def call(self, inputs):
    ...         return inputs * self.scale

    Args:
        layer_class: A subclass of `keras.layers.Layer`.

    Returns:
        The class, so that `affine` can be used as a decorator.

    Raises:
        TypeError: If `layer_class` is not a layer class.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(
            f"`layer_class` must be a subclass of keras.layers.Layer. Received: layer_class={layer_class!r}. "
            "Mark the class, not an instance of it."
        )
    layer_class.layer_kind = LayerKind(affine=True)  # type: ignore[attr-defined]  # Keras layers have no types.
    _kind_of_class.cache_clear()
    return layer_class


def kind_of(operation: keras.Operation) -> LayerKind:
    """The `LayerKind` of a Keras operation: a layer, or a node made by `keras.ops`."""
    kind = _kind_of_class(type(operation))  # type: ignore[arg-type]  # A class can be hashed.
    # A layer with an activation, such as `Dense(10, activation="relu")`, is not affine.
    if kind.affine and getattr(operation, "activation", None) not in (None, keras.activations.linear):
        return dataclasses.replace(kind, affine=False)
    # It also uses running statistics, so it needs another normalisation.
    if kind.normalization is not None and getattr(operation, "renorm", False):
        return dataclasses.replace(kind, normalization=_RENORMALIZATION)
    return kind


def kind_of_class(operation_class: type) -> LayerKind:
    """The `LayerKind` of a class, for classes with the same computation; `kind_of` also considers an instance's activation."""
    return _kind_of_class(operation_class)


def seeds_of(operation: keras.Operation) -> tuple[Any, ...]:
    """The state variables of the random generators of an operation and its sublayers: a tuple."""
    if operation not in _seeds:
        _seeds[operation] = keras_internals.seed_states(operation) if isinstance(operation, keras.layers.Layer) else ()
    return _seeds[operation]


def is_random(operation: keras.Operation, training: bool) -> bool:
    """Whether a call of the operation may draw random numbers; Keras' own layers do so only in training."""
    return bool(seeds_of(operation)) and (training or not type(operation).__module__.startswith("keras."))


@functools.cache
def wants_time_step(operation_class: type) -> bool:
    """Whether a layer's `call` takes the time step: `call(inputs, time_step=None)`."""
    call = getattr(operation_class, "call", None)
    return call is not None and "time_step" in inspect.signature(call).parameters


def may_use_masks(operation: keras.Operation) -> bool:
    """Whether the outputs of an operation may depend on the Keras masks of its inputs."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    kind = kind_of(operation)
    takes_mask = _takes_mask(type(operation))  # type: ignore[arg-type]  # A class can be hashed.
    return takes_mask or not (kind.function_of_tensors or kind.activation)


@functools.cache
def _takes_mask(operation_class: type) -> bool:
    """Whether a layer's `call` takes a mask: an argument that is named so, as Keras wants it."""
    call = getattr(operation_class, "call", None)
    names = () if call is None else inspect.signature(call).parameters
    return any(name == "mask" or name.endswith("_mask") for name in names)


_seeds: weakref.WeakKeyDictionary[keras.Operation, tuple[Any, ...]] = weakref.WeakKeyDictionary()


@functools.cache
def _kind_of_class(operation_class: type) -> LayerKind:
    for base in operation_class.__mro__:
        kind = vars(base).get("layer_kind") or _table().get(base) or _kind_of_node(base)
        if kind is not None:
            # A subclass of a neuron is still a neuron; other facts do not hold for a subclass that overrides anything.
            return _ANY if kind.role == OPERATION and inheritance.redefines(operation_class, base) else kind
    return _ANY


def _dense(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    return math.prod(output_shape[1:-1]) * math.prod(layer.kernel.shape)


def _einsum(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """The product of the sizes of all letters except the batch axis; an ellipsis stands for the remaining axes."""
    of_input, of_kernel = layer.equation.split("->")[0].split(",")
    sizes = dict(zip(of_kernel, layer.kernel.shape, strict=True))
    before, _, after = of_input.partition("...")
    sizes.update(zip(before, input_shape, strict=False))
    sizes.update(zip(reversed(after), reversed(input_shape), strict=False))
    elided = input_shape[len(before) : len(input_shape) - len(after)] if "..." in of_input else ()
    return math.prod(sizes.values()) * math.prod(elided) // input_shape[0]


def _convolution(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    return _positions(layer, output_shape) * math.prod(layer.kernel.shape)


def _convolution_fan_out(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> np.ndarray:
    """Less at the edges than in the middle, and where strides leave inputs out."""
    *kernel, _, outputs = layer.kernel.shape
    sizes, found = _space(layer, input_shape), _space(layer, output_shape)
    along_axes = zip(sizes, found, kernel, _each(layer.strides, kernel), _each(layer.dilation_rate, kernel), strict=True)
    counts = functools.reduce(np.multiply.outer, [_fan_out_along(layer.padding, *of_axis) for of_axis in along_axes])
    return np.expand_dims(counts * (outputs // getattr(layer, "groups", 1)), 0 if layer.data_format == "channels_first" else -1)


def _fan_out_along(padding: str, size: int, outputs: int, kernel: int, stride: int, dilation: int) -> np.ndarray:
    """How many of the outputs along an axis each of `size` inputs feeds, `(size,)`."""
    extent = (kernel - 1) * dilation + 1
    before = {"valid": 0, "causal": extent - 1, "same": max((outputs - 1) * stride + extent - size, 0) // 2}[padding]
    places = np.add.outer(np.arange(outputs) * stride, np.arange(kernel) * dilation) - before
    return np.bincount(places[(places >= 0) & (places < size)], minlength=size)


def _each(value: int | tuple[int, ...], axes: Sequence[int]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * len(axes)


def _transposed(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    return _positions(layer, input_shape) * math.prod(layer.kernel.shape)


def _separable(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return _positions(layer, output_shape) * kernels


def _positions(layer: Any, shape: tuple[int, ...]) -> int:
    return math.prod(_space(layer, shape))


def _space(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if layer.data_format == "channels_first" else shape[1:-1]


def _of_last_axis(layer: Any) -> tuple[str, tuple[int, ...]]:
    return "kernel", (-1,)


def _of_depthwise(layer: Any) -> tuple[str, tuple[int, ...]]:
    """The outputs of an input channel are neighbours."""
    return "kernel", tuple(layer.kernel.shape[-2:])


def _of_transposed(layer: Any) -> tuple[str, tuple[int, ...]]:
    """The last axis of the kernel is that of the inputs."""
    return "kernel", (-1, 1)


def _of_separable(layer: Any) -> tuple[str, tuple[int, ...]]:
    return "pointwise_kernel", (-1,)


_ANY = LayerKind()
_RENORMALIZATION = Normalization(normalization.renormalize, scale_and_shift=normalization.scale_and_shift)


@functools.cache
def _table() -> dict[type, LayerKind]:
    """The kinds of Keras' own layers and operations."""
    layers = keras.layers
    weighted = LayerKind(affine=True, function_of_tensors=True)
    free = LayerKind(affine=True, parameter_free=True, function_of_tensors=True)
    on_images = dataclasses.replace(weighted, any_layout=True)
    depthwise: dict[str, Any] = {
        "multiply_adds": _convolution,
        "fan_out": _convolution_fan_out,
        "output_factors": _of_depthwise,
    }
    convolution: dict[str, Any] = {**depthwise, "output_factors": _of_last_axis}
    transposed: dict[str, Any] = {"multiply_adds": _transposed, "output_factors": _of_transposed}
    separable: dict[str, Any] = {"multiply_adds": _separable, "output_factors": _of_separable}
    by_batch = Normalization(
        normalization.normalize, normalization.normalize_rate, scale_and_shift=normalization.scale_and_shift
    )
    kinds = {
        layers.BatchNormalization: LayerKind(affine=True, normalization=by_batch),
        layers.Dense: dataclasses.replace(weighted, multiply_adds=_dense, output_factors=_of_last_axis),
        layers.EinsumDense: dataclasses.replace(weighted, multiply_adds=_einsum),
        layers.Conv1D: dataclasses.replace(weighted, **convolution),
        layers.Conv2D: dataclasses.replace(on_images, **convolution),
        layers.Conv3D: dataclasses.replace(on_images, **convolution),
        layers.DepthwiseConv1D: dataclasses.replace(weighted, **depthwise),
        layers.DepthwiseConv2D: dataclasses.replace(on_images, **depthwise),
        layers.Conv1DTranspose: dataclasses.replace(weighted, **transposed),
        layers.Conv2DTranspose: dataclasses.replace(weighted, **transposed),
        layers.Conv3DTranspose: dataclasses.replace(weighted, **transposed),
        layers.SeparableConv1D: dataclasses.replace(weighted, **separable),
        layers.SeparableConv2D: dataclasses.replace(on_images, **separable),
        layers.MaxPooling2D: LayerKind(function_of_tensors=True, any_layout=True),
        layers.MaxPooling3D: LayerKind(function_of_tensors=True, any_layout=True),
        layers.AveragePooling2D: dataclasses.replace(free, any_layout=True),
        layers.AveragePooling3D: dataclasses.replace(free, any_layout=True),
    }
    for name in ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"):
        kinds[getattr(layers, name)] = LayerKind(masks=True, moves=True)
    kinds[layers.GaussianDropout] = LayerKind(masks=True)
    for name in (
        *("AveragePooling1D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"),
        *("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Cropping1D", "Cropping2D", "Cropping3D"),
        *("UpSampling1D", "UpSampling2D", "UpSampling3D", "Add", "Subtract", "Average", "Concatenate"),
    ):
        kinds[getattr(layers, name)] = free
    for name in ("Flatten", "Identity", "Permute", "RepeatVector", "Rescaling", "Reshape"):
        kinds[getattr(layers, name)] = dataclasses.replace(free, moves=True)
    for name in ("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Activation"):
        kinds[getattr(layers, name)] = LayerKind(activation=_snake_case(name), moves=True)
    return kinds


_SUMS = {"Add", "Subtract", "Negative"}
_MOVING = {
    *("Add", "BroadcastTo", "Cast", "Divide", "ExpandDims", "GetItem", "Moveaxis", "Multiply", "Negative", "Repeat", "Reshape"),
    *("Squeeze", "Subtract", "Tile", "Transpose", "TrueDivide"),
}
_ACTIVATIONS = {
    *("Celu", "Elu", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "LogSigmoid", "LogSoftmax"),
    *("ReLU", "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink", "Softmax", "Softplus", "Softsign", "SparsePlus"),
    *("SparseSigmoid", "Sparsemax", "Squareplus", "Tanh", "TanhShrink", "Threshold"),
}


def _kind_of_node(operation_class: type) -> LayerKind | None:
    """The kind of a graph node of a function of `keras.ops` or `keras.activations`; the class of the node is private."""
    name = operation_class.__name__
    if not operation_class.__module__.startswith("keras.") or issubclass(operation_class, keras.layers.Layer):
        return None
    if name in _ACTIVATIONS:
        return LayerKind(activation=_snake_case(name), moves=True)
    # `x + y` is equivalent to layers.Add().
    return LayerKind(affine=name in _SUMS, parameter_free=name in _SUMS, moves=True) if name in _MOVING else None


def _snake_case(name: str) -> str:
    return {"ReLU": "relu", "PReLU": "prelu", "ELU": "elu", "LeakyReLU": "leaky_relu"}.get(name) or re.sub(
        r"(?<!^)(?=[A-Z])", "_", name
    ).lower()

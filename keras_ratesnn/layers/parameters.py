"""The parameters of neurons: one number for all of them, or values for each channel or
neuron, fixed or learned.

A number that is not learned stays a Python float, and is part of compiled code.
Everything else becomes a weight, with the rank of the membrane, to which it broadcasts:
the values themselves, or if they are learned what `Raw` makes of them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks, configs, time_axis
from keras_ratesnn._core.annotations import Config, Shape, Tensor


class Raw(NamedTuple):
    """How a learned parameter is stored, so that any value of its weight gives one in
    its range.

    Args:
        name: String, the name of the weight.
        stored: Function of an array of values, which returns those of the weight.
        values: Its inverse, a function of the weight.
        above: Number, the values are above it.
        below: Number, the values are below it; `None` if there is no such limit.
    """

    name: str
    stored: Callable[[Any], Any]
    values: Callable[[Any], Any]
    above: float
    below: float | None


LOGIT = Raw("{}_logit", lambda value: np.log(value / (1.0 - value)), ops.sigmoid, 0, 1)
LOG = Raw("log_{}", np.log, ops.exp, 0, None)


class WeightsInFloat32(keras.layers.Layer):
    """Base class of layers whose weights are in float32 in half precision, like the
    states of neurons."""

    def add_weight(
        self,
        *args: Any,
        dtype: str | None = None,
        autocast: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As in any Keras layer, but in half precision the weights are kept and read in
        float32."""
        if dtype is None:
            dtype = time_axis.accumulation_dtype(self.variable_dtype)
        return super().add_weight(*args, dtype=dtype, autocast=autocast, **kwargs)


class GivenArray(keras.initializers.Initializer):
    """Values that were given as an array.

    Args:
        values: The array, in float64.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


class Parameter:
    """A parameter of a layer, as an attribute of its class; the class also gets a
    method `set_NAME(value)`.

    It is given as a number, an array or an initializer. As an attribute of a layer it
    is the present value: a float, or an array. Before the layer is built, the value of
    a parameter that was given as an initializer is that initializer.

    The layer is one of `WeightsInFloat32`. It has an attribute `axis`: an array of one
    axis, and the values of an initializer, lie along that axis of the input. If it is
    `None`, an initializer draws one value for each neuron. Other arrays broadcast to a
    sample.

    Args:
        raw: `Raw`, how it is stored if the attribute `learn_NAME` of the layer is true.
            Defaults to `None`: it is not learned.
        per_channel_if: String, the name of an attribute which is true if a number is
            the value of each channel. Defaults to `None`.
        only_number: Boolean, whether arrays and initializers are refused. Defaults to
            `False`.
        advice: String for error messages, as in `checks.real`.
        **limits: As in `checks.real`.
    """

    def __init__(
        self,
        raw: Raw | None = None,
        *,
        per_channel_if: str | None = None,
        only_number: bool = False,
        advice: str = "",
        **limits: float,
    ) -> None:
        self._raw: Any = raw
        self._per_channel_if = per_channel_if
        self._only_number = only_number
        self._advice = advice
        self._limits = limits

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self._given = f"_{name}"
        self._values = f"_{name}_values"
        self._learns = f"learn_{name}"
        # Not a function or a property, which would count as a computation that a
        # subclass overrides.
        setattr(owner, f"set_{name}", functools.partialmethod(_set, self))

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        given = getattr(layer, self._given)
        if self._weight(layer) is None:
            return given.values if isinstance(given, GivenArray) else given
        values = np.array(ops.convert_to_numpy(self.tensor(layer)))
        if isinstance(given, GivenArray):
            return values.reshape(given.values.shape)
        if not values.ndim:
            return float(values)
        return values[0] if layer.axis is None else values.reshape(-1)

    def __set__(self, layer: Any, value: Any) -> None:
        setattr(layer, self._given, self.checked(layer, value))

    def checked(self, layer: Any, value: Any) -> Any:
        """The value of an argument: a float, a `GivenArray` or another initializer;
        raises an error if it is none of these."""
        if isinstance(value, dict) and not self._only_number:
            value = keras.saving.deserialize_keras_object(value)
        if self._only_number or np.isscalar(value) or value is None:
            return checks.real(
                self.name, value, advice=self._advice, **self._limits_of(layer)
            )
        if isinstance(value, keras.initializers.Initializer):
            return value
        if not checks.holds_numbers(value):
            wanted = "a real number, an array of real numbers or a Keras initializer"
            raise checks.wrong_type(self.name, wanted, value, self._advice)
        if hasattr(value, "dtype"):
            value = ops.convert_to_numpy(value)
        values = np.array(value, "float64")
        if not values.size:
            raise ValueError(
                f"`{self.name}` must have values. Received: an array of shape "
                f"{values.shape}."
            )
        for extreme in (values.min(), values.max()):
            checks.real(
                self.name, float(extreme), advice=self._advice, **self._limits_of(layer)
            )
        return GivenArray(values) if values.ndim else float(values)

    def _limits_of(self, layer):
        if self._is_learned(layer):
            return {"above": self._raw.above, "below": self._raw.below}
        return self._limits

    def _is_learned(self, layer):
        return self._raw is not None and bool(getattr(layer, self._learns))

    def _weight(self, layer):
        """The weight of a layer that has one and is built, or `None`."""
        if self._is_learned(layer):
            return getattr(layer, self._raw.name.format(self.name), None)
        if isinstance(getattr(layer, self._given), float):
            return None
        return getattr(layer, self._values, None)

    def tensor(self, layer: Any) -> float | Tensor:
        """The value as a step uses it: a float, or a tensor that broadcasts to the
        membrane."""
        # First what takes least time, of a number: this runs in every step.
        given = vars(layer)[self._given]
        learned = self._raw is not None and getattr(layer, self._learns)
        if type(given) is float and not learned:
            return given
        if learned:
            return self._raw.values(self._weight(layer))
        return ops.convert_to_tensor(getattr(layer, self._values))

    def config(self, layer: Any) -> Any:
        """The argument that makes an equal layer."""
        given = getattr(layer, self._given)
        if isinstance(given, GivenArray):
            return given.values.tolist()
        if isinstance(given, float):
            return given
        return keras.saving.serialize_keras_object(given)

    def build(self, layer: Any, input_shape: Shape) -> list[int]:
        """Adds the weight of a layer that needs one, and returns the axes of the input
        along which it has values."""
        given, learned = getattr(layer, self._given), self._is_learned(layer)
        if isinstance(given, float) and not learned:
            return []
        axes, shape = self._axes_and_shape(layer, given, input_shape)

        def initial(shape, dtype=None):
            drawn = given
            if not isinstance(given, (float, GivenArray)):
                drawn = self.checked(layer, given(shape, dtype="float32"))
            values = _values_of(drawn)
            values = values.reshape(shape) if values.ndim else values
            raw = self._raw.stored(values) if learned else values
            return ops.convert_to_tensor(np.broadcast_to(raw, shape), dtype=dtype)

        name = self._raw.name.format(self.name) if learned else self.name
        weight = layer.add_weight(
            shape=shape, initializer=initial, trainable=learned, name=name
        )
        setattr(layer, name if learned else self._values, weight)
        return axes

    def _axes_and_shape(self, layer, given, input_shape):
        rank, axis = len(input_shape), layer.axis
        per_channel = self._per_channel_if and getattr(layer, self._per_channel_if)
        if isinstance(given, float) and not per_channel:
            return [], ()
        if isinstance(given, GivenArray) and (given.values.ndim > 1 or axis is None):
            sample_shape = given.values.shape
            shape = (*[1] * (rank - len(sample_shape)), *sample_shape)
            expected = (1, *input_shape[1:])
            if len(sample_shape) >= rank or any(
                size not in (1, wanted)
                for size, wanted in zip(shape, expected, strict=True)
            ):
                raise ValueError(
                    f"`{self.name}` must be an array that broadcasts to a sample of "
                    f"the input, of shape {tuple(input_shape)[1:]}. Received: an array "
                    f"of shape {sample_shape} for layer {layer.name!r}."
                )
            return [index for index, size in enumerate(shape) if size > 1], shape
        axes = list(range(1, rank)) if axis is None else [axis]
        if any(
            not -rank <= index < rank
            or index in (0, -rank)
            or input_shape[index] is None
            for index in axes
        ):
            raise ValueError(
                f"`axis` must be an input axis of known size. Received: axis={axis} "
                f"for inputs of shape {tuple(input_shape)}."
            )
        sizes = [1] * rank
        for index in axes:
            sizes[index] = input_shape[index]
        if isinstance(given, GivenArray) and len(given.values) not in (1, sizes[axis]):
            raise ValueError(
                f"`{self.name}` must have a value for each of the {sizes[axis]} "
                f"channels, on axis {axis} of an input of shape {tuple(input_shape)}. "
                f"Received: {len(given.values)} values for layer {layer.name!r}. Pass "
                "the channel axis as `axis`, or an array that has the rank of a sample."
            )
        if isinstance(given, GivenArray) and len(given.values) == 1:
            return [], (1,) * rank
        return axes, tuple(sizes)

    def assign(self, layer: Any, value: Any) -> None:
        """Sets the value: that of the weight, or before the layer is built the
        argument."""
        if not layer.built:
            setattr(layer, self.name, value)
            return
        weight, checked = self._weight(layer), self.checked(layer, value)
        if weight is None:
            raise fixed(self.name, value, layer)
        if not isinstance(checked, (float, GivenArray)):
            raise checks.wrong_type(
                self.name, "a real number or an array of real numbers", value
            )
        values = _values_of(checked)
        if values.size == np.prod(weight.shape):
            values = values.reshape(weight.shape)
        try:
            values = np.broadcast_to(values, weight.shape)
        except ValueError:
            raise ValueError(
                f"`{self.name}` must be a number, or an array like the present value, "
                f"of shape {np.shape(getattr(layer, self.name))}. Received: an array "
                f"of shape {values.shape} for layer {layer.name!r}."
            ) from None
        if self._is_learned(layer):
            values = self._raw.stored(values)
        weight.assign(values)


def _values_of(given):
    return np.asarray(given if isinstance(given, float) else given.values)


def _set(layer, parameter, value):
    """Sets a parameter that is learned, or was given as an array or initializer, to a
    number or an array like its value."""
    parameter.assign(layer, value)


def parameters_of(kind: type) -> dict[str, Parameter]:
    """The parameters of a class of layers, by their names, in the order in which they
    are declared: those of bases first."""
    names = dict.fromkeys(
        name
        for base in reversed(kind.__mro__)
        for name, value in vars(base).items()
        if isinstance(value, Parameter)
    )
    attributes = {name: getattr(kind, name) for name in names}
    # A subclass may have replaced one.
    return {
        name: attribute
        for name, attribute in attributes.items()
        if isinstance(attribute, Parameter)
    }


def build(layer: Any, input_shape: Shape) -> None:
    """Adds the weights of the parameters of a layer that need one, and refuses inputs
    of other sizes from then on."""
    axes: list[int] = []
    for parameter in parameters_of(type(layer)).values():
        axes += parameter.build(layer, input_shape)
    if axes:
        sizes = {axis: input_shape[axis] for axis in axes}
        layer.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes=sizes)


def raised(at_rest: Tensor, value: float | Tensor) -> Tensor:
    """The membrane that starts at a value, given zeros; the same tensor for 0."""
    return at_rest if isinstance(value, float) and value == 0.0 else at_rest + value


def check_below(
    layer: Any,
    name: str,
    limit: str,
    advice: str,
    factor: float = 1.0,
    least: str = "below",
) -> None:
    """Raises ValueError if a parameter is not below another one, wherever both are
    given as numbers or arrays.

    Args:
        layer: The layer, before it is built.
        name: String, the name of the parameter.
        limit: String, the name of the parameter that it must be below.
        advice: As in `checks.real`.
        factor: Float that multiplies the limit. Defaults to `1.0`.
        least: `"below"` or `"at_most"`. Defaults to `"below"`.
    """
    value, limits = getattr(layer, name), getattr(layer, limit)
    initializer = keras.initializers.Initializer
    if isinstance(value, initializer) or isinstance(limits, initializer):
        return
    try:
        values, limits = np.broadcast_arrays(value, limits * factor)
    except ValueError:
        # They lie along different axes: any two may meet.
        values, limits = np.max(value), np.min(limits) * factor
    worst = np.argmax(values - limits)
    checks.real(
        name,
        np.ravel(values)[worst].item(),
        advice=advice,
        **{least: np.ravel(limits)[worst].item()},
    )


def arguments(layer: Any, names: Sequence[str]) -> Config:
    """Arguments of a layer that are its attributes, for its config."""
    parameters, config = parameters_of(type(layer)), {}
    for name in names:
        if name in parameters:
            config[name] = parameters[name].config(layer)
        else:
            config[name] = configs.entry(getattr(layer, name))
    return config


def checked_axis(value: Any) -> int | None:
    """The argument `axis` of a layer with parameters."""
    if value is None:
        return None
    advice = "None gives each neuron values of its own."
    return checks.integer("axis", value, advice=advice)


def fixed(name: str, value: Any, owner: Any) -> AttributeError:
    """The error for a new value of an argument."""
    return AttributeError(
        f"`{name}` of {type(owner).__name__} {owner.name!r} is fixed when it is "
        f"created: compiled code would not see a change. Received: {name}={value!r}. "
        "Create a new layer with this value, or a new model from an edited "
        "get_config(), and copy the weights with set_weights. What is learned, as with "
        "learn_threshold=True, or was given as an array or an initializer can be set, "
        "for example by `set_threshold`."
    )

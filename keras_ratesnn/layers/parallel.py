"""Parallel spiking neurons (PSN): the membrane is a weighted sum of the inputs of several steps, without a reset."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import backend, checks, registry, time_axis
from keras_ratesnn._core.annotations import Config, Shape, Structure, Tensor
from keras_ratesnn.layer_kinds import NEURON, LayerKind
from keras_ratesnn.layers._cell_guards import from_cell
from keras_ratesnn.layers.neuron_cell import NeuronCell
from keras_ratesnn.layers.neurons import NeuronWithArguments, cell_from
from keras_ratesnn.surrogates import Surrogate

_TIMESTEPS_ADVICE = "The neurons have a weight for each pair of time steps."
_ORDER_ADVICE = "It is the number of steps, the present one included, whose inputs reach the membrane."
_BIAS = "bias"


class ParallelCell(NeuronCell):
    """Base class of parallel cells: neurons spike where membrane + bias >= 0, and the bias starts at −threshold."""

    in_parallel = True
    moves_in_padding = True

    def effective_threshold(self) -> float | Tensor:
        # The bias, which is part of the membrane, is the threshold.
        return 0.0


@registry.register
class PSNCell(ParallelCell):
    """The parallel spiking neurons of `PSN`: all time steps at once.

    Args: as in `PSN`.
    """

    fixed_arguments = ("timesteps", *NeuronCell.fixed_arguments)

    def __init__(
        self, timesteps: int, threshold: float = 1.0, surrogate: str | Surrogate | Config = "sigmoid", **kwargs: Any
    ) -> None:
        super().__init__(threshold, surrogate, **kwargs)
        self.timesteps = checks.positive_integer("timesteps", timesteps, advice=_TIMESTEPS_ADVICE)

    @property
    def sees_all_steps(self) -> bool:
        return True

    def build(self, input_shape: Shape) -> None:
        size = 1.0 / math.sqrt(self.timesteps)
        self.weight = self.add_weight(
            shape=(self.timesteps, self.timesteps), initializer=keras.initializers.RandomUniform(-size, size), name="weight"
        )
        self.bias = self.add_weight(
            shape=(self.timesteps, 1), initializer=keras.initializers.Constant(-self.threshold), name="bias"
        )

    def effective_weight(self) -> Tensor:
        """The weights W, `(T, T)`: row t has those of the inputs of all steps for the membrane of step t."""
        return self.weight

    def over_time(self, inputs: Tensor) -> Tensor:
        _, timesteps, *shape = inputs.shape
        dtype = time_axis.accumulation_dtype(inputs.dtype)
        weight, bias = (ops.cast(part, dtype)[:timesteps] for part in (self.effective_weight(), self.bias))
        flat = ops.reshape(time_axis.cast(inputs, dtype), (-1, timesteps, math.prod(shape)))
        return ops.reshape(time_axis.cast(ops.matmul(weight[:, :timesteps], flat), dtype) + bias, (-1, timesteps, *shape))

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Tensor, Structure]:
        raise ValueError(
            f"The neurons of {type(self).__name__} {self.name!r} need the inputs of all time steps at once. Received: a single "
            'step. Use step_mode="multi", or SlidingPSN or MaskedPSN(..., mask=1.0), which can run step by step.'
        )

    def call(self, inputs: Tensor, state: Structure = None) -> tuple[Tensor, Structure]:
        """The spikes of a sequence of one step."""
        spikes = self.fire(self.over_time(inputs[:, None]))[:, 0]
        return ops.cast(spikes, self.compute_dtype), ()


@registry.register
class MaskedPSNCell(PSNCell):
    """The parallel spiking neurons of `MaskedPSN`. With `mask` 1 the state is a queue of inputs, and a number of steps.

    Args: as in `MaskedPSN`.
    """

    fixed_arguments = ("timesteps", "order", *NeuronCell.fixed_arguments)

    def __init__(
        self,
        timesteps: int,
        order: int,
        mask: float = 1.0,
        threshold: float = 1.0,
        surrogate: str | Surrogate | Config = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(timesteps, threshold, surrogate, **kwargs)
        self.order = checks.positive_integer("order", order, advice=_ORDER_ADVICE)
        if self.order > self.timesteps:
            raise ValueError(
                f"`order` must be at most timesteps. Received: order={order} for timesteps={timesteps}. {_ORDER_ADVICE}"
            )
        self._start = checks.real("mask", mask, at_least=0, at_most=1)
        self._mask = None

    @property
    def mask(self) -> float:
        """λ_m, how far weights of later steps and of steps long ago are masked: 0 not at all, 1 completely. It can be set."""
        return self._start if self._mask is None else float(ops.convert_to_numpy(self._mask))

    @mask.setter
    def mask(self, value: float) -> None:
        value = checks.real("mask", value, at_least=0, at_most=1)
        if self._mask is None:
            self._start = value
        else:
            self._mask.assign(value)

    @property
    def sees_all_steps(self) -> bool:
        return self.mask < 1.0

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self._mask = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(self._start), trainable=False, name="mask"
        )

    def effective_weight(self) -> Tensor:
        outside = ops.convert_to_tensor((~_band(self.order, self.timesteps)).astype("float32"))
        return self.weight * (1.0 - ops.cast(outside, self.weight.dtype) * self._mask)

    def reaching_inputs(self, timesteps: int) -> np.ndarray:
        return super().reaching_inputs(timesteps) if self.sees_all_steps else _band(self.order, timesteps)

    def initial_state(self, inputs: Tensor) -> Structure:
        before = NeuronCell.initial_state(self, inputs)
        return {"inputs": [before for _ in range(self.order - 1)], "step": ops.zeros((), "int32")}

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Tensor, Structure]:
        inputs = ops.cast(inputs, time_axis.accumulation_dtype(inputs.dtype))
        steps, t = ops.arange(self.timesteps), state["step"]

        def chosen(tensor, step):
            # No indexing, which PyTorch cannot export to ONNX.
            return ops.sum(ops.where(steps == step, ops.cast(tensor, inputs.dtype), 0.0), axis=-1)

        row = chosen(ops.transpose(self.weight), t)
        queue = [inputs, *state["inputs"]]
        membrane = sum(chosen(row, t - lag) * x for lag, x in enumerate(queue)) + chosen(ops.reshape(self.bias, (-1,)), t)
        return membrane, self.fire(membrane), {"inputs": queue[:-1], "step": t + 1}

    def call(self, inputs: Tensor, state: Structure = None) -> tuple[Tensor, Structure]:
        return NeuronCell.call(self, inputs, state)

    def get_config(self) -> Config:
        return {**super().get_config(), "mask": self.mask}


@registry.register
class SlidingPSNCell(ParallelCell):
    """The parallel spiking neurons of `SlidingPSN`. The state is a queue of the last `order` − 1 inputs, the latest first.

    Args: as in `SlidingPSN`.
    """

    fixed_arguments = ("order", *NeuronCell.fixed_arguments)
    derivative_needs_inputs = True

    def __init__(
        self, order: int, threshold: float = 1.0, surrogate: str | Surrogate | Config = "sigmoid", **kwargs: Any
    ) -> None:
        super().__init__(threshold, surrogate, **kwargs)
        self.order = checks.positive_integer("order", order, advice=_ORDER_ADVICE)

    def build(self, input_shape: Shape) -> None:
        start = [2.0 ** (index - self.order + 1) for index in range(self.order)]
        self.weight = self.add_weight(shape=(self.order,), initializer=keras.initializers.Constant(start), name="weight")
        self.bias = self.add_weight(shape=(), initializer=keras.initializers.Constant(-self.threshold), name="bias")

    def initial_state(self, inputs: Tensor) -> Structure:
        before = super().initial_state(inputs)
        return [before for _ in range(self.order - 1)]

    def reaching_inputs(self, timesteps: int) -> np.ndarray:
        return _band(self.order, timesteps)

    def _latest_first(self, dtype):
        return ops.unstack(ops.cast(self.weight, dtype), self.order)[::-1]

    def over_time(self, inputs: Tensor) -> Tensor:
        inputs = time_axis.cast(inputs, time_axis.accumulation_dtype(inputs.dtype))
        return self._weighted(self._by_lag(inputs))

    def _weighted(self, latest_first):
        """The membrane, given the inputs of the present step, of the one before, and so on."""
        dtype = latest_first[0].dtype
        membrane = ops.cast(self.bias, dtype)
        for weight, x in zip(self._latest_first(dtype), latest_first, strict=True):
            membrane = backend.multiply_add(x, weight, membrane)
        return membrane

    def _by_lag(self, inputs):
        """The inputs of all steps, those one step before, and so on, zeros before the first: a list."""
        timesteps, last = inputs.shape[1], self.order - 1
        padded = ops.pad(inputs, [[0, 0], [last, 0], *([0, 0] for _ in inputs.shape[2:])])
        return [padded[:, last - lag : last - lag + timesteps] for lag in range(self.order)]

    def over_time_derivatives(self, inputs: Tensor) -> list[Any]:
        inputs = time_axis.cast(inputs, time_axis.accumulation_dtype(inputs.dtype))
        return [*(self._by_lag(inputs) if self.weight.trainable else []), *([1.0] if self.bias.trainable else [])]

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Tensor, Structure]:
        inputs = time_axis.cast(inputs, time_axis.accumulation_dtype(inputs.dtype))
        queue = [inputs, *state]
        membrane = self._weighted(queue)
        return membrane, self.fire(membrane), queue[:-1]

    def weight_parts(self) -> list[tuple[Any, Tensor]]:
        weights: list[tuple[Any, Tensor]] = [*enumerate(self._latest_first(self.weight.dtype))]
        return [*(weights if self.weight.trainable else []), *([(_BIAS, self.bias)] if self.bias.trainable else [])]

    def step_derivative(  # type: ignore[override]  # It asks for the inputs.
        self, state: Structure, membrane: Tensor, spikes: Tensor, surrogate_derivative: Tensor, inputs: Tensor
    ) -> Callable[..., tuple[Any, Any]]:
        queue = [time_axis.cast(inputs, membrane.dtype), *state]
        weights = self._latest_first(membrane.dtype)

        def along(input_tangent, state_tangent, part):
            tangents = [input_tangent, *state_tangent]
            moving = [(weight, x) for weight, x in zip(weights, tangents, strict=True) if not _is_zero(x)]
            of_distance = sum(weight * x for weight, x in moving) if moving else 0.0
            if part is not None:
                of_distance = of_distance + (1.0 if part == _BIAS else queue[part])
            return of_distance, tangents[:-1]

        return along


def _band(order, timesteps):
    """Whether step j is one of the last `order` steps at step t, `(T, T)`."""
    lag = np.subtract.outer(np.arange(timesteps), np.arange(timesteps))
    return (lag >= 0) & (lag < order)


def _is_zero(tangent):
    return isinstance(tangent, float) and tangent == 0.0


@registry.register
class PSN(NeuronWithArguments):
    """Parallel spiking neurons: the membrane of each step is a learned sum of the inputs of all steps, later ones included.

        v_t = Σ_j W_tj I_j + b_t
        s_t = 1 where v_t >= 0, else 0

    There is no state and no reset. The weights W, `(T, T)`, and the biases b, `(T, 1)`, are shared by all neurons of the layer.
    The layer runs in multi-step mode, for its number of time steps alone; not in a stream.

    Under `"rate"` the own weights need the input and the surrogate derivative of every step in the backward pass: 2T numbers a
    neuron, so the memory of such a layer grows with T. With `trainable=False` it does not.

    Example:

    >>> inputs = keras.Input((4,))
    >>> outputs = keras.layers.Dense(2)(PSN(timesteps=3)(keras.layers.Dense(8)(inputs)))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, outputs), timesteps=3)
    >>> model(np.ones((1, 3, 4))).shape[1]
    2

    Args:
        timesteps: Integer T >= 1, the number of time steps that the network runs for.
        threshold: Float > 0; the biases start at −threshold. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`. Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., "Parallel Spiking Neurons with High Efficiency and Ability to Learn Long-term Dependencies", NeurIPS
    2023.
    """

    layer_kind = LayerKind(role=NEURON, most_timesteps=lambda layer: layer.timesteps, exact_timesteps=True)

    def __init__(
        self, timesteps: int, threshold: float = 1.0, surrogate: str | Surrogate | Config = "sigmoid", **kwargs: Any
    ) -> None:
        super().__init__(cell_from(PSNCell, locals()), **kwargs)

    timesteps = from_cell("timesteps")
    threshold = from_cell("threshold")
    surrogate = from_cell("surrogate")


@registry.register
class MaskedPSN(NeuronWithArguments):
    """Parallel spiking neurons whose weights for later steps, and for steps longer ago than `order`, are masked.

        v_t = Σ_j W_tj (λ M_tj + 1 − λ) I_j + b_t               M_tj = 1 where t − order < j <= t, else 0
        s_t = 1 where v_t >= 0, else 0

    λ is `mask`. Training may begin with 0, as `PSN`, and end with 1, where a step depends on the last `order` inputs:
    `callbacks.RaiseMask` raises it. While it is below 1 the layer needs all steps at once, as `PSN` does; with 1 it also
    runs in single-step mode and in a stream. The network may run for fewer steps than `timesteps`.

    Memory under `"rate"` is that of `PSN`.

    Example:

    >>> inputs = keras.Input((4,))
    >>> neurons = MaskedPSN(timesteps=3, order=2, mask=0.0)
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, neurons(inputs)), timesteps=3)
    >>> neurons.mask = 1.0
    >>> model.step_mode = "single"

    Args:
        timesteps: Integer T >= 1, the largest number of time steps.
        order: Integer from 1 to T: the number of inputs, the present one included, that reach a membrane.
        mask: Float from 0 to 1, λ. It can be set at any time. Defaults to `1.0`.
        threshold: Float > 0; the biases start at −threshold. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`. Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., NeurIPS 2023. SpikingJelly's `MaskedPSN` begins with λ = 0.
    """

    layer_kind = LayerKind(role=NEURON, most_timesteps=lambda layer: layer.timesteps)

    def __init__(
        self,
        timesteps: int,
        order: int,
        mask: float = 1.0,
        threshold: float = 1.0,
        surrogate: str | Surrogate | Config = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(cell_from(MaskedPSNCell, locals(), "mask"), **kwargs)

    timesteps = from_cell("timesteps")
    order = from_cell("order")
    threshold = from_cell("threshold")
    surrogate = from_cell("surrogate")

    @property
    def mask(self) -> float:
        """λ. It can be set."""
        return self.cell.mask

    @mask.setter
    def mask(self, value: float) -> None:
        self.cell.mask = value


@registry.register
class SlidingPSN(NeuronWithArguments):
    """Parallel spiking neurons whose membrane is a learned sum of the last `order` inputs, with the same weights at every step.

        v_t = Σ_{i<order} w_i I_{t−order+1+i} + b                I_t = 0 before the first step
        s_t = 1 where v_t >= 0, else 0

    The last weight is that of the present input. The network may run for any number of steps, in both step modes and in a
    stream. All neurons of the layer share the weights. Under `"rate"` the own weights need `order` + 1 numbers a neuron.

    Example:

    >>> neurons = SlidingPSN(order=2)
    >>> inputs = keras.Input((1,))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, neurons(inputs)), timesteps=3, return_sequences=True)
    >>> print(ops.convert_to_numpy(model(np.array([[[0.8], [0.8], [0.0]]], "float32")))[0, :, 0])
    [0. 1. 0.]

    Args:
        order: Integer >= 1, the number of inputs, the present one included, that reach a membrane.
        threshold: Float > 0; the bias starts at −threshold. Defaults to `1.0`.
        surrogate: Name, `Surrogate` or its config, see `keras_ratesnn.surrogates`. Defaults to `"sigmoid"`.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., NeurIPS 2023.
    """

    def __init__(
        self, order: int, threshold: float = 1.0, surrogate: str | Surrogate | Config = "sigmoid", **kwargs: Any
    ) -> None:
        super().__init__(cell_from(SlidingPSNCell, locals()), **kwargs)

    order = from_cell("order")
    threshold = from_cell("threshold")
    surrogate = from_cell("surrogate")

"""Cells of parallel spiking neurons (PSN): the membrane is a weighted sum of the inputs
of several steps, without a reset."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import block_filter, checks, registry, time_axis
from keras_ratesnn._core.annotations import Config, Shape, Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.layers.neuron_cell import NeuronCell
from keras_ratesnn.surrogates import Surrogate

_TIMESTEPS_ADVICE = "The neurons have a weight for each pair of time steps."
_ORDER_ADVICE = (
    "It is the number of steps, the present one included, whose inputs reach the "
    "membrane."
)
_BIAS = "bias"
_LONGEST_FUSED_QUEUE = 8
"""A longer one is not moved step by step if all steps can be computed at once: with the
derivatives of its weights that takes a time that grows with the square of its
length."""


class ParallelCell(NeuronCell):
    """Base class of parallel cells: neurons spike where membrane + bias >= 0, and the
    bias starts at −threshold."""

    in_parallel = True

    def effective_threshold(self) -> float | Tensor:
        # The bias, which is part of the membrane, is the threshold.
        return 0.0


@registry.register
class PSNCell(ParallelCell):
    """The parallel spiking neurons of `PSN`: all time steps at once.

    Args: as in `PSN`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.
    """

    neurons_share_weights = True
    levels = 1
    fixed_arguments = ("timesteps", *NeuronCell.fixed_arguments)
    exact_timesteps = True

    def __init__(
        self,
        timesteps: int,
        threshold: float = 1.0,
        *,
        surrogate: str | Surrogate | Config = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold, surrogate=surrogate, **kwargs)
        self.timesteps = checks.positive_integer(
            "timesteps", timesteps, advice=_TIMESTEPS_ADVICE
        )

    @property
    def most_timesteps(self) -> int:
        return self.timesteps

    @property
    def sees_all_steps(self) -> bool:
        return True

    def build(self, input_shape: Shape) -> None:
        size = 1.0 / math.sqrt(self.timesteps)
        self.weight = self.add_weight(
            shape=(self.timesteps, self.timesteps),
            initializer=keras.initializers.RandomUniform(-size, size),
            name="weight",
        )
        self.bias = self.add_weight(
            shape=(self.timesteps, 1),
            initializer=keras.initializers.Constant(-self.threshold),
            name="bias",
        )

    def effective_weight(self) -> Tensor:
        """The weights W, `(T, T)`: row t has those of the inputs of all steps for the
        membrane of step t."""
        return self.weight

    def over_time(self, inputs: Tensor) -> Tensor:
        _, timesteps, *shape = inputs.shape
        dtype = time_axis.accumulation_dtype(inputs.dtype)
        weight = ops.cast(self.effective_weight(), dtype)[:timesteps, :timesteps]
        bias = ops.cast(self.bias, dtype)[:timesteps]
        flat = time_axis.cast(inputs, dtype)
        flat = ops.reshape(flat, (-1, timesteps, math.prod(shape)))
        membranes = time_axis.cast(ops.matmul(weight, flat), dtype) + bias
        return ops.reshape(membranes, (-1, timesteps, *shape))

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        raise ValueError(
            f"The neurons of {type(self).__name__} {self.name!r} need the inputs of "
            "all time steps at once. Received: a single step. Use "
            'step_mode="multi", or SlidingPSN or MaskedPSN(..., mask=1.0), which can '
            "run step by step."
        )

    def call(self, inputs: Tensor, state: Structure = None) -> tuple[Tensor, Structure]:
        """The spikes of a sequence of one step."""
        spikes = self.fire(self.over_time(inputs[:, None]))[:, 0]
        return ops.cast(spikes, self.compute_dtype), ()


@registry.register
class MaskedPSNCell(PSNCell):
    """The parallel spiking neurons of `MaskedPSN`. With `mask` 1 the state is a queue
    of inputs, and the number of steps so far.

    Args: as in `MaskedPSN`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.
    """

    neurons_share_weights = True
    levels = 1
    fixed_arguments = ("timesteps", "order", *NeuronCell.fixed_arguments)
    exact_timesteps = False

    def __init__(
        self,
        timesteps: int,
        order: int,
        threshold: float = 1.0,
        *,
        mask: float = 1.0,
        surrogate: str | Surrogate | Config = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(timesteps, threshold, surrogate=surrogate, **kwargs)
        self.order = checks.positive_integer("order", order, advice=_ORDER_ADVICE)
        if self.order > self.timesteps:
            raise ValueError(
                f"`order` must be at most timesteps. Received: order={order} for "
                f"timesteps={timesteps}. {_ORDER_ADVICE}"
            )
        self._start = checks.real("mask", mask, at_least=0, at_most=1)
        self._mask = None

    @property
    def mask(self) -> float:
        """λ, how far weights of later steps and of steps long ago are masked: 0 not at
        all, 1 completely. It can be set."""
        if self._mask is None:
            return self._start
        return float(ops.convert_to_numpy(self._mask))

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
            shape=(),
            initializer=keras.initializers.Constant(self._start),
            trainable=False,
            name="mask",
        )

    def effective_weight(self) -> Tensor:
        outside = ~_band(self.order, self.timesteps)
        outside = ops.convert_to_tensor(outside.astype("float32"))
        return self.weight * (1.0 - ops.cast(outside, self.weight.dtype) * self._mask)

    def reaching_inputs(self, timesteps: int) -> np.ndarray:
        if self.sees_all_steps:
            return super().reaching_inputs(timesteps)
        return _band(self.order, timesteps)

    def initial_state(self, inputs: Tensor) -> Structure:
        return {
            "inputs": _queue_at_rest(self, inputs),
            "step": ops.zeros((), "int32"),
        }

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        inputs = time_axis.widen(inputs)
        steps, t = ops.arange(self.timesteps, dtype="int32"), state["step"]

        def chosen(tensor, step):
            # No indexing, which PyTorch cannot export to ONNX.
            tensor = ops.cast(tensor, inputs.dtype)
            return ops.sum(ops.where(steps == step, tensor, 0.0), axis=-1)

        row = chosen(ops.transpose(self.weight), t)
        queue = [inputs, *state["inputs"]][: self.order]
        membrane = sum(chosen(row, t - lag) * x for lag, x in enumerate(queue))
        membrane = membrane + chosen(ops.reshape(self.bias, (-1,)), t)
        kept = _kept(queue, state["inputs"], membrane)
        return membrane, self.fire(membrane), {"inputs": kept, "step": t + 1}

    def call(self, inputs: Tensor, state: Structure = None) -> tuple[Tensor, Structure]:
        return NeuronCell.call(self, inputs, state)

    def get_config(self) -> Config:
        return {**super().get_config(), "mask": self.mask}


@registry.register
class SlidingPSNCell(ParallelCell):
    """The parallel spiking neurons of `SlidingPSN`. The state is a queue of the last
    `order` − 1 inputs, or with order 1 of one, the latest first.

    Args: as in `SlidingPSN`, but
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.
    """

    neurons_share_weights = True
    levels = 1
    fixed_arguments = ("order", *NeuronCell.fixed_arguments)
    derivative_needs_inputs = True
    derivative_weights = ("weight", "bias")

    def __init__(
        self,
        order: int,
        threshold: float = 1.0,
        *,
        surrogate: str | Surrogate | Config = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(threshold, surrogate=surrogate, **kwargs)
        self.order = checks.positive_integer("order", order, advice=_ORDER_ADVICE)

    @property
    def fuses(self) -> bool:  # type: ignore[override]
        return self.order <= _LONGEST_FUSED_QUEUE

    def build(self, input_shape: Shape) -> None:
        start = [2.0 ** (index - self.order + 1) for index in range(self.order)]
        self.weight = self.add_weight(
            shape=(self.order,),
            initializer=keras.initializers.Constant(start),
            name="weight",
        )
        self.bias = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(-self.threshold),
            name="bias",
        )

    def initial_state(self, inputs: Tensor) -> Structure:
        return _queue_at_rest(self, inputs)

    def reaching_inputs(self, timesteps: int) -> np.ndarray:
        return _band(self.order, timesteps)

    def _latest_first(self, dtype):
        return ops.unstack(ops.cast(self.weight, dtype), self.order)[::-1]

    def over_time(self, inputs: Tensor) -> Tensor:
        _, timesteps, *shape = inputs.shape
        inputs = time_axis.widen(inputs)
        flat = ops.reshape(inputs, (-1, timesteps, math.prod(shape)))
        kernel = ops.cast(self.weight, inputs.dtype)[:, None]
        membranes = block_filter.filter_in_time(flat, kernel)
        membranes = membranes + ops.cast(self.bias, inputs.dtype)
        return ops.reshape(membranes, (-1, timesteps, *shape))

    def over_time_derivatives(self, inputs: Tensor) -> list[Any]:
        derivatives: list[Any] = []
        if self.weight.trainable:
            # The inputs of all steps, those one step before, and so on.
            timesteps, last = inputs.shape[1], self.order - 1
            paddings = [[0, 0] for _ in inputs.shape]
            paddings[1] = [last, 0]
            padded = ops.pad(time_axis.widen(inputs), paddings)
            derivatives += [
                padded[:, start : start + timesteps] for start in range(last, -1, -1)
            ]
        if self.bias.trainable:
            derivatives.append(1.0)
        return derivatives

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        queue = [time_axis.widen(inputs), *state][: self.order]
        membrane = ops.cast(self.bias, queue[0].dtype)
        weights = self._latest_first(membrane.dtype)
        for weight, x in zip(weights, queue, strict=True):
            membrane = engine.multiply_add(x, weight, membrane)
        return membrane, self.fire(membrane), _kept(queue, state, membrane)

    def weight_parts(self) -> list[tuple[Any, Tensor]]:
        parts: list[tuple[Any, Tensor]] = []
        if self.weight.trainable:
            parts += enumerate(self._latest_first(self.weight.dtype))
        if self.bias.trainable:
            parts.append((_BIAS, self.bias))
        return parts

    def step_derivative(  # type: ignore[override]  # It asks for the inputs.
        self,
        state: Structure,
        membrane: Tensor,
        spikes: Tensor,
        surrogate_derivative: Tensor,
        inputs: Tensor,
    ) -> Callable[..., tuple[Any, Any]]:
        queue = [time_axis.cast(inputs, membrane.dtype), *state]
        weights = self._latest_first(membrane.dtype)

        def along(input_tangent, state_tangent, part):
            tangents = [input_tangent, *state_tangent][: self.order]
            distance_tangent: Any = 0.0
            for weight, tangent in zip(weights, tangents, strict=True):
                if not _is_zero(tangent):
                    distance_tangent = distance_tangent + weight * tangent
            if part is not None:
                distance_tangent = distance_tangent + (
                    1.0 if part == _BIAS else queue[part]
                )
            return distance_tangent, tangents[:-1] or state_tangent

        return along


def _band(order, timesteps):
    """Whether step j is one of the last `order` steps at step t, `(T, T)`."""
    lag = np.subtract.outer(np.arange(timesteps), np.arange(timesteps))
    return (lag >= 0) & (lag < order)


def _queue_at_rest(cell, inputs):
    """The inputs before the first step, the latest first: one at least."""
    before = NeuronCell.initial_state(cell, inputs)
    return [before for _ in range(max(cell.order - 1, 1))]


def _kept(queue, state, membrane):
    """The queue for the next step, NaN for ever where a membrane was NaN or infinite,
    as in neurons that keep a membrane."""
    # With order 1 no earlier input is needed, and the state is a mark alone.
    latest, *earlier = queue[:-1] or state
    # No `isfinite`, which PyTorch's compiled loops do not have.
    is_finite = ops.abs(membrane) < float("inf")
    return [ops.where(is_finite, latest, float("nan")), *earlier]


def _is_zero(tangent):
    return isinstance(tangent, float) and tangent == 0.0

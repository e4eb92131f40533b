"""The layers of an unrolled network beside those of the original: neurons that emit
substep by substep, sums over substeps, biases, and layers that mix the steps of the
original, or read them out.

A step of the original network is D time steps here, its substeps, which follow each
other: of the rows `(batch * T * D, ...)` of a signal those of one step are neighbours.
"""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, parts, registry, time_axis, tree
from keras_ratesnn._core.annotations import Config, Shape, Structure, Tensor
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.layer_kinds import READOUT, TIME_MIXING, LayerKind
from keras_ratesnn.layers import LeakyReadout, NeuronCell, TimeMixing
from keras_ratesnn.layers.parameters import Parameter


@registry.register
class SlotCell(NeuronCell):
    """Emits the spikes of one step of another cell in the D substeps of that step, at
    most one in a substep, without gaps:

        S[t, d] = 1 if d <= s_t else 0              d = 1 … D

    The input of the first substep is the input of the step; those of the others are not
    used. What `step` returns as the membrane is the number of spikes that are still to
    be emitted, including that of this substep.

    Args:
        cell: A `NeuronCell`, whose steps emit up to `slots` spikes.
        slots: Integer D.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.
    """

    fixed_arguments = ("cell", "slots")
    threshold = Parameter()

    def __init__(self, cell: NeuronCell | Config, slots: int, **kwargs: Any) -> None:
        inside: NeuronCell = parts.deserialized(cell)
        super().__init__(threshold=inside.threshold, **kwargs)
        # It has no gradient.
        del self.surrogate
        self.cell = inside
        self.slots = checks.positive_integer("slots", slots)
        self.fuses = inside.fuses
        self.exact_timesteps = inside.exact_timesteps

    def build(self, input_shape: Shape) -> None:
        parts.build(self.cell, input_shape)
        self.input_spec = self.cell.input_spec

    def independent_cell(self) -> NeuronCell:
        return self.cell.independent_cell()

    @property
    def most_timesteps(self) -> int | None:
        most = self.cell.most_timesteps
        return None if most is None else most * self.slots

    @property
    def feedback(self) -> keras.layers.Layer | None:
        return self.cell.feedback

    def initial_state(self, inputs: Tensor) -> Structure:
        left = super().initial_state(inputs)
        return {
            "cell": self.cell.initial_state(inputs),
            "left": left,
            "substep": ops.zeros((), "int32"),
        }

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        is_first = state["substep"] == 0
        _, spikes, after = self.cell.step(inputs, state["cell"])
        # Rounded, because normalised spikes are fractions.
        number = ops.round(
            time_axis.cast(spikes, state["left"].dtype) / self.cell.spike_size
        )
        left = ops.where(is_first, number, state["left"])
        emitted = ops.cast(left > 0.5, left.dtype)
        cell_state = tree.map_leaves(
            lambda new, old: ops.where(is_first, new, old), after, state["cell"]
        )
        return (
            left,
            emitted,
            {
                "cell": cell_state,
                "left": left - emitted,
                "substep": (state["substep"] + 1) % self.slots,
            },
        )

    def state_at_padding(self, state: Structure) -> Structure:
        return {**state, "cell": self.cell.state_at_padding(state["cell"])}

    def after_steps(self, state: Structure) -> None:
        self.cell.after_steps(state["cell"])


_MIXING = LayerKind(role=TIME_MIXING, substeps=lambda layer: layer.slots)
"""Inputs of `step` are all substeps of a step, `(batch, D, ...)`."""


class _Wrapper(ConfigOfAttributes, keras.layers.Layer):
    """Base class of layers that run another layer on steps instead of substeps.

    Args:
        layer: The other layer.
        slots: Integer D.
        **kwargs: `name`, `dtype` of a Keras layer.
    """

    in_config = "layer", "slots"

    def __init__(
        self, layer: keras.layers.Layer | Config, slots: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.layer: Any = parts.deserialized(layer)
        self.slots = checks.positive_integer("slots", slots)

    def build(self, input_shape: Shape) -> None:
        parts.build(self.layer, input_shape)


@registry.register
class SlotSum(ConfigOfAttributes, TimeMixing):
    """The sum over the D substeps of a step, at each of them.

    Args:
        slots: Integer D.
        **kwargs: `name`, `dtype` of a Keras layer.
    """

    layer_kind = _MIXING
    in_config = ("slots",)

    def __init__(self, slots: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slots = checks.positive_integer("slots", slots)

    def initial_state(self, inputs: Tensor) -> Structure:
        return ()

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Structure]:
        # In half precision a sum of rounded sums would differ more from the product
        # with the integer.
        sums = ops.sum(time_axis.widen(inputs), axis=1, keepdims=True)
        return ops.repeat(ops.cast(sums, inputs.dtype), self.slots, axis=1), state

    def over_time(self, inputs: Tensor) -> Tensor:
        _, timesteps, *shape = ops.shape(inputs)
        sums, _ = self.step(ops.reshape(inputs, (-1, self.slots, *shape)), ())
        return ops.reshape(sums, (-1, timesteps, *shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@registry.register
class SlotMixing(_Wrapper, TimeMixing):
    """Runs a `TimeMixing`, as in inference, on inputs that are the same in all substeps
    of a step.

    Args: as in `_Wrapper`.
    """

    layer_kind = _MIXING

    def initial_state(self, inputs: Tensor) -> Structure:
        return self._in_time.initial_state(inputs[:, 0])

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Structure]:
        outputs, state = self._in_time.step(inputs[:, 0], state)
        return ops.repeat(outputs[:, None], self.slots, axis=1), state

    def over_time(self, inputs: Tensor) -> Tensor:
        return ops.repeat(
            self._in_time.over_time(inputs[:, :: self.slots]), self.slots, axis=1
        )

    @property
    def _in_time(self):
        return self.layer.in_time(training=False)


@registry.register
class SlotReadout(_Wrapper):
    """A `LeakyReadout` whose membrane takes the input of the first substep of each
    step, and keeps its value in the others.

    Args: as in `_Wrapper`.
    """

    layer_kind = LayerKind(role=READOUT)

    def __init__(self, layer: LeakyReadout | Config, slots: int, **kwargs: Any) -> None:
        super().__init__(layer, slots, **kwargs)
        self.value = self.layer.value
        self.supports_masking = True

    def initial_state(self, inputs: Tensor) -> Structure:
        return {
            "layer": self.layer.initial_state(inputs),
            "substep": ops.zeros((), "int32"),
        }

    def step(self, inputs: Tensor, state: Structure) -> tuple[Tensor, Structure]:
        is_first = state["substep"] == 0
        _, after = self.layer.step(inputs, state["layer"])
        after = tree.map_leaves(
            lambda new, old: ops.where(is_first, new, old), after, state["layer"]
        )
        return after["membrane"], {
            "layer": after,
            "substep": (state["substep"] + 1) % self.slots,
        }

    def call(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@registry.register
class Bias(ConfigOfAttributes, keras.layers.Layer):
    """Adds a bias.

    Args:
        shape: Tuple, the shape of the bias, which broadcasts to a sample.
        **kwargs: `name`, `dtype` of a Keras layer.
    """

    layer_kind = LayerKind(affine=True, function_of_tensors=True)
    in_config = ("shape",)

    def __init__(self, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def build(self, input_shape: Shape) -> None:
        self.bias = self.add_weight(shape=self.shape, initializer="zeros", name="bias")

    def call(self, inputs: Tensor) -> Tensor:
        return inputs + ops.cast(self.bias, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

"""Online threshold stabilizer: thresholds follow the membranes, to keep a layer's
firing rate similar at all steps."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import registry, time_axis
from keras_ratesnn._core.annotations import Shape, Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.layers.cells import IntegrateAndFireCell

_ALIKE = 1e-5
"""Membranes of at most this standard deviation, relative to their size or the
threshold, count as equal: it is rounding."""


@registry.register
class ThresholdStabilizer(keras.layers.Layer):
    """The thresholds θ_t of a neuron layer, and their running average, which is the
    threshold in inference.

    With the mean m_t and the standard deviation d_t of all membranes of the layer, over
    batch, space and channels,

        θ_1 = θ,        θ_t = m_t + ratio · d_t,        ratio = (θ − m_1) / d_1

    θ_t has no gradient. At a step at which the membranes are all alike, for example in
    a layer that no spike has reached yet, there is no deviation to scale, and θ_t = θ.
    Step 1 is the first at which they differ.

    Args:
        threshold: Float > 0, θ.
        momentum: Float, the momentum of the running threshold. Defaults to `0.9`.

    Source: Zhu et al., "Online Stabilization of Spiking Neural Networks", ICLR 2024.
    """

    def __init__(self, threshold: float, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold
        self.momentum = momentum

    def build(self, input_shape: Shape | None = None) -> None:
        initializer = keras.initializers.Constant(self.threshold)
        self.running_threshold = self.add_weight(
            shape=(),
            initializer=initializer,
            trainable=False,
            autocast=False,
            name="running_threshold",
        )

    def move(self, threshold: Tensor) -> None:
        """Updates the running threshold with the mean threshold of a batch."""
        running = self.running_threshold
        before = ops.convert_to_tensor(running)
        threshold = time_axis.cast(threshold, running.dtype)
        running.assign(self.momentum * before + (1.0 - self.momentum) * threshold)


class StabilizedCell:
    """Replaces a cell in a time loop; a `ThresholdStabilizer` sets the threshold of
    each step.

    Args:
        cell: A `NeuronCell` whose step takes a `threshold`.
        stabilizer: A `ThresholdStabilizer`.
        training: Boolean, whether thresholds follow the membranes; otherwise the
            running threshold is used.
    """

    fuses = False
    in_parallel = False

    def __init__(
        self,
        cell: IntegrateAndFireCell,
        stabilizer: ThresholdStabilizer,
        training: bool,
    ) -> None:
        self.cell = cell
        self.stabilizer = stabilizer
        self.training = training
        self.variables = [*cell.variables, *stabilizer.variables]

    def initial_state(self, inputs: Structure) -> Structure:
        state = self.cell.initial_state(inputs)
        nothing = ops.zeros((), dtype=time_axis.accumulation_dtype(inputs.dtype))
        return {
            "cell": state,
            **dict.fromkeys(("steps", "begun", "ratio", "thresholds"), nothing),
        }

    def step(
        self, inputs: Structure, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        if not self.training:
            threshold = time_axis.cast(
                ops.convert_to_tensor(self.stabilizer.running_threshold),
                state["ratio"].dtype,
            )
            membrane, spikes, after = self.cell.step(inputs, state["cell"], threshold)
            return membrane, spikes, {**state, "cell": after}
        membrane, *_ = self.cell.step(inputs, state["cell"])
        moments = ops.moments(
            ops.stop_gradient(membrane), list(range(len(membrane.shape)))
        )
        mean, variance = engine.merged_moments(ops.size(membrane), *moments)
        deviation, initial = ops.sqrt(variance), self.stabilizer.threshold
        differ = deviation > _ALIKE * (ops.abs(mean) + initial)
        begins = ops.logical_and(differ, state["begun"] == 0)
        ratio = ops.where(
            begins, (initial - mean) / ops.where(differ, deviation, 1.0), state["ratio"]
        )
        threshold = ops.where(differ, mean + ratio * deviation, initial)
        membrane, spikes, after = self.cell.step(inputs, state["cell"], threshold)
        begun = ops.where(differ, 1.0, state["begun"])
        sums = {
            "steps": state["steps"] + 1.0,
            "thresholds": state["thresholds"] + threshold,
        }
        return membrane, spikes, {"cell": after, "begun": begun, "ratio": ratio, **sums}

    def after_steps(self, state: Structure) -> None:
        if self.training:
            self.stabilizer.move(state["thresholds"] / state["steps"])

"""Neurons that also accumulate their firing rate, and its derivatives with respect to
input and weights: eligibilities."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn._core import time_axis, tree
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.neuron import NeuronHandler, NeuronState
from keras_ratesnn.gradients.time import derivative
from keras_ratesnn.gradients.time.windows import accumulate, join

MOST_COMPILED_WINDOWS = 8
"""With more windows a time loop is not compiled: each of its steps has a trace for each
pair of windows. Passes that TensorFlow compiles are slower from 10 windows on, and the
time to write a program of PyTorch grows with the cube of their number."""


class Sums(NamedTuple):
    """Sums from step to step: numbers at first, tensors once neurons differ.

    Attributes:
        tangents: For each direction the tangent of the cell's state.
        spikes: For each window the sum of the spikes.
        slopes: For each direction the sums of the tangents of the spikes, in its own
            window and in each later one.
        fed: For each window the sum of the spikes that come back, of recurrent neurons.
    """

    tangents: Any
    spikes: Any
    slopes: Any
    fed: Any = ()


class WindowMeans(NamedTuple):
    """The rate of a window, its slopes, and the mean of what comes back: sums divided
    by the size of the window."""

    rate: Any
    slopes: Any
    fed: Any = ()


class EligibilityHandler(NeuronHandler):
    """Neurons whose rates have the derivatives that their steps accumulated.

    Each time window has a rate, with a derivative with respect to the input in that
    window and in each earlier one.

    Args: as in `Handler`.
    """

    begins_incomplete = True
    parallel = False

    def __init__(self, call, context):
        super().__init__(call, context)
        self.neurons = self.cell.independent_cell()
        # The input of each window, and each weight, which acts in all windows.
        self.directions: list[tuple[int | None, Any]] = [
            (window, None) for window in range(len(self.windows))
        ]
        self.directions += [(None, part) for part, _ in self.neurons.weight_parts()]

    @property
    def waits_as_bytes(self):
        # Sums of spikes in a window are whole numbers, too.
        most = self.cell.levels * max(self.windows.sizes)
        return (
            self.context.all_at_once
            and self.cell.states_levels
            and self.cell.spike_size == 1.0
            and most < 256
            and engine.spikes_wait_as_bytes()
        )

    @property
    def key(self):
        return (
            *super().key,
            self.windows.sizes,
            tuple(variable.trainable for variable in self.cell.variables),
        )

    @property
    def fuses(self):
        # PyTorch's compiler fails on the graphs of its forward-mode differentiation,
        # and takes minutes for many windows.
        return (
            self.cell.fuses
            and derivative.has_written_derivative(self.cell)
            and len(self.windows) <= MOST_COMPILED_WINDOWS
        )

    def phase(self, t, valid=None):
        phase = self.windows.inside(t)
        if valid is None:
            return phase
        valid = ops.cast(valid, "float32")
        return tuple(valid * here for here in phase) if phase else (valid,)

    def start(self, inputs):
        state = super().start(inputs)
        return state._replace(record=self.nothing(inputs[0], state.cell))

    def nothing(self, current: Tensor, cell: Any) -> Sums:
        """The sums before the first step, given its current and the state of the
        independent cell."""
        tangents = [
            derivative.at_rest(self.neurons, current, cell, part)
            for _, part in self.directions
        ]
        spikes = [0.0 for _ in self.windows.sizes]
        slopes = [spikes[self.windows.since(window)] for window, _ in self.directions]
        return Sums(tangents, spikes, slopes)

    def advance(self, state, inputs, phase):
        sums = state.record
        spikes, cell, along, slope = derivative.step(
            self.neurons, inputs[0], state.cell
        )
        # Tensors in a compiled loop; TensorFlow does not add two dtypes.
        phase = tuple(
            here if isinstance(here, float) else time_axis.cast(here, spikes.dtype)
            for here in phase
        )
        tangents, slopes = [], []
        for (window, part), tangent, totals in zip(
            self.directions, sums.tangents, sums.slopes, strict=True
        ):
            input_tangent, here = 0.0, phase[self.windows.since(window)]
            if window is not None:
                input_tangent = phase[window] if phase else 1.0
            distance_tangent, tangent = along(input_tangent, tangent, part)
            tangents.append(tangent)
            slopes.append(_accumulated(totals, slope, distance_tangent, here))
        sums = sums._replace(
            tangents=tangents,
            spikes=accumulate(sums.spikes, spikes, phase),
            slopes=slopes,
        )
        return NeuronState(cell, sums), [time_axis.cast(spikes, self.dtype)]

    def as_tensors(self, state):
        """Numbers become tensors of their final shape and dtype; a loop would carry
        them as float32 scalars."""
        sums, like = state.record, state.record.spikes[0]

        def full(x):
            return x if ops.is_tensor(x) else ops.full_like(like, x)

        def scalar(x):
            return x if ops.is_tensor(x) else ops.convert_to_tensor(x, dtype=like.dtype)

        tangents = tree.map_leaves(scalar, sums.tangents)
        sums = tree.map_leaves(full, sums._replace(tangents=()))
        return state._replace(record=sums._replace(tangents=tangents))

    def summarize(self, state):
        """The rate of each window, and its derivatives with respect to weights and to
        the input up to that window."""
        sums = state.record
        record = []
        slopes = self.windows.of_each(sums.slopes)
        for total, of_window, size in zip(
            sums.spikes, slopes, self.windows.sizes, strict=True
        ):
            if self.waits_as_bytes:
                rate = ops.cast(total, "uint8")
            else:
                rate = self._stored(total / size)
            means = [self._stored(slope / size) for slope in of_window]
            record.append(WindowMeans(rate, means))
        return state._replace(record=record)

    def _stored(self, means):
        """Means in the precision of the layer, which gradients have, unless they are
        scaled, fed back, or summed over neurons."""
        has_weights = any(part is not None for _, part in self.directions)
        is_scaled = self.windows.mask is not None
        if is_scaled or self.cell.feedback is not None or has_weights:
            return means

        def stored(x):
            return time_axis.cast(x, self.dtype) if ops.is_tensor(x) else x

        return tree.map_leaves(stored, means)

    def means_of(self, record: Any, window: int) -> WindowMeans:
        """The record of a window: means over its time steps."""
        means = record[window]
        if self.waits_as_bytes:
            total = ops.cast(means.rate, time_axis.accumulation_dtype(self.dtype))
            size = self.windows.sizes[window]
            means = means._replace(rate=self._stored(total / size))
        return self.windows.counted_means(means, window)

    def firing_rate(self, record, mean_input):
        """The firing rate in each window: its value is the time mean of the spikes,
        with the accumulated derivatives."""
        windows, rates = self.windows, []
        inputs = windows.cut(mean_input)
        for window in range(len(record)):
            value, slopes, _ = self.means_of(record, window)
            onto = [*inputs[windows.until(window)], *self.values_of_weights(value)]
            rates.append(grafted(value, onto, slopes))
        return join(rates)

    def values_of_weights(self, like: Tensor) -> list[Tensor]:
        """The parts of the trainable weights of the cell, in the shape and dtype of a
        tensor."""
        return [
            ops.broadcast_to(ops.cast(weight, like.dtype), ops.shape(like))
            for _, weight in self.neurons.weight_parts()
        ]


def grafted(value: Tensor, onto: list[Tensor], slopes: Sequence[Any]) -> Tensor:
    """A tensor with derivatives: `slopes` with respect to the tensors `onto`, which may
    have other dtypes."""
    (tensor, slope), *more = [
        (time_axis.cast(tensor, value.dtype), slope)
        for tensor, slope in zip(onto, slopes, strict=True)
    ]
    return engine.graft(value, tensor, slope, *more)


def _accumulated(totals, slope, tangent, here):
    """The sums of a direction after a step: the tangent of the spikes is the slope
    times that of their distance from the threshold."""
    if isinstance(tangent, float) and tangent == 0.0:
        return totals

    def plus(total, tangent):
        return engine.multiply_add(slope, tangent, total)

    if all(isinstance(share, float) for share in here):
        return accumulate(totals, tangent, here, plus)
    return accumulate(totals, slope * tangent, here)

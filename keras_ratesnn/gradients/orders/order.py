"""What both orders share, and what differs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients import _time_loop
from keras_ratesnn.gradients._propagate_nan import propagate_nan
from keras_ratesnn.gradients.signals import Signal

if TYPE_CHECKING:
    from keras_ratesnn.gradients.base import Rule, Run


class Order:
    """Base class of both orders.

    Args:
        timesteps: Integer T.
        windows: Tuple of integers that add up to T, the sizes of the windows with a mean each. Defaults to `None`, one window.

    Attributes:
        memory: Dict from places to structures of tensors.
        constants: Dict from places to structures of signals that are the same at every step.
        adds_losses: Set of the places of calls on steps that add losses of their own.
        layout: Context for calls of layers that can keep the memory layout of their data.
        t: Integer, or integer scalar tensor: the time step that a rule sees, from 0 on; `None` if it sees all steps at once.
    """

    sees_all_steps = True
    """Whether a rule sees all steps at once, so that time means need no state between steps."""

    def __init__(self, timesteps: int, windows: Sequence[int] | None = None) -> None:
        self.t: int | Tensor | None = None
        self.timesteps = timesteps
        self.windows = windows or (timesteps,)
        self.memory: dict[str, Any] = {}
        self.constants: dict[str, Structure] = {}
        self.adds_losses: set[str] = set()
        self.layout = backend.layout_kept()
        self._neurons: dict[str, _time_loop.NeuronPass] = {}
        self._finishing: dict[str, Callable[..., Any]] = {}
        self._owners_of_losses: dict[str, keras.layers.Layer] = {}
        self._losses: list[tuple[keras.layers.Layer, Tensor]] = []
        self._once: set[str] = set()
        self._normalized: dict[str, Call] = {}
        self._statistics: list[tuple[Call, Tensor, Tensor]] = []

    @property
    def calls(self) -> int:
        """The number of calls of the operation at a place."""
        return 1 if self.sees_all_steps else self.timesteps

    # What differs between the orders:

    def begin(self, tensor: Tensor, has_time: bool) -> Signal:
        """The signal of an input of the network: `(batch, T, ...)` if `has_time`, else `(batch, ...)`."""
        raise NotImplementedError

    def tensor(self, signal: Signal) -> Tensor:
        """The tensor of a signal, with a row for each step that the rule sees, even if the signal is static."""
        raise NotImplementedError

    def mask(self, signal: Signal) -> Tensor | None:
        """The Keras mask of `tensor(signal)`, or `None`."""
        return keras_internals.mask_of(signal.value)

    def each(self, function: Callable[..., Any]) -> Structure:
        """`function(t)` for each step t that the rule sees, joined in one structure of tensors, with their Keras masks."""
        raise NotImplementedError

    def at(self, signal: Signal, t: int) -> Tensor:
        """The tensor `(batch, ...)` of a signal at a step that the rule sees, with its Keras mask."""
        raise NotImplementedError

    def time_steps(self, args: Structure) -> int | Tensor:
        """The time step of each row of an operation's arguments; an integer if all rows belong to one step."""
        raise NotImplementedError

    def scale(self, tensor: Tensor, by_sample: Tensor) -> Tensor:
        """The product of a tensor of the steps that the rule sees and a tensor of one step, `(batch, ...)`."""
        raise NotImplementedError

    def through_time(self, place: str, neuron_pass: _time_loop.NeuronPass, current: Signal) -> Tensor:
        """The spikes of a neuron layer, see `NeuronPass`, given the signal of its input current."""
        raise NotImplementedError

    def finished(self, place: str) -> Any:
        """The result of `NeuronPass.finish` for a neuron layer after the steps so far."""
        raise NotImplementedError

    def average(self, place: str, values: Structure) -> None:
        """Stores the mean of a structure of tensors over the calls in each window: a list with one element per window.

        In multi-step mode there is only one call for all windows, so the list has one element.
        """
        raise NotImplementedError

    def average_steps(self, place: str, tensors: Structure) -> Structure:
        """Stores the time mean in each window, `(batch * W, ...)`, of a structure of tensors of the steps.

        For integers and booleans, whose mean would not be an integer or boolean, all steps are stored, `(batch * T, ...)`.

        Returns:
            The tensors; use these from now on.
        """
        raise NotImplementedError

    def run(self, rule: "Rule", run: "Run") -> Structure:
        """Runs the network over time with a rule.

        Returns:
            Tensors in the structure of the network's outputs: time means `(batch, ...)`, or all steps `(batch, T, ...)` if
            `run.return_sequences`.
        """
        raise NotImplementedError

    # What both orders share:

    def once(self, place: str, function: Callable[..., Any]) -> Any:
        """The result of `function()`, which is called only the first time for each place."""
        if place not in self.memory:
            self.memory[place] = function()
            self._once.add(place)
        return self.memory[place]

    def drawn(self) -> Any:
        """The memory entries set by `once`. An order that starts with them reuses the same masks and noise."""
        return {place: self.memory[place] for place in self._once}

    def regularize(self, call: Call, outputs: Structure, share: float = 1.0, each_step: bool = False) -> None:
        """Adds the activity regularisation of a call to its layer's losses, divided by the number of rows, as in Keras.

        Args:
            call: `Call`.
            outputs: Structure of tensors.
            share: Float, the fraction of all steps that these outputs cover. Defaults to `1.0`.
            each_step: See `add_loss`.
        """
        regularizer = getattr(call.operation, "activity_regularizer", None)
        if regularizer is not None:
            # In half precision the sum over all steps and neurons could overflow.
            outputs = map(time_axis.widen, tree.flatten(outputs))
            loss = sum(regularizer(output) / ops.cast(ops.shape(output)[0], output.dtype) for output in outputs)
            self.add_loss(call, loss * share, each_step)

    def add_loss(self, call: Call, loss: Tensor, each_step: bool = False) -> None:
        """Stores a loss of a call's layer.

        Args:
            call: `Call`.
            loss: Tensor.
            each_step: Boolean, whether this is called for every call of the operation instead of once for all steps. Defaults
                to `False`.
        """
        if not each_step:
            self._losses.append((call.operation, loss))
            return
        # Stored in the memory, which a loop can carry; it has no gradient if the steps have none.
        place = f"loss at {call.key}"
        self.memory[place] = self.memory.get(place, 0.0) + ops.sum(loss)
        self._owners_of_losses[place] = call.operation

    def after_steps(self, call: Call, mean: Tensor, variance: Tensor, mask: Tensor | None = None) -> None:
        """Collects statistics that a call's normalisation receives after the last walk, averaged over all steps.

        With a `mask` of what they leave out, steps count by how much they do not.
        """
        if all(signal.static for signal in call.signals):
            self._statistics.append((call, mean, variance))
            return
        place = f"batch at {call.key}"
        square = variance + ops.square(mean)
        if mask is None:
            self.average(place, {"mean": mean, "square": square})
        else:
            rows = ops.sum(time_axis.cast(mask, mean.dtype))
            self.average(place, {"mean": rows * mean, "rows": rows, "square": rows * square})
        self._normalized[place] = call

    def _gather_masks(self, run, signals):
        """Stores the Keras masks of the network's outputs. A time mean counts where some step does."""
        for place, signal in zip(_places_of_masks(signals), tree.flatten(signals), strict=True):
            mask = self.mask(signal)
            if mask is not None:
                self.memory[place] = self._gathered_mask(run, self.memory.get(place), mask)

    def losses_of_steps(self) -> Any:
        """The memory entries in which `add_loss` sums the losses of the steps."""
        return {place: self.memory[place] for place in self._owners_of_losses}

    def end(self) -> None:
        """Called after the last walk of a run: passes collected losses and statistics to their layers."""
        # Calling a layer may clear earlier losses.
        for layer, loss in [*self._losses, *((layer, self.memory[place]) for place, layer in self._owners_of_losses.items())]:
            layer.add_loss(loss)
        for call, mean, variance in self._statistics:
            call.kind.normalization.after_steps(call.operation, mean, variance)  # type: ignore[union-attr, misc]

    def _gathered_mask(self, run, so_far, mask):
        """The mask of an output, `(batch, ...)`, or `(batch, T, ...)` if `run.return_sequences`.

        Args:
            run: `Run`.
            so_far: The mask of previous steps, or `None`.
            mask: The mask of the steps that the rule sees.
        """
        raise NotImplementedError

    def _finish(self, rule, outputs):
        """The outputs of a walk. Replaces the state in the memory by the records for later walks."""
        finished = {place: self.finished(place) for place in self._neurons}
        for place, (state, record) in finished.items():
            self._neurons[place].cell.after_steps(state)
            self.memory[place] = record
        for place, function in self._finishing.items():
            self.memory[place] = function(self.memory.get(place))
        # They refer to this order: the tensors of a step would stay in memory until Python looks for such cycles.
        self._finishing.clear()
        for place, call in self._normalized.items():
            windows = self.memory[place]
            moments = {name: self._of_all_steps([of[name] for of in windows]) for name in windows[0]}
            mean, square = moments["mean"], moments["square"]
            if "rows" in moments:
                rows = ops.where(moments["rows"] > 0.0, moments["rows"], 1.0)
                mean, square = mean / rows, square / rows
            self._statistics.append((call, mean, ops.maximum(square - ops.square(mean), 0.0)))
        rule.finish()
        masks = iter([self.memory.get(place) for place in _places_of_masks(outputs)])
        outputs = propagate_nan(outputs, [state for state, _ in finished.values()])
        return tree.map_leaves(lambda output: keras_internals.put_mask(output, next(masks)), outputs)

    def _of_all_steps(self, means):
        """The mean over all steps of values stored by `average`."""
        if len(means) == 1:
            return means[0]
        return sum(mean * (size / self.timesteps) for mean, size in zip(means, self.windows, strict=True))

    def states(self) -> Any:
        """The states of all neuron layers after the last step: a list of structures of tensors."""
        return [self.finished(place)[0] for place in self._neurons]


def _places_of_masks(outputs):
    """A place in the memory for the mask of each output."""
    return [f"mask of output {number}" for number, _ in enumerate(tree.flatten(outputs))]

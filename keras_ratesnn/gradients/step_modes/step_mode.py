"""What both step modes share, and what differs."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients._propagate_nan import propagate_nan
from keras_ratesnn.gradients._windows import Windows
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.record import PassKey, Record
from keras_ratesnn.gradients.run import Run, WalkRule
from keras_ratesnn.gradients.signals import Signal, only_signal


class StepMode:
    """Base class of both step modes.

    Args:
        timesteps: Integer T.
        windows: Tuple of integers that add up to T, the sizes of the windows with a mean each. Defaults to `None`, one window.
        mask: Boolean tensor `(batch, T)`, false for the steps of each sample that are padding: they count in no mean, neurons
            keep their state and do not spike. Defaults to `None`: all steps count.

    Attributes:
        record: `Record`.
        windows: The windows, and how their steps are averaged.
        constants: Dict from the keys of calls to structures of signals that are the same at every step.
        adds_losses: Set of the keys of calls on steps that add losses of their own.
        layout: Context for calls of layers that can keep the memory layout of their data.
        t: Integer, or integer scalar tensor: the time step that a rule sees, from 0 on; `None` if it sees all steps at once.
    """

    sees_all_steps = True
    """Whether a rule sees all steps at once, so that time means need no state between steps."""

    def __init__(self, timesteps: int, windows: Sequence[int] | None = None, mask: Tensor | None = None) -> None:
        self.t: int | Tensor | None = None
        self.timesteps = timesteps
        self.windows = Windows(tuple(windows or (timesteps,)), mask)
        self.record = Record.empty()
        self.constants: dict[str, Structure] = {}
        self.adds_losses: set[str] = set()
        self.layout = backend.layout_kept()
        self._passes: dict[PassKey, NeuronPass] = {}
        self._losses: list[tuple[keras.layers.Layer, Tensor]] = []
        self._layers_with_losses: dict[str, keras.layers.Layer] = {}
        self._statistics: list[tuple[Call, Tensor, Tensor]] = []
        self._normalized: dict[str, Call] = {}

    @property
    def calls_per_run(self) -> int:
        """The number of calls of each operation."""
        return 1 if self.sees_all_steps else self.timesteps

    # What differs between the step modes:

    def begin(self, tensor: Tensor, has_time: bool) -> Signal:
        """The signal of an input of the network: `(batch, T, ...)` if `has_time`, else `(batch, ...)`."""
        raise NotImplementedError

    def tensor(self, signal: Signal) -> Tensor:
        """The tensor of a signal, with a row for each step that the rule sees, even if the signal is static."""
        raise NotImplementedError

    def valid_rows(self) -> Tensor | None:
        """Which rows of a tensor of the steps that the rule sees are not padding, a boolean each; `None` if all are not."""
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

    def through_time(self, key: str, neuron_pass: NeuronPass, current: Signal) -> Tensor:
        """The results of a neuron layer, in general its spikes, at the steps that the rule sees.

        Args:
            key: String, the key of the layer's call. A call may have several passes, if their `quantity` differs.
            neuron_pass: `NeuronPass`.
            current: `Signal`, the input current.
        """
        raise NotImplementedError

    def mix(self, key: str, mixing_pass: NeuronPass, signal: Signal) -> Tensor:
        """The outputs of a layer that mixes time steps, at the steps that the rule sees.

        Args:
            key: String, the key of the layer's call.
            mixing_pass: `NeuronPass` whose cell is the layer.
            signal: `Signal`, its input.
        """
        return self.mix_step_by_step(key, mixing_pass, signal)

    def mix_step_by_step(self, key: str, mixing_pass: NeuronPass, signal: Signal) -> Tensor:
        """`mix`, by one step of the layer after the other, whatever the rule sees."""
        return self.through_time(key, mixing_pass, Signal(self.only_valid(self.tensor(signal))))

    def average(self, field: Literal["statistics", "moments"], key: str, values: Structure) -> None:
        """Records the mean of a structure of tensors over the calls in each window: a list with one element per window.

        In multi-step mode there is only one call for all windows, so the list has one element.

        Args:
            field: The field of the record.
            key: String, the key of the call.
            values: Structure of tensors.
        """
        raise NotImplementedError

    def average_steps(self, field: Literal["outputs", "weights", "input_masks"], key: str, tensors: Structure) -> Structure:
        """Records the time mean in each window, `(batch * W, ...)`, of a structure of tensors of the steps.

        For integers and booleans, whose mean would not be an integer or boolean, all steps are recorded, `(batch * T, ...)`.

        Args:
            field: The field of the record.
            key: String, the key of the call.
            tensors: Structure of tensors.

        Returns:
            The tensors; use these from now on.
        """
        raise NotImplementedError

    def run(self, rule: WalkRule, run: Run, is_last: bool = True) -> Structure:
        """Runs the network over time with a rule.

        Args:
            rule: The rule, which has this step mode.
            run: `Run`.
            is_last: Boolean, whether no other walk follows: then `end` is called. Defaults to `True`.

        Returns:
            Tensors in the structure of the network's outputs: time means `(batch, ...)`, or all steps `(batch, T, ...)` if
            `run.return_sequences`.
        """
        raise NotImplementedError

    def _complete_record(self) -> None:
        """Called after the last step: completes the record for later walks."""

    def _gathered_mask(self, run, so_far, mask):
        """The mask of an output, `(batch, ...)`, or `(batch, T, ...)` if `run.return_sequences`.

        Args:
            run: `Run`.
            so_far: The mask of previous steps, or `None`.
            mask: The mask of the steps that the rule sees.
        """
        raise NotImplementedError

    # What both share:

    def only_valid(self, tensor: Tensor) -> Tensor:
        """A tensor of the steps that the rule sees, with zeros, and no gradient, in place of padding."""
        return time_axis.zero_unless(self.valid_rows(), tensor)

    def weights_in_statistics(self, call: Call, mask: Tensor | None) -> Tensor | None:
        """The weights of the input of a normalisation in statistics, of a shape that broadcasts to its first axes.

        Args:
            call: `Call`.
            mask: The Keras mask of its input, or `None`.
        """
        if self.windows.mask is None:
            return mask
        signal = only_signal(call, beside=call.kwargs.get("mask"))
        # What is the same at every step counts as often as there are steps.
        rows = self.windows.share_of_steps() if signal.static else self.valid_rows()
        rows = ops.reshape(rows, (-1, *[1] * (len(signal.value.shape) - 2)))
        return rows if mask is None else time_axis.cast(rows, "float32") * time_axis.cast(mask, "float32")

    def regularize(self, call: Call, outputs: Structure, share: float = 1.0, each_step: bool = False) -> None:
        """Adds the activity regularisation of a call to its layer's losses, divided by the number of rows, as in Keras.

        Args:
            call: `Call`.
            outputs: Structure of tensors.
            share: Float, the fraction of all steps that these outputs cover. Defaults to `1.0`.
            each_step: See `store_loss`.
        """
        regularizer = getattr(call.operation, "activity_regularizer", None)
        if regularizer is not None:
            # In half precision the sum over all steps and neurons could overflow.
            outputs = list(map(time_axis.widen, tree.flatten(outputs)))
            if each_step and self.windows.mask is not None:
                outputs, share = list(map(self.only_valid, outputs)), share * self.windows.padding()
            loss = sum(regularizer(output) / ops.cast(ops.shape(output)[0], output.dtype) for output in outputs)
            self.store_loss(call, time_axis.scaled(loss, share), each_step)

    def store_loss(self, call: Call, loss: Tensor, each_step: bool = False) -> None:
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
        # In the record, which a loop can carry; it has no gradient if the steps have none.
        self.record.losses[call.key] = self.record.losses.get(call.key, 0.0) + ops.sum(loss)
        self._layers_with_losses[call.key] = call.operation

    def collect_moments(self, call: Call, mean: Tensor, variance: Tensor, mask: Tensor | None = None) -> None:
        """Collects statistics that a call's normalisation receives after the last walk, averaged over all steps.

        With a `mask` of what they leave out, steps count by how much they do not.
        """
        if all(signal.static for signal in call.signals):
            self._statistics.append((call, mean, variance))
            return
        square = variance + ops.square(mean)
        if mask is None:
            self.average("moments", call.key, {"mean": mean, "square": square})
        else:
            rows = ops.sum(time_axis.cast(mask, mean.dtype))
            self.average("moments", call.key, {"mean": rows * mean, "rows": rows, "square": rows * square})
        self._normalized[call.key] = call

    def end(self) -> None:
        """Called after the last walk of a run: passes collected losses and statistics to their layers."""
        # Calling a layer may clear earlier losses.
        of_steps = ((layer, self.record.losses[key]) for key, layer in self._layers_with_losses.items())
        for layer, loss in [*self._losses, *of_steps]:
            layer.add_loss(loss)
        for call, mean, variance in self._statistics:
            call.kind.normalization.after_steps(call.operation, mean, variance)  # type: ignore[union-attr, misc]

    def _gather_masks(self, run, signals):
        """Records the Keras masks of the network's outputs. A time mean counts where some step does."""
        masks = self.record.output_masks
        for number, signal in enumerate(tree.flatten(signals)):
            mask = self.mask(signal)
            if mask is not None:
                masks[number] = self._gathered_mask(run, masks.get(number), self.only_valid(ops.cast(mask, "bool")))
            elif run.return_sequences and run.mask is not None:
                masks[number] = run.mask

    def _outputs(self, outputs, is_last):
        """The outputs of a walk, after the last step."""
        self._complete_record()
        record = self.record
        for pass_key, neuron_pass in self._passes.items():
            neuron_pass.after_steps(record.states[pass_key])
        for key, call in self._normalized.items():
            windows = record.moments[key]
            moments = {name: self._of_all_steps([of[name] for of in windows]) for name in windows[0]}
            mean, square = moments["mean"], moments["square"]
            if "rows" in moments:
                rows = ops.where(moments["rows"] > 0.0, moments["rows"], 1.0)
                mean, square = mean / rows, square / rows
            self._statistics.append((call, mean, ops.maximum(square - ops.square(mean), 0.0)))
        if is_last:
            self.end()
        outputs, numbers = propagate_nan(outputs, [*record.states.values()]), itertools.count()
        # Later walks do not need them.
        record.states.clear()
        masks = record.output_masks
        return tree.map_leaves(lambda output: keras_internals.put_mask(output, masks.get(next(numbers))), outputs)

    def _of_all_steps(self, means):
        """The mean over all steps of values recorded by `average`."""
        if len(means) == 1:
            return means[0]
        return sum(mean * (size / self.timesteps) for mean, size in zip(means, self.windows.sizes, strict=True))

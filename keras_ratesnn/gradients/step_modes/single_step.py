"""Single-step mode."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.gradients import _compiled_loop, _time_loop, _windows
from keras_ratesnn.gradients._padded_pass import padded
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.record import PassKey, Record
from keras_ratesnn.gradients.run import Run, WalkRule
from keras_ratesnn.gradients.signals import Signal
from keras_ratesnn.gradients.step_modes.step_mode import StepMode

_OF_EACH_SAMPLE = ("statistics", "outputs", "weights", "input_masks")
"""What is averaged over the steps that count for a sample; moments are weighted by what counts in each step."""


class SingleStep(StepMode):
    """Single-step mode: the loop over time is outside, and one step runs through the whole network.

    No tensor of size T · batch is ever allocated. Batch normalisation uses separate statistics for each step, over batch and
    space, and updates its moving averages once per step, like the authors' program.
    """

    sees_all_steps = False

    def __init__(self, timesteps: int, windows: Sequence[int] | None = None, mask: Tensor | None = None) -> None:
        super().__init__(timesteps, windows, mask)
        self.t = 0
        # Whether the leaves of what `average_steps` records are floats; `None` for `average`.
        self._averaged: dict[PassKey, Structure | None] = {}

    def begin(self, tensor: Tensor, has_time: bool) -> Signal:
        if not has_time:
            return Signal(tensor, static=True)
        step = keras_internals.with_mask(lambda tensor: time_axis.step_of(tensor, self.t), tensor)
        return Signal(keras_internals.put_mask(self.only_valid(step), keras_internals.mask_of(step)))

    def tensor(self, signal: Signal) -> Tensor:
        mask = self.mask(signal) if signal.static else None
        # Another tensor for each step: Keras' MultiHeadAttention takes the masks off its inputs.
        return signal.value if mask is None else keras_internals.put_mask(ops.copy(signal.value), mask)

    def valid_rows(self) -> Tensor | None:
        return None if self.windows.mask is None else time_axis.step_of(self.windows.mask, self.t)

    def each(self, function: Callable[..., Any]) -> Structure:
        return function(self.t)

    def at(self, signal: Signal, t: int) -> Tensor:
        return self.tensor(signal)

    def time_steps(self, args: Structure) -> int | Tensor:
        return self.t

    def scale(self, tensor: Tensor, by_sample: Tensor) -> Tensor:
        return tensor * by_sample

    def through_time(self, key: str, neuron_pass: NeuronPass, current: Signal) -> Tensor:
        pass_key, loops = (neuron_pass.quantity, key), self.record.loops
        self._passes[pass_key] = neuron_pass
        running = padded(neuron_pass, self.windows.mask)
        carried = loops[pass_key] if pass_key in loops else running.start(current.value)
        spikes, carried = _time_loop.step(running, current.value, carried, self.t)
        loops[pass_key] = running.as_tensors(carried)
        return spikes

    def average(self, field: Literal["statistics", "moments"], key: str, values: Structure) -> None:
        self._averaged[field, key] = None
        rows = self.valid_rows() if field in _OF_EACH_SAMPLE else None
        if rows is not None:
            values = tree.map_leaves(lambda value: ops.broadcast_to(value, (*ops.shape(rows), *ops.shape(value))), values)
        self._add((field, key), values)

    def average_steps(self, field: Literal["outputs", "weights", "input_masks"], key: str, tensors: Structure) -> Structure:
        pass_key, sequences = (field, key), self.record.sequences
        self._averaged[pass_key] = tree.map_leaves(lambda tensor: time_axis.is_float(tensor.dtype), tensors)
        floats = [leaf for leaf in tree.flatten(tensors) if time_axis.is_float(leaf.dtype)]
        others = [leaf for leaf in tree.flatten(tensors) if not time_axis.is_float(leaf.dtype)]
        if floats:
            self._add(pass_key, [time_axis.widen(leaf) for leaf in floats])
        if others:
            so_far = sequences.get(pass_key, [None for _ in others])
            sequences[pass_key] = [self._with_step(steps, leaf) for steps, leaf in zip(so_far, others, strict=True)]
        return tensors

    def _add(self, pass_key, values):
        """Adds a structure of tensors to the sum of the window of this step, for the samples that it counts for."""
        sums = self.record.sums
        if pass_key[0] in _OF_EACH_SAMPLE:
            values = tree.map_leaves(self.only_valid, values)
        if pass_key not in sums:
            sums[pass_key] = [values, *(tree.map_leaves(ops.zeros_like, values) for _ in self.windows.sizes[1:])]
            return
        inside = _windows.inside(self.windows.sizes, self.t)
        by_leaf = [_windows.accumulate(of_leaf, value, inside) for *of_leaf, value in _leaves(*sums[pass_key], values)]
        sums[pass_key] = [_like(values, of_window) for of_window in zip(*by_leaf, strict=True)]

    def _complete_record(self) -> None:
        record = self.record
        for pass_key, neuron_pass in self._passes.items():
            record.states[pass_key], record.neurons[pass_key] = neuron_pass.finish(record.loops[pass_key])
        for pass_key, is_float in self._averaged.items():
            field, key = pass_key
            getattr(record, field)[key] = self._means(pass_key) if is_float is None else self._joined(pass_key, is_float)
        record.loops.clear()
        record.sums.clear()
        record.sequences.clear()

    def _means(self, pass_key):
        """The mean in each window of what `average` was given."""

        def mean(total, window):
            of_samples = pass_key[0] in _OF_EACH_SAMPLE
            return self.windows.mean_of(total, window) if of_samples else total / self.windows.sizes[window]

        sums = enumerate(self.record.sums[pass_key])
        return [tree.map_leaves(lambda total, window=window: mean(total, window), of_window) for window, of_window in sums]

    def _joined(self, pass_key, is_float):
        """What `average_steps` records."""
        record = self.record
        means = map(_windows.join, zip(*self._means(pass_key), strict=True)) if pass_key in record.sums else iter(())
        steps = map(time_axis.fold, record.sequences.get(pass_key, ()))
        return tree.map_leaves(lambda of_floats: next(means if of_floats else steps), is_float)

    def states(self) -> list[Structure]:
        """The states of the cells of all neuron layers after the steps so far."""
        return [neuron_pass.finish(self.record.loops[pass_key])[0] for pass_key, neuron_pass in self._passes.items()]

    def walk_step(
        self,
        rule: WalkRule,
        walk: Callable[[list[Signal], WalkRule], Structure],
        signals: Callable[[], list[Signal]],
        t: int | Tensor,
        record: Record,
    ) -> tuple[Record, Structure]:
        """One walk.

        Args:
            rule: The rule, which has this step mode.
            walk: Function `(signals, rule) -> signals`, see `Run`.
            signals: Function that returns the list of signals of the network's inputs at this step.
            t: Integer, or integer scalar tensor: the time step, from 0 on.
            record: The `Record` returned by the previous step, an empty one before the first.

        Returns:
            `(record, outputs)`: the record for the next step, and tensors in the structure of the network's outputs.
        """
        self.t, self.record = t, record.copy()
        outputs = tree.map_leaves(lambda signal: rule.output(self.only_valid(signal.value)), walk(signals(), rule))
        return self.record, outputs

    def run(self, rule: WalkRule, run: Run, is_last: bool = True) -> Structure:
        return self.outputs_of(run, self.sweep(rule, run), is_last)

    def sweep(self, rule: WalkRule, run: Run) -> Structure:
        """Runs all steps.

        Returns:
            The argument of `outputs_of`: the sum of the outputs in the structure of the network's outputs, or all of them if
            `run.return_sequences`.
        """

        def signals():
            return [self.begin(tensor, has_time) for tensor, has_time in run.inputs]

        def walk(signals, rule):
            outputs = run.walk(signals, rule)
            self._gather_masks(run, outputs)
            return outputs

        record, outputs = self.walk_step(rule, walk, signals, 0, Record.empty())
        carried = record, tree.map_leaves(lambda output: self._gather(run, None, output), outputs)

        def body(t, carried):
            record, gathered = carried
            record, outputs = self.walk_step(rule, walk, signals, t, record)
            return record, tree.map_leaves(lambda so_far, output: self._gather(run, so_far, output), gathered, outputs)

        if not rule.with_gradient and self.timesteps > backend.unrolled_network_steps():
            carried = _compiled_loop.run(body, carried, run.network.variables, 1, self.timesteps)
        else:
            for t in range(1, self.timesteps):
                carried = body(t, carried)

        self.record, gathered = carried
        # The dtypes of the outputs; sums are wider.
        self._dtypes = tree.map_leaves(lambda output: output.dtype, outputs)
        return gathered

    def outputs_of(self, run: Run, gathered: Structure, is_last: bool = True) -> Structure:
        """The outputs of the run, from the result of `sweep`."""

        def mean(total, dtype):
            return ops.cast(self.windows.mean_of_all(total), time_axis.mean_dtype(dtype))

        outputs = gathered if run.return_sequences else tree.map_leaves(mean, gathered, self._dtypes)
        return self._outputs(outputs, is_last)

    def _gathered_mask(self, run, so_far, mask):
        if run.return_sequences:
            return self._with_step(so_far, mask)
        return mask if so_far is None else ops.logical_or(so_far, mask)

    def _gather(self, run, so_far, output):
        """The sum of the outputs so far, in float32 or wider, or their sequence, `(batch, T, ...)`."""
        if not run.return_sequences:
            output = time_axis.widen(output)
            return output if so_far is None else so_far + output
        return self._with_step(so_far, output)

    def _with_step(self, so_far, tensor):
        """Writes the tensor `(batch, ...)` of this step into a sequence `(batch, T, ...)`; `so_far` is `None` at first."""
        if so_far is None:
            return ops.repeat(tensor[:, None], self.timesteps, axis=1)
        at_step = ops.reshape(ops.arange(self.timesteps, dtype="int32") == self.t, (1, -1, *([1] * (len(tensor.shape) - 1))))
        return ops.where(at_step, tensor[:, None], so_far)


def _leaves(*structures):
    """Tuples of corresponding leaves of structures of the same form."""
    return zip(*map(tree.flatten, structures), strict=True)


def _like(structure, leaves):
    """The given leaves in the form of `structure`."""
    leaves = iter(leaves)
    return tree.map_leaves(lambda _: next(leaves), structure)

"""Multi-step mode."""

from collections.abc import Callable
from typing import Any, Literal

from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.gradients import _time_loop
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.run import Run, WalkRule
from keras_ratesnn.gradients.signals import Signal
from keras_ratesnn.gradients.step_modes.step_mode import StepMode


class MultiStep(StepMode):
    """Multi-step mode: a layer sees all steps at once, as `batch * T` rows."""

    def begin(self, tensor: Tensor, has_time: bool) -> Signal:
        self._rows = ops.shape(tensor)[0] * self.timesteps
        if not has_time:
            return Signal(tensor, static=True)
        steps = keras_internals.with_mask(time_axis.fold, tensor)
        return Signal(keras_internals.put_mask(self.only_valid(steps), keras_internals.mask_of(steps)))

    def _checked(self, steps):
        """Checks that a tensor has a row for each sample and step, and returns it."""
        backend.check_equal(
            ops.shape(steps)[0] if len(steps.shape) else 1,
            self._rows,
            'A network run with step_mode="multi" must keep the batch as the first axis of all tensors that change with time: '
            f"one row for each sample and step. Received: a tensor of shape {tuple(steps.shape)}, which does not have "
            f"{self._rows if isinstance(self._rows, int) else 'that number of'} rows. Remove the operation that reshapes or "
            'reduces that axis, or set step_mode="single", in which the network sees the samples of one step.',
        )
        return steps

    def tensor(self, signal: Signal) -> Tensor:
        if not signal.static:
            return signal.value
        return keras_internals.with_mask(lambda tensor: time_axis.repeat(tensor, self.timesteps), signal.value)

    def valid_rows(self) -> Tensor | None:
        return self.windows.rows()

    def mask(self, signal: Signal) -> Tensor | None:
        mask = super().mask(signal)
        return time_axis.repeat(mask, self.timesteps) if signal.static and mask is not None else mask

    def each(self, function: Callable[..., Any]) -> Structure:
        def joined(*steps):
            return keras_internals.with_mask(lambda *steps: time_axis.fold(ops.stack(steps, axis=1)), *steps)

        return tree.map_leaves(joined, *(function(t) for t in range(self.timesteps)))

    def at(self, signal: Signal, t: int) -> Tensor:
        if signal.static:
            return signal.value
        return keras_internals.with_mask(lambda tensor: time_axis.unfold(tensor, self.timesteps)[:, t], signal.value)

    def time_steps(self, args: Structure) -> int | Tensor:
        rows = ops.shape(tree.flatten(args)[0])[0]
        return ops.arange(rows, dtype="int32") % self.timesteps

    def scale(self, tensor: Tensor, by_sample: Tensor) -> Tensor:
        return time_axis.fold(time_axis.unfold(tensor, self.timesteps) * by_sample[:, None])

    def through_time(self, key: str, neuron_pass: NeuronPass, current: Signal) -> Tensor:
        if not current.static:
            self._checked(current.value)
        pass_key, record = (neuron_pass.quantity, key), self.record
        spikes, (record.states[pass_key], record.neurons[pass_key]) = _time_loop.run(
            neuron_pass, current, self.timesteps, self.windows.mask
        )
        self._passes[pass_key] = neuron_pass
        return spikes

    def mix(self, key: str, mixing_pass: NeuronPass, signal: Signal) -> Tensor:
        layer, steps = mixing_pass.cell, time_axis.unfold(self.only_valid(self.tensor(signal)), self.timesteps)
        return time_axis.cast(time_axis.fold(layer.over_time(steps)), mixing_pass.dtype)

    def average(self, field: Literal["statistics", "moments"], key: str, values: Structure) -> None:
        getattr(self.record, field)[key] = [values]

    def average_steps(self, field: Literal["outputs", "weights", "input_masks"], key: str, tensors: Structure) -> Structure:
        tree.map_leaves(self._checked, tensors)
        # If the compiler postponed the mean to the backward pass, all steps would stay in memory until then.
        means = tree.map_leaves(
            lambda tensor: self.windows.means_over_steps(tensor) if time_axis.is_float(tensor.dtype) else tensor,
            tensors,
        )
        after, getattr(self.record, field)[key] = backend.optimization_barrier((tensors, means))
        return tree.map_leaves(
            lambda tensor, before: keras_internals.put_mask(tensor, keras_internals.mask_of(before)), after, tensors
        )

    def run(self, rule: WalkRule, run: Run, is_last: bool = True) -> Structure:
        outputs = run.walk([self.begin(tensor, has_time) for tensor, has_time in run.inputs], rule)
        self._gather_masks(run, outputs)

        def output(signal):
            steps = rule.output(self.tensor(signal) if signal.static else self._checked(signal.value))
            if not run.return_sequences:
                return self.windows.mean_over_all(steps)
            return time_axis.unfold(self.only_valid(steps), self.timesteps)

        return self._outputs(tree.map_leaves(output, outputs), is_last)

    def _gathered_mask(self, run, so_far, mask):
        steps = time_axis.unfold(mask, self.timesteps)
        return steps if run.return_sequences else ops.any(steps, axis=1)

"""Streaming: runs a network one time step per call, with the state that it keeps between calls."""

from keras import ops

from keras_ratesnn._core import backend, time_axis, tree
from keras_ratesnn.gradients._propagate_nan import propagate_nan
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.record import Record
from keras_ratesnn.gradients.signals import Signal, only_signal
from keras_ratesnn.gradients.step_modes import MultiStep, SingleStep
from keras_ratesnn.layer_kinds import TIME_MEAN


class StreamingRule(ForwardRule):
    """One time step with external input: no signal is assumed to be the same at every step.

    Time means are those of the steps so far.

    Args:
        step_mode: `SingleStep`.
    """

    def __init__(self, step_mode):
        super().__init__(step_mode, training=False, with_gradient=False)
        self._steps = step_mode
        self._of_means = set()

    def __call__(self, call):
        follows_a_mean, is_mean = not self._of_means.isdisjoint(call.signals), call.kind.role == TIME_MEAN
        # The mean of a mean is that mean, not one of the means so far.
        outputs = self.time_mean(call) if is_mean and not follows_a_mean else super().__call__(call)
        if follows_a_mean or is_mean:
            self._of_means.update(tree.flatten(outputs))
        return outputs

    def time_mean(self, call):
        signal = only_signal(call)
        pass_key, value = (TIME_MEAN, call.key), time_axis.widen(signal.value)
        loops = self.step_mode.record.loops
        before = loops.get(pass_key) or self.before_first_step(value)
        after = loops[pass_key] = {"sum": before["sum"] + value, "steps": before["steps"] + 1.0}
        return Signal(ops.cast(after["sum"] / after["steps"], call.operation.output.dtype), signal.static)

    def before_first_step(self, value):
        """The state of a time mean of tensors like `value`."""
        return {"sum": ops.zeros_like(value), "steps": ops.zeros((), value.dtype)}

    def encoded(self, call):
        return only_signal(call).value

    def advance(self, walk, inputs, t, record):
        """One time step of a network.

        Args:
            walk: Function `(signals, rule) -> signals`, which runs the network's graph as in inference.
            inputs: List of tensors `(batch, ...)`, the network's inputs at this step.
            t: Integer, or integer scalar tensor: the time step, from 0 on.
            record: The `Record` returned by the previous step, an empty one before the first.

        Returns:
            `(record, outputs)`: the record for the next step, and tensors in the structure of the network's outputs.
        """
        with backend.no_gradient():
            signals = [Signal(tensor) for tensor in inputs]
            record, outputs = self._steps.walk_step(self, walk, lambda: signals, t, record)
            return record, propagate_nan(outputs, self._steps.states())


class SlotStreamingRule(StreamingRule):
    """One step of an unrolled network with external input: layer by layer, each with all slots of the step.

    Args:
        step_mode: `MultiStep`, of the slots of a step.
    """

    def neuron(self, call):
        record, neuron = self.step_mode.record, call.operation
        pass_key = NeuronPass.quantity, call.key
        before = record.loops.get(pass_key)
        neuron_pass = _ContinuedPass(neuron.cell_in_time(self.training), neuron.compute_dtype, before)
        spikes = self.step_mode.through_time(call.key, neuron_pass, only_signal(call))
        record.loops[pass_key] = record.states[pass_key]
        return Signal(spikes)

    def mixed(self, key, mixing_pass, signal):
        pass_key, loops = (mixing_pass.quantity, key), self.step_mode.record.loops
        slots = time_axis.unfold(self.step_mode.tensor(signal), self.step_mode.timesteps)
        state = loops[pass_key] if pass_key in loops else mixing_pass.start(slots)
        outputs, loops[pass_key] = mixing_pass.advance((), slots, state)
        return time_axis.fold(outputs)

    def advance(self, walk, inputs, t, record):
        steps = self.step_mode
        with backend.no_gradient():
            steps.record = record.copy()
            signals = walk([steps.begin(tensor, has_time=False) for tensor in inputs], self)
            # They are the same in all slots.
            outputs = tree.map_leaves(lambda signal: time_axis.unfold(steps.tensor(signal), steps.timesteps)[:, 0], signals)
            return steps.record, propagate_nan(outputs, list(steps.record.states.values()))


class _ContinuedPass(NeuronPass):
    """Neurons that start where an earlier loop ended.

    Args:
        cell: See `NeuronPass`.
        dtype: See `NeuronPass`.
        before: The loop state after the earlier loop; `None` if there was none.
    """

    compiles = False

    def __init__(self, cell, dtype, before):
        super().__init__(cell, dtype, with_gradient=False)
        self.before = before

    def start(self, current):
        return super().start(current) if self.before is None else self.before


class Stream:
    """The state of a sequence: membranes of all neurons, and the number of steps so far."""

    def __init__(self):
        self.reset()

    def reset(self):
        """Starts a new sequence."""
        self.steps = 0
        self.batch = None
        self.record = Record.empty()

    def advance(self, walk, inputs, timesteps, slots=1):
        """One time step.

        Args:
            walk: Function `(signals, rule) -> signals`, which runs the network's graph as in inference.
            inputs: List of tensors `(batch, ...)`, the network's inputs at this step.
            timesteps: Integer T, for encoders that spread an input over T steps.
            slots: Integer, how many time steps of the network are the slots of this step. Defaults to `1`.

        Returns:
            Tensors in the structure of the network's outputs.

        Raises:
            ValueError: If the batch size differs from that of previous steps.
        """
        batch = inputs[0].shape[0]
        if self.batch not in (None, batch):
            raise ValueError(
                f"The batch size must not change within a sequence. Received: inputs for {batch} sequences, after {self.steps} "
                f"steps with {self.batch}. Call reset_state() to start new sequences."
            )
        rule = StreamingRule(SingleStep(timesteps)) if slots == 1 else SlotStreamingRule(MultiStep(slots))
        self.record, outputs = rule.advance(walk, inputs, self.steps, self.record)
        self.batch = batch
        self.steps += 1
        return outputs

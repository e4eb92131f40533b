"""Streaming: runs a network one time step per call, with the state that it keeps between calls."""

from keras import ops

from keras_ratesnn._core import backend, time_axis, tree
from keras_ratesnn.gradients._propagate_nan import propagate_nan
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.record import Record
from keras_ratesnn.gradients.signals import Signal, only_signal
from keras_ratesnn.gradients.step_modes import SingleStep
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
        pass_key, value = (TIME_MEAN, call.key), time_axis.widen(only_signal(call).value)
        loops = self.step_mode.record.loops
        before = loops.get(pass_key) or self.before_first_step(value)
        after = loops[pass_key] = {"sum": before["sum"] + value, "steps": before["steps"] + 1.0}
        return Signal(ops.cast(after["sum"] / after["steps"], call.operation.output.dtype))

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


class Stream:
    """The state of a sequence: membranes of all neurons, and the number of steps so far."""

    def __init__(self):
        self.reset()

    def reset(self):
        """Starts a new sequence."""
        self.steps = 0
        self.batch = None
        self.record = Record.empty()

    def advance(self, walk, inputs, timesteps):
        """One time step.

        Args:
            walk: Function `(signals, rule) -> signals`, which runs the network's graph as in inference.
            inputs: List of tensors `(batch, ...)`, the network's inputs at this step.
            timesteps: Integer T, for encoders that spread an input over T steps.

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
        rule = StreamingRule(SingleStep(timesteps))
        self.record, outputs = rule.advance(walk, inputs, self.steps, self.record)
        self.batch = batch
        self.steps += 1
        return outputs

"""Single-step order: the loop over time is outside, and one step runs through the whole network.

Nothing of size T · batch is ever alive. What an operation must remember from step to step (membranes, traces, a dropout
mask, sums of statistics) is kept under its place in the walk, since a layer may stand in several places. Operations
whose inputs are the same at every step run once, at the first.

Batch normalisation takes the statistics of each step by itself, over batch and space, and updates its moving averages
once a step, as the authors' program does.
"""

from keras import ops

from keras_ratesnn._core import backend, time_axis, tree
from keras_ratesnn.gradients import _compiled_loop, _fused_pass, _normalization
from keras_ratesnn.gradients.base import (
    Rule,
    activity_loss,
    dropout_mask,
    propagate_nan,
    static_input,
    without_activity_loss,
)
from keras_ratesnn.gradients.signals import Signal, map_signals, only_signal, signals_in


class PlacedRule(Rule):
    """A rule that knows at which place of the walk it is.

    Args:
        timesteps: Integer T.
        constant: Dict from places to the signals of operations whose inputs are the same at every step.
        memory: Dict from places to structures of tensors: what the steps so far have left there.
    """

    def __init__(self, timesteps, constant, memory):
        super().__init__(timesteps, repeated=True)
        self.constant = constant
        self.memory = memory
        self.places = 0

    def next_place(self):
        """The place of the next operation of the walk; the order is the same in every walk of a network."""
        self.places += 1
        return str(self.places)


class StepRule(PlacedRule):
    """One time step of every operation, differentiated by autodiff as it stands: BPTT in single-step order.

    Args:
        timesteps: Integer T.
    """

    def __init__(self, timesteps):
        super().__init__(timesteps, constant={}, memory={})
        self.regularized = {}

    def begin_step(self, t, memory):
        """Starts the walk of time step `t`, with the memory that the last one left."""
        self.t = t
        self.memory = dict(memory)
        self.places = 0

    def begin(self, inputs, has_time):
        return Signal(inputs, static=False) if has_time else self.static_signal(inputs)

    def mean(self, signal):
        """The output of this step."""
        return signal.steps

    def neuron(self, operation, args, kwargs):
        place = self.next_place()
        current = only_signal(operation, args, kwargs).steps
        cell = operation.cell
        memory = self.memory[place] if place in self.memory else self.at_rest(cell, current)

        def advance(current, memory):
            membrane, spikes, state = cell.step(current, memory["state"])
            return ops.cast(spikes, operation.compute_dtype), self.remember(cell, memory, membrane, spikes, state)

        key = type(self).__name__, operation.compute_dtype
        spikes, self.memory[place] = self.evaluate(lambda: _fused_pass.call(advance, cell, key, current, memory))
        self.regularize(operation, spikes)
        return Signal(spikes, static=False)

    def states(self):
        """The states of all neurons."""
        return [left["state"] for left in self.memory.values() if isinstance(left, dict) and "state" in left]

    def encoder(self, operation, args, kwargs):
        place = self.next_place()
        inputs = self.encoded(operation, args, kwargs)
        spikes = self.evaluate(lambda: operation.spikes(inputs, self.t, self.timesteps))
        self.remember_outputs(place, spikes)
        return Signal(spikes, static=False)

    def batch_normalization(self, operation, args, kwargs):
        if not _normalization.is_normalizing(operation, kwargs):
            return self.affine(operation, args, kwargs)
        place = self.next_place()
        signal = only_signal(operation, args, kwargs)
        if not signal.static:
            outputs, *statistics = self.evaluate(lambda: _normalization.normalize(operation, signal.steps))
            self.remember_statistics(place, operation, *statistics)
            self.regularize(operation, outputs)
            return Signal(outputs, static=False)
        if place not in self.constant:
            outputs, *_ = _normalization.normalize(operation, self.static_tensor(signal), times=self.timesteps)
            self.constant[place] = self.static_signal(outputs)
        return self.constant[place]

    def dropout(self, operation, args, kwargs):
        signal = only_signal(operation, args, kwargs)
        if signal.static:
            return self.other(operation, args, kwargs)
        place = self.next_place()
        if place not in self.memory:
            self.memory[place] = dropout_mask(operation, signal.steps, kwargs)
        return Signal(signal.steps * self.memory[place], static=False)

    def affine(self, operation, args, kwargs):
        return self._operate(operation, args, kwargs, lambda place, outputs: None)

    def other(self, operation, args, kwargs):
        return self._operate(operation, args, kwargs, self.remember_outputs)

    def _operate(self, operation, args, kwargs, remember_outputs):
        place = self.next_place()
        if not all(signal.static for signal in signals_in(args, kwargs)):
            args, kwargs = map_signals(lambda signal: signal.steps, args, kwargs)
            with without_activity_loss(operation):
                outputs = self.evaluate(lambda: self.call(operation, args, kwargs))
            self.regularize(operation, outputs)
            remember_outputs(place, outputs)
            return tree.map_leaves(lambda output: Signal(output, static=False), outputs)
        if place not in self.constant:
            args, kwargs = map_signals(self.static_tensor, args, kwargs)
            self.constant[place] = tree.map_leaves(self.static_signal, self.call(operation, args, kwargs))
        return self.constant[place]

    # What a training method may want otherwise:

    def encoded(self, encoder, args, kwargs):
        """The tensor that an encoder makes spikes of."""
        return self.static_tensor(static_input(encoder, args, kwargs))

    def evaluate(self, function):
        """The tensors that `function()` computes of one step."""
        return function()

    def static_tensor(self, signal):
        """The tensor, with its gradient, of a signal that is the same at every step."""
        return signal.steps

    def static_signal(self, tensor):
        """The signal of a tensor that is the same at every step."""
        return Signal(tensor, static=True)

    def at_rest(self, cell, current):
        """What a neuron remembers before the first step."""
        return {"state": cell.initial_state(current)}

    def remember(self, cell, memory, membrane, spikes, state):
        """What a neuron remembers after a step."""
        return {"state": state}

    def remember_statistics(self, place, layer, mean, variance):
        """Called with the batch statistics of each step."""

    def remember_outputs(self, place, outputs):
        """Called with what each step of an operation that is not affine gave."""

    def regularize(self, operation, outputs):
        """Sums up the activity regularisation of every step, as part of the memory, which a loop can carry."""
        loss = activity_loss(operation, outputs)
        if loss is not None:
            noted = f"activity at {self.places}"
            self.memory[noted] = self.memory.get(noted, 0.0) + loss / self.timesteps
            self.regularized[noted] = operation

    def add_losses(self):
        for noted, layer in self.regularized.items():
            layer.add_loss(self.memory[noted])


def run_steps(rule, run, may_compile_loop):
    """Runs all time steps, one walk each.

    Args:
        rule: `StepRule`, new; after the call it holds what the last step left.
        run: `Run`.
        may_compile_loop: Boolean, whether a long sequence may be a loop of the compiler, whose results have no gradient.

    Returns:
        Tensors in the structure of the network's outputs: time means `(batch, ...)`, or all steps `(batch, T, ...)` if
        `run.return_sequences`.
    """
    timesteps = run.timesteps
    memory, outputs = step(rule, run.walk, _signals_at(rule, run, 0), 0, {})
    carried = memory, tree.map_leaves(lambda output: _gather(run, None, output, 0), outputs)

    def body(t, carried):
        memory, gathered = carried
        memory, outputs = step(rule, run.walk, _signals_at(rule, run, t), t, memory)
        return memory, tree.map_leaves(lambda so_far, output: _gather(run, so_far, output, t), gathered, outputs)

    if may_compile_loop and timesteps > backend.unrolled_network_steps():
        carried = _compiled_loop.run(body, carried, run.network.variables, 1, timesteps)
    else:
        for t in range(1, timesteps):
            carried = body(t, carried)

    rule.memory, gathered = carried
    if not run.return_sequences:
        gathered = tree.map_leaves(lambda total, output: ops.cast(total / timesteps, output.dtype), gathered, outputs)
    rule.add_losses()
    return propagate_nan(gathered, rule.states())


def step(rule, walk, signals, t, memory):
    """One walk.

    Args:
        rule: `StepRule`.
        walk: Function `(signals, rule) -> signals`, see `Run`.
        signals: List of signals, the network's inputs at this step.
        t: Integer, or integer scalar tensor: the time step, from 0 on.
        memory: What the last step returned; `{}` before the first.

    Returns:
        `(memory, outputs)`: what the next step is to be given, and tensors in the structure of the network's outputs.
    """
    rule.begin_step(t, memory)
    outputs = tree.map_leaves(rule.mean, walk(signals, rule))
    return rule.memory, outputs


def _signals_at(rule, run, t):
    return [rule.begin(ops.take(tensor, t, axis=1) if has_time else tensor, has_time) for tensor, has_time in run.inputs]


def _gather(run, so_far, output, t):
    """The sum of outputs so far, in float32 or wider; or the sequence of them, `(batch, T, ...)`."""
    if not run.return_sequences:
        output = time_axis.widen(output)
        return output if so_far is None else so_far + output
    if so_far is None:
        return ops.repeat(output[:, None], run.timesteps, axis=1)
    at_step = ops.reshape(ops.arange(run.timesteps) == t, (1, -1, *([1] * (len(output.shape) - 1))))
    return ops.where(at_step, output[:, None], so_far)

"""A layer of neurons through all time steps, without gradient: its spikes, and the traces of its eligibilities."""

import keras
from keras import ops

from keras_ratesnn import backend, time_axis
from keras_ratesnn.gradients import compiled_loop, eligibility


def run(cell, current, timesteps, dtype):
    """Runs a neuron cell through all time steps.

    Args:
        cell: A `NeuronCell`.
        current: `Signal` without gradient, the input current of every step.
        timesteps: Integer T.
        dtype: String, that of the spikes.

    Returns:
        `(spikes, state, traces)`: the spikes of all steps, folded; the cell's state after the last one; and the traces, see
        `eligibility`.
    """

    def advance(at_step, state, traces):
        membrane, spikes, state = cell.step(at_step, state)
        traces = eligibility.advance(cell, traces, membrane, spikes, state)
        return ops.cast(spikes, dtype), state, traces

    loop = _unrolled if timesteps <= backend.unrolled_steps(with_gradient=False) else _compiled
    steps, state, traces = loop(advance, cell, current, timesteps)
    traces = keras.tree.map_structure(lambda value: ops.stop_gradient(value) if ops.is_tensor(value) else value, traces)
    return ops.stop_gradient(time_axis.fold(steps)), state, traces


def _unrolled(advance, cell, current, timesteps):
    at_steps = current.each_step(timesteps)
    state, traces, steps = cell.initial_state(at_steps[0]), eligibility.start(cell), []
    for at_step in at_steps:
        spikes, state, traces = advance(at_step, state, traces)
        steps.append(spikes)
    return backend.together((ops.stack(steps, axis=1), state, traces))


def _compiled(advance, cell, current, timesteps):
    """The first step by itself, which tells shapes and dtypes, and the others in a loop."""
    by_step = None if current.static else time_axis.unfold(current.steps, timesteps)

    def current_at(t):
        return current.steps if current.static else _step_of(by_step, t)

    def body(t, carried):
        steps, state, traces = carried
        spikes, state, traces = advance(current_at(t), state, traces)
        return _with_step(steps, spikes, t), state, eligibility.as_tensors(traces)

    first = current_at(0)
    spikes, state, traces = advance(first, cell.initial_state(first), eligibility.start(cell))
    steps = _with_step(ops.zeros((spikes.shape[0], timesteps, *spikes.shape[1:]), spikes.dtype), spikes, 0)
    return compiled_loop.run(body, (steps, state, eligibility.as_tensors(traces)), cell.variables, 1, timesteps)


def _step_of(by_step, t):
    size = (by_step.shape[0], 1, *by_step.shape[2:])
    return ops.squeeze(ops.slice(by_step, _corner(by_step, t), size), axis=1)


def _with_step(steps, spikes, t):
    return ops.slice_update(steps, _corner(steps, t), spikes[:, None])


def _corner(by_step, t):
    return (0, t, *([0] * (len(by_step.shape) - 2)))

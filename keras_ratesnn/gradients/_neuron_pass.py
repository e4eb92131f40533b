"""A layer of neurons through all time steps: its spikes, and the traces of its eligibilities. It has no gradient."""

from keras import ops

from keras_ratesnn._core import backend, time_axis
from keras_ratesnn.gradients import _compiled_loop, _eligibility, _fused_pass


def run(cell, current, timesteps, dtype):
    """Runs a neuron cell through all time steps.

    Args:
        cell: A `NeuronCell`.
        current: `Signal` without gradient, the input current of every step.
        timesteps: Integer T.
        dtype: String, that of the spikes.

    Returns:
        `(spikes, state, means)`: the spikes of all steps, folded; the cell's state after the last one; and its firing rate with
        the derivatives, see `eligibility.means`.
    """

    def start(at_step):
        return cell.initial_state(at_step), _eligibility.start(cell)

    def advance(at_step, carried):
        state, traces = carried
        membrane, spikes, state = cell.step(at_step, state)
        traces = _eligibility.advance(cell, traces, membrane, spikes, state)
        # A pass for each step is compiled once for all of them if no number in it changes.
        traces = _eligibility.as_tensors(traces) if timesteps > _fused_pass.LONGEST else traces
        return ops.cast(spikes, dtype), (state, traces)

    def finish(carried):
        state, traces = carried
        return state, _eligibility.means(traces, timesteps)

    if timesteps <= backend.unrolled_steps(with_gradient=False):
        unrolled = _fused_pass.through_time(start, advance, finish, cell, ("rate", dtype), current, timesteps)
        steps, (state, means) = backend.optimization_barrier(unrolled)
    else:
        steps, (state, means) = _compiled(start, advance, finish, cell, current, timesteps)
    return time_axis.fold(steps), state, means


def _compiled(start, advance, finish, cell, current, timesteps):
    """The first step by itself, which tells shapes and dtypes, and the others in a loop."""
    by_step = None if current.static else time_axis.unfold(current.steps, timesteps)

    def current_at(t):
        return current.steps if current.static else _step_of(by_step, t)

    def body(t, looped):
        steps, carried = looped
        spikes, (state, traces) = advance(current_at(t), carried)
        return _with_step(steps, spikes, t), (state, _eligibility.as_tensors(traces))

    first = current_at(0)
    spikes, (state, traces) = advance(first, start(first))
    steps = _with_step(ops.zeros((spikes.shape[0], timesteps, *spikes.shape[1:]), spikes.dtype), spikes, 0)
    looped = steps, (state, _eligibility.as_tensors(traces))
    steps, carried = _compiled_loop.run(body, looped, cell.variables, 1, timesteps)
    return steps, finish(carried)


def _step_of(by_step, t):
    size = (by_step.shape[0], 1, *by_step.shape[2:])
    return ops.squeeze(ops.slice(by_step, _corner(by_step, t), size), axis=1)


def _with_step(steps, spikes, t):
    return ops.slice_update(steps, _corner(steps, t), spikes[:, None])


def _corner(by_step, t):
    return (0, t, *([0] * (len(by_step.shape) - 2)))

"""The loop of a neuron layer over time."""

from keras import ops

from keras_ratesnn._core import backend, time_axis
from keras_ratesnn.gradients import _compiled_loop
from keras_ratesnn.gradients._padded_pass import padded


def step(neuron_pass, current, carried, t):
    """One step of a neuron layer: `(spikes, carried)`."""
    return _elementwise(neuron_pass, neuron_pass.advance, (), neuron_pass.phase(t), current, carried)


def _elementwise(neuron_pass, function, key, *arguments):
    if not neuron_pass.compiles:
        return function(*arguments)
    return backend.elementwise(function, neuron_pass.cell, (*neuron_pass.key, *key), *arguments)


def run(neuron_pass, current, same, timesteps, mask=None):
    """Runs a neuron layer over all time steps.

    Args:
        neuron_pass: `NeuronPass`.
        current: Tensor `(batch * T, ...)`, the input current at all steps; `(batch, ...)` if it is the `same` at each.
        same: Boolean.
        timesteps: Integer T.
        mask: Boolean tensor `(batch, T)`, or of more of the first axes of the current at each step, false for what is padding
            or masked. Defaults to `None`: all steps count.

    Returns:
        `(spikes, finished)`: the spikes of all steps, `(batch * T, ...)`, and the result of `finish`.
    """
    if neuron_pass.parallel:
        spikes, finished = _at_once(neuron_pass, current, same, timesteps, mask)
    elif timesteps <= backend.unrolled_steps(neuron_pass.with_gradient):
        spikes, finished = _unrolled(neuron_pass, current, same, timesteps, mask)
    elif neuron_pass.with_gradient:
        spikes, finished = _scanned(_padded(neuron_pass, mask), current, same, timesteps)
    else:
        spikes, finished = _looped(_padded(neuron_pass, mask), current, same, timesteps)
    return time_axis.fold(spikes), finished


def _padded(neuron_pass, mask):
    return padded(neuron_pass, None if mask is None else lambda t: time_axis.step_of(mask, t))


def _at_once(neuron_pass, current, same, timesteps, mask):
    steps = time_axis.repeat(current, timesteps) if same else current
    spikes, finished = neuron_pass.all_steps(time_axis.zero_unless(mask, time_axis.unfold(steps, timesteps)), mask)
    spikes = time_axis.zero_unless(mask, spikes)
    return (spikes, finished) if neuron_pass.with_gradient else backend.optimization_barrier((spikes, finished))


def _unrolled(neuron_pass, current, same, timesteps, mask):
    steps = current if same else time_axis.unfold(current, timesteps)

    # No indexing: its gradient would be a tensor of all steps, for every step.
    def at_each_step(steps):
        return [steps] * timesteps if same else ops.unstack(steps, timesteps, axis=1)

    in_a_pass = backend.steps_in_a_pass(timesteps, neuron_pass.with_gradient)

    # A compiled function is given all of its tensors.
    def whole(steps, mask):
        of_steps, currents = _padded(neuron_pass, mask), at_each_step(steps)
        spikes, carried = _several(of_steps, map(of_steps.phase, range(timesteps)), currents, of_steps.start(currents[0]))
        return ops.stack(spikes, axis=1), of_steps.finish(carried)

    if timesteps <= in_a_pass:
        spikes, finished = _elementwise(neuron_pass, whole, (timesteps, same), steps, mask)
    else:
        neuron_pass, currents, spikes = _padded(neuron_pass, mask), at_each_step(steps), []
        carried = neuron_pass.start(currents[0])

        # It is compiled only once if no number in it changes.
        def one_pass(*arguments):
            spikes, carried = _several(neuron_pass, *arguments)
            return spikes, neuron_pass.as_tensors(carried)

        for first in range(0, timesteps, in_a_pass):
            part = slice(first, first + in_a_pass)
            phases = [neuron_pass.phase(t) for t in range(timesteps)[part]]
            of_part, carried = _elementwise(neuron_pass, one_pass, ("steps",), phases, currents[part], carried)
            spikes += of_part
        spikes, finished = ops.stack(spikes, axis=1), neuron_pass.finish(carried)
    return (spikes, finished) if neuron_pass.with_gradient else backend.optimization_barrier((spikes, finished))


def _several(neuron_pass, phases, currents, carried):
    """Steps one after the other: `(spikes, carried)`, a list and the state after the last one."""
    spikes = []
    for phase, current in zip(phases, currents, strict=True):
        at_this_step, carried = neuron_pass.advance(phase, current, carried)
        spikes.append(at_this_step)
    return spikes, carried


def _scanned(neuron_pass, current, same, timesteps):
    """A compiled loop, with gradient."""
    steps = time_axis.repeat(current, timesteps) if same else current
    at_steps = ops.moveaxis(time_axis.unfold(steps, timesteps), 1, 0)
    start = neuron_pass.as_tensors(neuron_pass.start(at_steps[0]))

    def body(state, at_step):
        t, carried = state
        spikes, carried = neuron_pass.advance(neuron_pass.phase(t), at_step, carried)
        return (t + 1, neuron_pass.as_tensors(carried)), spikes

    start = ops.zeros((), "int32"), start
    (_, carried), spikes = _compiled_loop.scan(body, start, at_steps, neuron_pass.cell.variables, neuron_pass.dtype)
    return ops.moveaxis(spikes, 0, 1), neuron_pass.finish(carried)


def _looped(neuron_pass, current, same, timesteps):
    """A compiled loop, without gradient. The first step runs before the loop, to determine shapes and dtypes."""
    by_step = None if same else time_axis.unfold(current, timesteps)

    def current_at(t):
        return current if same else _step_of(by_step, t)

    def body(t, looped):
        steps, carried = looped
        spikes, carried = neuron_pass.advance(neuron_pass.phase(t), current_at(t), carried)
        return _with_step(steps, spikes, t), neuron_pass.as_tensors(carried)

    first = current_at(0)
    spikes, carried = neuron_pass.advance(neuron_pass.phase(0), first, neuron_pass.start(first))
    batch, *shape = ops.shape(spikes)
    steps = _with_step(ops.zeros((batch, timesteps, *shape), spikes.dtype), spikes, 0)
    looped = steps, neuron_pass.as_tensors(carried)
    steps, carried = _compiled_loop.run(body, looped, neuron_pass.cell.variables, 1, timesteps)
    return steps, neuron_pass.finish(carried)


def _step_of(by_step, t):
    batch, _, *shape = ops.shape(by_step)
    return ops.squeeze(ops.slice(by_step, _corner(by_step, t), (batch, 1, *shape)), axis=1)


def _with_step(steps, spikes, t):
    return ops.slice_update(steps, _corner(steps, t), spikes[:, None])


def _corner(by_step, t):
    return (0, t, *([0] * (len(by_step.shape) - 2)))

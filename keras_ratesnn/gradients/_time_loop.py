"""The loop of a neuron layer over time."""

from keras import ops

from keras_ratesnn._core import backend, time_axis
from keras_ratesnn.gradients import _compiled_loop
from keras_ratesnn.gradients._padded_pass import padded

LONGEST_PASS = 16
"""Up to this T a whole time loop is compiled into one pass over memory. A longer loop is one pass per step, to limit compile
time."""


def step(neuron_pass, current, carried, t):
    """One step of a neuron layer: `(spikes, carried)`."""
    return _elementwise(neuron_pass, neuron_pass.advance, (), neuron_pass.phase(t), current, carried)


def _elementwise(neuron_pass, function, key, *arguments):
    if not neuron_pass.compiles:
        return function(*arguments)
    return backend.elementwise(function, neuron_pass.cell, (*neuron_pass.key, *key), *arguments)


def run(neuron_pass, current, timesteps, mask=None):
    """Runs a neuron layer over all time steps.

    Args:
        neuron_pass: `NeuronPass`.
        current: `Signal`, the input current, in multi-step mode.
        timesteps: Integer T.
        mask: Boolean tensor `(batch, T)`, false for padding. Defaults to `None`: there is none.

    Returns:
        `(spikes, finished)`: the spikes of all steps, `(batch * T, ...)`, and the result of `finish`.
    """
    if neuron_pass.parallel:
        spikes, finished = _at_once(neuron_pass, current, timesteps, mask)
    elif timesteps <= backend.unrolled_steps(neuron_pass.with_gradient):
        spikes, finished = _unrolled(neuron_pass, current, timesteps, mask)
    elif neuron_pass.with_gradient:
        spikes, finished = _scanned(padded(neuron_pass, mask), current, timesteps)
    else:
        spikes, finished = _looped(padded(neuron_pass, mask), current, timesteps)
    return time_axis.fold(spikes), finished


def _at_once(neuron_pass, current, timesteps, mask):
    steps = time_axis.repeat(current.value, timesteps) if current.static else current.value
    rows = None if mask is None else ops.reshape(mask, (-1,))

    def unless_padding(steps):
        return time_axis.unfold(time_axis.zero_unless(rows, steps), timesteps)

    spikes, finished = neuron_pass.all_steps(unless_padding(steps))
    spikes = unless_padding(time_axis.fold(spikes))
    return (spikes, finished) if neuron_pass.with_gradient else backend.optimization_barrier((spikes, finished))


def _unrolled(neuron_pass, current, timesteps, mask):
    steps = current.value if current.static else time_axis.unfold(current.value, timesteps)

    # No indexing: its gradient would be a tensor of all steps, for every step.
    def at_each_step(steps):
        return [steps] * timesteps if current.static else ops.unstack(steps, timesteps, axis=1)

    # A compiled function is given all of its tensors.
    def whole(steps, mask):
        of_steps = padded(neuron_pass, mask)
        return _through(of_steps, of_steps.advance, at_each_step(steps))

    if timesteps <= LONGEST_PASS:
        spikes, finished = _elementwise(neuron_pass, whole, (timesteps, current.static), steps, mask)
    else:
        neuron_pass = padded(neuron_pass, mask)

        # One pass per step; it is compiled only once if no number in it changes.
        def advance(*arguments):
            spikes, carried = _elementwise(neuron_pass, neuron_pass.advance, ("step",), *arguments)
            return spikes, neuron_pass.as_tensors(carried)

        spikes, finished = _through(neuron_pass, advance, at_each_step(steps))
    return (spikes, finished) if neuron_pass.with_gradient else backend.optimization_barrier((spikes, finished))


def _through(neuron_pass, advance, at_each_step):
    carried, spikes = neuron_pass.start(at_each_step[0]), []
    for t, current in enumerate(at_each_step):
        at_this_step, carried = advance(neuron_pass.phase(t), current, carried)
        spikes.append(at_this_step)
    return ops.stack(spikes, axis=1), neuron_pass.finish(carried)


def _scanned(neuron_pass, current, timesteps):
    """A compiled loop, with gradient."""
    steps = time_axis.repeat(current.value, timesteps) if current.static else current.value
    at_steps = ops.moveaxis(time_axis.unfold(steps, timesteps), 1, 0)
    start = neuron_pass.as_tensors(neuron_pass.start(at_steps[0]))

    def body(state, at_step):
        t, carried = state
        spikes, carried = neuron_pass.advance(neuron_pass.phase(t), at_step, carried)
        return (t + 1, neuron_pass.as_tensors(carried)), spikes

    start = ops.zeros((), "int32"), start
    (_, carried), spikes = _compiled_loop.scan(body, start, at_steps, neuron_pass.cell.variables, neuron_pass.dtype)
    return ops.moveaxis(spikes, 0, 1), neuron_pass.finish(carried)


def _looped(neuron_pass, current, timesteps):
    """A compiled loop, without gradient. The first step runs before the loop, to determine shapes and dtypes."""
    by_step = None if current.static else time_axis.unfold(current.value, timesteps)

    def current_at(t):
        return current.value if current.static else _step_of(by_step, t)

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

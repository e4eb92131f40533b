"""Loops over time steps: of a handler, and those that the backend compiles once, for
any T.

Inside a compiled loop, variables are read from the loop state: random seeds and moving
statistics change from step to step, and can be assigned only after the loop.
"""

import itertools

from keras import ops

from keras_ratesnn._core import checks, keras_internals, time_axis, tree
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.backend.base import TimeLoop


def step(handler, state, inputs, t, valid):
    """One step of a `LoopedHandler`: `(state, outputs)`.

    Args:
        handler: `LoopedHandler`.
        state: Its state.
        inputs: List of tensors `(batch, ...)`.
        t: Integer, or integer scalar tensor.
        valid: Boolean tensor `(batch,)`, or of more of the first axes of the inputs,
            false for what is padding or masked; `None` if all rows count.
    """
    state, (outputs,) = _steps_in_one_pass(handler, state, [t], [inputs], [valid])
    return state, outputs


def all_steps(handler, state, inputs, same, valid):
    """All steps of a `LoopedHandler`: `(state, outputs)`, with
    `handler.summarize(state)` and outputs `(batch * T, ...)`.

    Args:
        handler: `LoopedHandler`.
        state: The state before the first step; `()` for that of `handler.start`.
        inputs: List of tensors `(batch * T, ...)`, or `(batch, ...)` where they are the
            same at every step.
        same: For each input, whether it is.
        valid: As in `step`, with a second axis for T.
    """
    timesteps = handler.windows.timesteps
    with_gradient = handler.context.with_gradient
    inputs = [
        x if is_same else time_axis.unfold(x, timesteps)
        for x, is_same in zip(inputs, same, strict=True)
    ]
    results = None
    if tree.is_absent(state) and handler.fuses:
        results = _in_time_loop(handler, inputs, same, valid)
    if results is not None:
        state, outputs = results
    elif handler.parallel:
        state, outputs = _at_once(handler, inputs[0], same[0], valid)
    elif (
        timesteps <= engine.unrolled_steps(with_gradient)
        or handler.loop_variables is None
    ):
        state, outputs = _unrolled(handler, state, inputs, same, valid)
    else:
        loop = _scanned if with_gradient else _looped
        state, outputs = loop(handler, state, inputs[0], same[0], valid)
    return state, list(map(time_axis.fold, outputs))


def _at_once(handler, x, same, valid):
    timesteps = handler.windows.timesteps
    x = time_axis.unfold(time_axis.repeat(x, timesteps), timesteps) if same else x
    state, output = handler.at_once(time_axis.zero_unless(valid, x), valid)
    return _behind_barrier(handler, state, [time_axis.zero_unless(valid, output)])


def _behind_barrier(handler, state, outputs):
    """`(state, outputs)` of all steps. Without gradient, what follows must not become a
    part of their loop."""
    if handler.context.with_gradient or handler.waits_as_bytes:
        return state, outputs
    return engine.optimization_barrier((state, outputs))


def _unrolled(handler, state, inputs, same, valid):
    timesteps = handler.windows.timesteps

    # No indexing: its gradient would be a tensor of all steps, for every step.
    def at_each_step(inputs, valid):
        by_input = [
            [x] * timesteps if is_same else ops.unstack(x, timesteps, axis=1)
            for x, is_same in zip(inputs, same, strict=True)
        ]
        by_step = list(map(list, zip(*by_input, strict=True)))
        return by_step, [_valid_at(valid, t) for t in range(timesteps)]

    def stacked(outputs):
        return [ops.stack(steps, axis=1) for steps in zip(*outputs, strict=True)]

    def summarized(after, outputs):
        state = handler.summarize(after)
        if not handler.waits_as_bytes:
            return state, stacked(outputs)
        counts = tree.map_leaves(lambda spikes: ops.cast(spikes, "uint8"), outputs)
        state, counts = engine.optimization_barrier((state, counts))
        return state, [ops.cast(steps, handler.dtype) for steps in stacked(counts)]

    # A compiled function is given all of its tensors.
    def whole(inputs, valid):
        inputs, valid = at_each_step(inputs, valid)
        after, outputs = _steps_in_turn(
            handler,
            _given_or_initial(handler, state, inputs[0]),
            _phases(handler, inputs, valid),
            inputs,
            valid,
        )
        return summarized(after, outputs)

    in_a_pass = engine.steps_in_a_pass(timesteps, handler.context.with_gradient)
    if not tree.is_absent(state):
        return _behind_barrier(handler, *whole(inputs, valid))
    if timesteps <= in_a_pass:
        key = timesteps, *same
        return _behind_barrier(
            handler, *_elementwise(handler, whole, key, inputs, valid)
        )
    inputs, valid = at_each_step(inputs, valid)
    state = _given_or_initial(handler, state, inputs[0])
    outputs = []
    for first in range(0, timesteps, in_a_pass):
        part = slice(first, first + in_a_pass)
        steps = range(timesteps)[part]
        state, new = _steps_in_one_pass(
            handler, state, steps, inputs[part], valid[part]
        )
        outputs += new
    return _behind_barrier(handler, handler.summarize(state), stacked(outputs))


def _in_time_loop(handler, inputs, same, valid):
    """`(state, outputs)` of all steps by a time loop of the backend, or `None`."""
    if valid is not None and (handler.moves_in_padding or len(valid.shape) > 2):
        return None

    def step_of(phase):
        def step(state, inputs, valid):
            state, (outputs,) = _steps_in_turn(
                handler, state, [phase], [inputs], [valid]
            )
            return handler.as_tensors(state), outputs

        return step

    phases, counts = [], []
    by_step = map(handler.phase, range(handler.windows.timesteps))
    for phase, steps in itertools.groupby(by_step):
        phases.append(phase)
        counts.append(len(list(steps)))
    return engine.time_loop(
        TimeLoop(
            cell=handler.cell,
            key=(*handler.key, tuple(phases)),
            begin=handler.start,
            steps=list(map(step_of, phases)),
            counts=counts,
            summarize=handler.summarize,
            inputs=inputs,
            same=same,
            valid=valid,
        )
    )


def _steps_in_one_pass(handler, state, steps, inputs, valid):
    """Some steps in one pass over memory: `(state, outputs)`, a list of outputs for
    each step."""

    # It is compiled only once if no number in it changes.
    def one_pass(*arguments):
        state, outputs = _steps_in_turn(handler, *arguments)
        return handler.as_tensors(state), outputs

    phases = _phases(handler, inputs, valid, steps)
    return _elementwise(handler, one_pass, (), state, phases, inputs, valid)


def _elementwise(handler, function, key, *arguments):
    if not handler.fuses:
        return function(*arguments)
    return engine.elementwise(function, handler.cell, (*handler.key, *key), *arguments)


def _phases(handler, inputs, valid, steps=None):
    steps = range(len(inputs)) if steps is None else steps
    return [
        _phase(handler, t, now, valid_now)
        for t, now, valid_now in zip(steps, inputs, valid, strict=True)
    ]


def _phase(handler, t, inputs, valid):
    moves = valid is not None and handler.moves_in_padding
    return handler.phase(t, time_axis.as_rows(valid, inputs[0]) if moves else None)


def _steps_in_turn(handler, state, phases, inputs, valid):
    """Steps one after the other: `(state, outputs)`, a list of outputs for each
    step."""
    outputs = []
    for phase, now, counts in zip(phases, inputs, valid, strict=True):
        state, new = _advance(handler, state, now, phase, counts)
        outputs.append(new)
    return state, outputs


def _advance(handler, state, inputs, phase, valid):
    """One step. Rows that do not count wait, or are given zeros if they move in
    padding; their outputs are 0."""
    between = handler.context.between
    state = state if between is None else between(state)
    if valid is None:
        return _advanced(handler, state, inputs, phase)
    if handler.moves_in_padding:
        inputs = [time_axis.zero_unless(valid, x) for x in inputs]
    after, outputs = _advanced(handler, state, inputs, phase)
    outputs = [time_axis.zero_unless(valid, output) for output in outputs]
    after = handler.as_tensors(after)
    if handler.moves_in_padding:
        return _not_shared(handler, after, inputs[0], valid), outputs

    def waiting(new, old):
        if new is old:
            # With many windows, most traces are of others than that of this step.
            return new
        like = new if ops.is_tensor(new) and len(new.shape) else inputs[0]
        return ops.where(time_axis.as_rows(valid, like), new, old)

    return tree.map_leaves(waiting, after, handler.at_padding(state)), outputs


def _advanced(handler, state, inputs, phase):
    """`handler.advance`; raises TypeError unless a loop can carry its state, and its
    outputs are a list."""
    if handler.begins_incomplete:
        return handler.advance(state, inputs, phase)
    name = owner = type(handler).__name__
    if hasattr(handler, "cell"):
        owner = f"{name} for {type(handler.cell).__name__}"
    numbers = [leaf for leaf in tree.flatten(state) if not ops.is_tensor(leaf)]
    if numbers:
        raise TypeError(
            f"The state of {owner} must consist of tensors, with the batch as their "
            f"first axis. Received: {numbers[0]!r}. Return tensors from `start`, for "
            "example ops.full_like(inputs[0], 0.2)."
        )
    result = handler.advance(state, inputs, phase)
    is_pair = isinstance(result, tuple) and len(result) == 2
    if not is_pair or not isinstance(result[1], list):
        raise TypeError(
            f"{name}.advance must return `(state, outputs)`, outputs as a list of "
            f"tensors. Received: {_shapes(result)}. Return (state, [output]) for one "
            "output."
        )
    if not _are_alike(result[0], state):
        raise TypeError(
            f"The state of {owner} must keep its structure, shapes and dtypes, so that "
            f"a loop can carry it. Received: {_shapes(result[0])} after "
            f"{_shapes(state)}. Give the tensors of `start` (of a cell: "
            "`initial_state`) the shapes and dtypes of those that `advance` (`step`) "
            "returns."
        )
    return result


def _shapes(structure):
    return tree.map_leaves(
        lambda leaf: tuple(leaf.shape) if ops.is_tensor(leaf) else leaf, structure
    )


def _are_alike(new, old):
    """Whether a structure has tensors of the same shapes and dtypes as another one. The
    order of a dict's keys does not matter: JAX sorts them in loops."""
    if isinstance(old, dict):
        return (
            isinstance(new, dict)
            and new.keys() == old.keys()
            and all(_are_alike(new[name], old[name]) for name in old)
        )
    if isinstance(old, (list, tuple)):
        return (
            isinstance(new, (list, tuple))
            and len(new) == len(old)
            and all(map(_are_alike, new, old))
        )
    return (
        ops.is_tensor(new)
        and new.dtype == old.dtype
        and checks.fits(new.shape, old.shape)
    )


def _not_shared(handler, state, like, valid):
    """The state, where what neurons share differs once steps do not count for some of
    them; a number of steps that counts all of them does not."""
    shape = ops.shape(time_axis.as_rows(valid, like))

    def not_shared(leaf):
        if not ops.is_tensor(leaf) or len(leaf.shape):
            return leaf
        if handler.moves_in_padding and not time_axis.is_float(leaf.dtype):
            return leaf
        return ops.broadcast_to(leaf, shape)

    return tree.map_leaves(not_shared, state)


def _given_or_initial(handler, state, inputs):
    return handler.start(inputs) if tree.is_absent(state) else state


def _valid_at(valid, t):
    return None if valid is None else time_axis.step_of(valid, t)


def _advance_at(handler, state, t, x, valid):
    valid = _valid_at(valid, t)
    state, (output,) = _advance(
        handler, state, [x], _phase(handler, t, [x], valid), valid
    )
    return state, output


def _scanned(handler, state, x, same, valid):
    """A compiled loop, with gradient."""
    timesteps = handler.windows.timesteps
    if same:
        x = time_axis.unfold(time_axis.repeat(x, timesteps), timesteps)
    at_steps = ops.moveaxis(x, 1, 0)
    state = handler.as_tensors(_given_or_initial(handler, state, [at_steps[0]]))
    if valid is not None:
        state = _not_shared(handler, state, at_steps[0], valid[:, 0])

    def body(carried, at_step):
        t, state = carried
        state, output = _advance_at(handler, state, t, at_step, valid)
        return (t + 1, handler.as_tensors(state)), output

    carried = ops.zeros((), "int32"), state
    (_, state), steps = scan(
        body, carried, at_steps, handler.loop_variables, handler.dtype
    )
    return handler.summarize(state), [ops.moveaxis(steps, 0, 1)]


def _looped(handler, state, x, same, valid):
    """A compiled loop, without gradient. The first step runs before the loop, to
    determine shapes and dtypes."""
    timesteps = handler.windows.timesteps

    def body(t, carried):
        steps, state = carried
        now = x if same else time_axis.step_in_place(x, t)
        state, output = _advance_at(handler, state, t, now, valid)
        steps = time_axis.with_step_in_place(steps, output, t)
        return steps, handler.as_tensors(state)

    first = x if same else time_axis.step_of(x, 0)
    state = _given_or_initial(handler, state, [first])
    state, output = _advance_at(handler, state, 0, first, valid)
    steps = time_axis.with_step(None, output, 0, timesteps)
    carried = steps, handler.as_tensors(state)
    steps, state = run(body, carried, handler.loop_variables, timesteps)
    return handler.summarize(state), [steps]


def run(body, carried, variables, timesteps):
    """`carried = body(t, carried)` for t from 1 to T - 1, compiled. Neither the results
    nor the weights have a gradient.

    Args:
        body: Function `(t, carried) -> carried`; t is an integer scalar tensor.
        carried: Structure of tensors, or of numbers, whose shapes and dtypes do not
            change: that after step 0.
        variables: List of all Keras variables that `body` reads.
        timesteps: Integer T.
    """
    values = [
        ops.stop_gradient(value) for value in keras_internals.values_of(variables)
    ]
    changing = changing_of(variables)
    carried = tree.map_leaves(
        lambda tensor: ops.stop_gradient(ops.convert_to_tensor(tensor)), carried
    )

    def scoped_body(t, state):
        carried, changed = state
        return in_scope(lambda: body(t, carried), variables, values, changing, changed)

    state = carried, [values[index] for index in changing]
    after = ops.fori_loop(1, timesteps, scoped_body, state)
    # TensorFlow would differentiate the loop for each result that is multiplied by a
    # rate, which XLA cannot.
    carried, changed = tree.map_leaves(ops.stop_gradient, after)
    _assign(variables, changing, changed)
    return carried


def scan(body, carried, steps, variables, dtype):
    """`carried, output = body(carried, step)` for each step, compiled, with gradient.

    Args:
        body: Function `(carried, step) -> (carried, output)`, of tensors.
        carried: Structure of tensors whose shapes and dtypes do not change.
        steps: Tensor `(T, ...)`.
        variables: List of all Keras variables that `body` reads.
        dtype: String, that of the outputs.

    Returns:
        `(carried, outputs)`: the state after the last step, and the tensor `(T, ...)`
        of all outputs.
    """
    values, changing = keras_internals.values_of(variables), changing_of(variables)

    def scoped_body(state, step):
        carried, changed = state
        (carried, output), changed = in_scope(
            lambda: body(carried, step), variables, values, changing, changed
        )
        return (carried, changed), output

    state = carried, [values[index] for index in changing]
    (carried, changed), outputs = engine.scan(scoped_body, state, steps, dtype)
    _assign(variables, changing, changed)
    return carried, outputs


def changing_of(variables):
    """The indices of the variables that a step may assign."""
    return [index for index, variable in enumerate(variables) if not variable.trainable]


def in_scope(function, variables, values, changing, changed):
    """`(function(), changed)`, evaluated with the given values of variables; those of
    `changing` have the values `changed`."""
    inside = list(values)
    for index, value in zip(changing, changed, strict=True):
        inside[index] = value
    with keras_internals.Closed(
        zip(variables, inside, strict=True), engine.assigned_weight
    ) as scope:
        result = function()
    return result, [scope.get_current_value(variables[index]) for index in changing]


def _assign(variables, changing, changed):
    for index, value in zip(changing, changed, strict=True):
        variables[index].assign(value)

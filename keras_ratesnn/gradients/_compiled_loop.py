"""Loops over time that the backend compiles once, for any T.

Inside a loop, variables are read from the loop state: random seeds and moving statistics change from step to step, and can be
assigned only after the loop.
"""

from keras import ops

from keras_ratesnn._core import backend, keras_internals, tree


def run(body, carried, variables, start, stop):
    """`carried = body(t, carried)` for t from `start` to `stop - 1`. Neither the results nor the weights have a gradient.

    Args:
        body: Function `(t, carried) -> carried`; t is an integer scalar tensor.
        carried: Structure of tensors, or of numbers, whose shapes and dtypes do not change.
        variables: List of all Keras variables that `body` reads.
        start: Integer.
        stop: Integer.
    """
    values = [ops.stop_gradient(value) for value in keras_internals.values_of(variables)]
    changing = changing_of(variables)
    carried = tree.map_leaves(lambda tensor: ops.stop_gradient(ops.convert_to_tensor(tensor)), carried)

    def scoped_body(t, state):
        carried, changed = state
        return in_scope(lambda: body(t, carried), variables, values, changing, changed)

    after = ops.fori_loop(start, stop, scoped_body, (carried, [values[index] for index in changing]))
    # TensorFlow would differentiate the loop for each result that is multiplied by a rate, which XLA cannot.
    carried, changed = tree.map_leaves(ops.stop_gradient, after)
    _assign(variables, changing, changed)
    return carried


def scan(body, carried, steps, variables, dtype):
    """`carried, output = body(carried, step)` for each step, with gradient.

    Args:
        body: Function `(carried, step) -> (carried, output)`, of tensors.
        carried: Structure of tensors whose shapes and dtypes do not change.
        steps: Tensor `(T, ...)`.
        variables: List of all Keras variables that `body` reads.
        dtype: String, that of the outputs.

    Returns:
        `(carried, outputs)`: the state after the last step, and the tensor `(T, ...)` of all outputs.
    """
    values, changing = keras_internals.values_of(variables), changing_of(variables)

    def scoped_body(state, step):
        carried, changed = state
        (carried, output), changed = in_scope(lambda: body(carried, step), variables, values, changing, changed)
        return (carried, changed), output

    (carried, changed), outputs = backend.scan(scoped_body, (carried, [values[index] for index in changing]), steps, dtype)
    _assign(variables, changing, changed)
    return carried, outputs


def changing_of(variables):
    """The indices of the variables that a step may assign."""
    return [index for index, variable in enumerate(variables) if not variable.trainable]


def in_scope(function, variables, values, changing, changed):
    """`(function(), changed)`, evaluated with the given values of variables; those of `changing` have the values `changed`."""
    inside = list(values)
    for index, value in zip(changing, changed, strict=True):
        inside[index] = value
    with keras_internals.Replaced(zip(variables, inside, strict=True), backend.assigned_weight) as scope:
        result = function()
    return result, [scope.get_current_value(variables[index]) for index in changing]


def _assign(variables, changing, changed):
    for index, value in zip(changing, changed, strict=True):
        variables[index].assign(value)

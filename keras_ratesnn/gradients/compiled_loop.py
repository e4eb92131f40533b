"""A loop over time that the backend compiles once, whatever T is. Its results have no gradient."""

import keras
from keras import ops

from keras_ratesnn import keras_internals


def run(body, carried, variables, start, stop):
    """`carried = body(t, carried)` for t from `start` to `stop - 1`.

    Inside, variables are read from the loop's own state: random seeds and moving statistics change from step to step, and
    can be assigned only after the loop. Weights have no gradient there.

    Args:
        body: Function `(t, carried) -> carried`; t is an integer scalar tensor.
        carried: Structure of tensors, or of numbers, whose shapes and dtypes do not change.
        variables: List of all Keras variables that `body` reads.
        start: Integer.
        stop: Integer.
    """
    with keras_internals.without_autocast():
        values = [ops.stop_gradient(ops.convert_to_tensor(variable)) for variable in variables]
    changing = [index for index, variable in enumerate(variables) if not variable.trainable]
    carried = keras.tree.map_structure(lambda tensor: ops.stop_gradient(ops.convert_to_tensor(tensor)), carried)

    def scoped_body(t, state):
        carried, changed = state
        inside = list(values)
        for index, value in zip(changing, changed, strict=True):
            inside[index] = value
        with keras.StatelessScope(list(zip(variables, inside, strict=True))) as scope:
            carried = body(t, carried)
        return carried, [scope.get_current_value(variables[index]) for index in changing]

    carried, changed = ops.fori_loop(start, stop, scoped_body, (carried, [values[index] for index in changing]))
    for index, value in zip(changing, changed, strict=True):
        variables[index].assign(value)
    return carried

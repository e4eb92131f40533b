r"""The derivative of a cell's step, with which the rate gradient goes forward in time.

A cell has a state x_t and a step (s_t, x_t) = f(I_t, x_{t−1}; w). For a constant shift
c of the input, ẋ_t = ∂x_t/∂c, ẋ_0 = 0:

    (ṡ_t, ẋ_t) = Df(I_t, x_{t−1}; w) · (1, ẋ_{t−1}, 0)   g = ∂r/∂c = (1/T) Σ_t ṡ_t

where the surrogate replaces the derivative of the spike. The direction
(0, ẋ_{t−1}, e_w) gives the derivative with respect to a trainable weight w of the cell.
For LIF neurons ẋ is the ρ recursion of Yu et al., NeurIPS 2024, and g their
eligibility. The recursion is correct if the step acts on each neuron independently, see
`neuron_independence`.

A cell may have a hand-written derivative, `NeuronCell.step_derivative`, which is
faster. Any other step is differentiated here.
"""

from keras import ops

from keras_ratesnn._core import inheritance, keras_internals, time_axis, tree
from keras_ratesnn._core.backend import engine
from keras_ratesnn.layers import NeuronCell


def has_written_derivative(cell, name="step_derivative"):
    """Whether the derivative of this name is that of the cell's computation; not so in
    a subclass that overrides anything, or learns another weight."""
    owner = next(base for base in type(cell).__mro__ if name in vars(base))
    known = {id(getattr(cell, name)) for name in cell.derivative_weights}
    return (
        owner is not NeuronCell
        and cell.has_step_derivative
        and known.issuperset(map(id, cell.trainable_variables))
        and not inheritance.overrides_computation(type(cell), owner)
    )


def step(cell, current, state):
    """One step of a cell, and its derivative.

    Returns:
        `(spikes, state, along, slope)`: `along(input_tangent, state_tangent, weight)`
        returns the tangents of the argument of the spike function and of the state. The
        tangent of the spikes is `slope` times the former.
    """
    if has_written_derivative(cell):
        membrane, spikes, after = cell.step(current, state)
        slope = cell.surrogate_derivative(membrane)
        given = {"inputs": current} if cell.derivative_needs_inputs else {}
        along = cell.step_derivative(state, membrane, spikes, slope, **given)
        return spikes, after, along, slope
    spikes, after, along = _forward_mode(cell, current, state)
    return spikes, after, along, 1.0


def at_rest(cell, current, state, weight):
    """The tangent of `state`, that at rest, for the tangent 1 of a trainable weight, or
    for `None`."""
    if weight is None or has_written_derivative(cell):
        return tree.map_leaves(lambda _: 0.0, state)

    def function(value):
        with keras_internals.Values([(weight, value)]):
            initial_state = cell.initial_state(current)
        return list(filter(tree.is_float, tree.flatten(initial_state)))

    (value,) = keras_internals.values_of([weight])
    _, changes = engine.jvp(function, [value], [_like(1.0, value)])
    return _tangent_of(state, changes)


def _tangent_of(state, tangents):
    """The tangent of a state, given those of its floats."""
    remaining = iter(tangents)
    return tree.map_leaves(
        lambda leaf: next(remaining) if tree.is_float(leaf) else 0.0, state
    )


def _forward_mode(cell, current, state):
    """`(spikes, state, along)` of any cell: a step is computed once more for each
    direction."""
    variables = cell.variables
    values = keras_internals.values_of(variables)
    leaves = [current, *tree.flatten(state)]

    def stateless(leaves, values):
        current, *flat = leaves
        given = zip(variables, values, strict=True)
        with keras_internals.Closed(given, engine.assigned_weight) as scope:
            _, spikes, after = cell.step(current, tree.filled(state, flat))
        changed = []
        for index, variable in enumerate(variables):
            now = scope.get_current_value(variable)
            if not variable.trainable and now is not values[index]:
                changed.append((index, now))
        return spikes, after, changed

    def along(input_tangent, state_tangent, weight):
        tangents = [input_tangent, *tree.flatten(state_tangent)]
        # Tensors that are not floats, counters for example, have no derivative.
        moving = [
            (leaf, _like(tangent, leaf))
            for leaf, tangent in zip(leaves, tangents, strict=True)
            if tree.is_float(leaf)
        ]
        weights = [
            index for index, variable in enumerate(variables) if variable is weight
        ]
        moving += [(values[index], _like(1.0, values[index])) for index in weights]

        def function(*primals):
            remaining = iter(primals)
            inside = tree.filled(leaves, remaining, tree.is_float)
            inside_values = [
                next(remaining) if index in weights else value
                for index, value in enumerate(values)
            ]
            spikes, moved, _ = stateless(inside, inside_values)
            return [spikes, *filter(tree.is_float, tree.flatten(moved))]

        primals, directions = map(list, zip(*moving, strict=True))
        _, (spikes_tangent, *changes) = engine.jvp(function, primals, directions)
        return spikes_tangent, _tangent_of(after, changes)

    spikes, after, changed = stateless(leaves, values)
    for index, value in changed:
        # The derivative needs what an assignment may change in place.
        values[index] = ops.copy(values[index])
        variables[index].assign(value)
    return spikes, after, along


def _like(tangent, primal):
    """A tangent, which may be a number, converted to the shape and dtype of its
    primal."""
    dtype = primal.dtype if ops.is_tensor(primal) else "float32"
    if ops.is_tensor(tangent):
        return ops.broadcast_to(time_axis.cast(tangent, dtype), ops.shape(primal))
    return ops.full_like(primal, tangent, dtype=dtype)

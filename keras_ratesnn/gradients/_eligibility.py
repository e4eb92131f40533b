r"""The derivative of a firing rate with respect to input and weights: a forward-mode derivative, accumulated over time.

A cell has a state x_t and a step (s_t, x_t) = f(I_t, x_{t−1}; w). For a constant shift c of the input, ẋ_t = ∂x_t/∂c, ẋ_0 = 0:

    (ṡ_t, ẋ_t) = Df(I_t, x_{t−1}; w) · (1, ẋ_{t−1}, 0)            g = ∂r/∂c = (1/T) Σ_t ṡ_t

where the surrogate replaces the derivative of the spike. The direction (0, ẋ_{t−1}, e_w) gives the derivative with respect to a
trainable weight w of the cell. For LIF neurons ẋ is the ρ recursion of Yu et al., NeurIPS 2024, and g their eligibility. The
recursion is correct if the step acts on each neuron independently, see `_neuron_independence`.

A cell may have a hand-written derivative, `NeuronCell.step_derivative`, which is faster. Any other step is differentiated here.
"""

import functools

from keras import ops

from keras_ratesnn._core import backend, inheritance, keras_internals, time_axis, tree
from keras_ratesnn.gradients import _windows
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.layers import NeuronCell

MOST_COMPILED_WINDOWS = 8
"""With more windows a time loop is not compiled: each of its steps has a trace for each pair of windows."""


class EligibilityPass(NeuronPass):
    """Neurons in a time loop that also accumulate their firing rate and its derivatives with respect to input and weights.

    Each time window has a rate, with a derivative with respect to the input in that window and in each earlier one.

    Args:
        cell: A `NeuronCell`.
        dtype: String, the dtype of the spikes.
        sizes: Tuple of integers, the sizes of the windows.
    """

    def __init__(self, cell, dtype, sizes):
        super().__init__(cell, dtype, with_gradient=False)
        self.sizes = sizes
        # The input of each window, and each weight, which acts in all windows.
        self.directions = [
            *((window, None) for window in range(len(sizes))),
            *((None, part) for part, _ in cell.weight_parts()),
        ]

    @property
    def key(self):
        return *super().key, self.sizes, tuple(variable.trainable for variable in self.cell.variables)

    @property
    def compiles(self):
        # PyTorch's compiler fails on the graphs of its forward-mode differentiation, and takes minutes for many windows.
        return has_written_derivative(self.cell) and len(self.sizes) <= MOST_COMPILED_WINDOWS

    def phase(self, t):
        return _windows.inside(self.sizes, t)

    @property
    def parallel(self):
        return False

    def at_padding(self, carried):
        return carried

    def valid_phase(self, phase, valid):
        valid = ops.cast(valid, "float32")
        return tuple(valid * here for here in phase) if phase else (valid,)

    def start(self, current):
        """Traces start as numbers and become tensors once neurons differ."""
        state = self.cell.initial_state(current)
        at_rest = tree.map_leaves(lambda _: 0.0, state)
        return {
            "state": state,
            "tangents": [at_rest for _ in self.directions],
            "spikes": [0.0 for _ in self.sizes],
            "slopes": [[0.0 for _ in self._answering(direction)] for direction in self.directions],
        }

    def advance(self, phase, current, carried):
        spikes, state, along, slope = step(self.cell, current, carried["state"])
        # Tensors in a compiled loop; TensorFlow does not add two dtypes.
        phase = tuple(here if isinstance(here, float) else time_axis.cast(here, spikes.dtype) for here in phase)
        tangents, slopes = [], []
        for direction, tangent, totals in zip(self.directions, carried["tangents"], carried["slopes"], strict=True):
            window, part = direction
            of_input = 0.0 if window is None else phase[window] if phase else 1.0
            of_distance, tangent = along(of_input, tangent, part)
            tangents.append(tangent)
            inside = [phase[window] for window in self._answering(direction)] if phase else ()
            slopes.append(self._accumulate(totals, slope, of_distance, inside))
        counts = _windows.accumulate(carried["spikes"], spikes, phase)
        carried = {"state": state, "tangents": tangents, "spikes": counts, "slopes": slopes}
        return time_axis.cast(spikes, self.dtype), carried

    def as_tensors(self, carried):
        """Converts numbers to tensors of their final shape and dtype; a loop would carry them as float32 scalars."""
        like = carried["spikes"][0]
        full = functools.partial(tree.map_leaves, lambda x: x if ops.is_tensor(x) else ops.full_like(like, x))
        scalar = functools.partial(
            tree.map_leaves, lambda x: x if ops.is_tensor(x) else ops.convert_to_tensor(x, dtype=like.dtype)
        )
        sums = {name: full(carried[name]) for name in ("spikes", "slopes")}
        return {"state": carried["state"], "tangents": scalar(carried["tangents"]), **sums}

    def finish(self, carried):
        """Records the rate of each window, and its derivatives with respect to weights and to the input up to that window."""
        record = []
        for window, size in enumerate(self.sizes):
            answering = [
                totals[window - self._answering(direction).start] / size
                for direction, totals in zip(self.directions, carried["slopes"], strict=True)
                if window in self._answering(direction)
            ]
            record.append({"rate": carried["spikes"][window] / size, "slopes": answering})
        return carried["state"], record

    def _answering(self, direction):
        """The windows whose rate a direction affects: its own and later ones."""
        window, _ = direction
        return range(window or 0, len(self.sizes))

    @staticmethod
    def _accumulate(totals, slope, of_distance, inside):
        if isinstance(of_distance, float) and of_distance == 0.0:
            return totals
        if all(isinstance(here, float) for here in inside):
            return _windows.accumulate(
                totals, of_distance, inside, plus=lambda total, tangent: backend.multiply_add(slope, tangent, total)
            )
        return _windows.accumulate(totals, slope * of_distance, inside)


def firing_rate(cell, recorded, mean_input, windows):
    """The firing rate in each window: its value is the time mean of the spikes, with the accumulated derivatives.

    Args:
        cell: A `NeuronCell`.
        recorded: The record of an `EligibilityPass`.
        mean_input: Tensor c `(batch * W, ...)`, the rate of the input current, with gradient.
        windows: `Windows`.

    Returns:
        Tensor r `(batch * W, ...)` of the membrane's dtype.
    """
    inputs = windows.cut(mean_input)
    rates = []
    for window, of_window in enumerate(recorded):
        # The pass divides by the size of the window.
        value, slopes = (windows.of_steps_that_count(of_window[name], window) for name in ("rate", "slopes"))
        rates.append(grafted(value, [*inputs[: window + 1], *values_of_weights(cell, value)], slopes))
    return _windows.join(rates)


def values_of_weights(cell, like):
    """The parts of the trainable weights of a cell, in the shape and dtype of a tensor."""
    return [ops.broadcast_to(ops.cast(weight, like.dtype), ops.shape(like)) for _, weight in cell.weight_parts()]


def grafted(value, onto, slopes):
    """A tensor with derivatives: `slopes` with respect to the tensors `onto`, which may have other dtypes."""
    first, *others = [time_axis.cast(tensor, value.dtype) for tensor in onto]
    result = backend.graft(value, first, slopes[0])
    for tensor, slope in zip(others, slopes[1:], strict=True):
        result = result + backend.graft(ops.zeros_like(value), tensor, slope)
    return result


def has_written_derivative(cell, name="step_derivative"):
    """Whether the derivative of this name is that of the cell's computation; not so in a subclass that overrides anything."""
    owner = next(base for base in type(cell).__mro__ if name in vars(base))
    return owner is not NeuronCell and cell.has_step_derivative and not inheritance.overrides_computation(type(cell), owner)


def step(cell, current, state):
    """One step of a cell, and its derivative.

    Returns:
        `(spikes, state, along, slope)`: `along(input_tangent, state_tangent, weight)` returns the tangents of the argument of
        the spike function and of the state. The tangent of the spikes is `slope` times the former.
    """
    if has_written_derivative(cell):
        membrane, spikes, after = cell.step(current, state)
        slope = cell.surrogate_derivative(membrane)
        given = {"inputs": current} if cell.derivative_needs_inputs else {}
        return spikes, after, cell.step_derivative(state, membrane, spikes, slope, **given), slope
    return *_forward_mode(cell, current, state), 1.0


def _forward_mode(cell, current, state):
    """`(spikes, state, along)` of any cell: a step is computed once more for each direction."""
    variables = cell.variables
    values = keras_internals.values_of(variables)
    # Tensors that are not floats, counters for example, have no derivative.
    leaves = [current, *tree.flatten(state)]
    moving = [tree.is_float(leaf) for leaf in leaves]

    def stateless(leaves, values):
        current, *flat = leaves
        remaining = iter(flat)
        with keras_internals.Values(zip(variables, values, strict=True)) as scope:
            _, spikes, after = cell.step(current, tree.map_leaves(lambda _: next(remaining), state))
        changed = [(v, scope.get_current_value(v)) for v in variables if not v.trainable]
        return spikes, after, changed

    def along(input_tangent, state_tangent, weight):
        tangents = [input_tangent, *tree.flatten(state_tangent)]
        weights = [index for index, variable in enumerate(variables) if variable is weight]
        primals = [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves] + [values[index] for index in weights]
        directions = [tangent for tangent, moves in zip(tangents, moving, strict=True) if moves] + [1.0 for _ in weights]
        directions = [_like(tangent, primal) for tangent, primal in zip(directions, primals, strict=True)]
        outside = {}

        def function(*primals):
            remaining = iter(primals)
            inside = [next(remaining) if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)]
            inside_values = [next(remaining) if index in weights else value for index, value in enumerate(values)]
            spikes, after, _ = stateless(inside, inside_values)
            flat = tree.flatten(after)
            outside["floats"] = [tree.is_float(leaf) for leaf in flat]
            outside["structure"] = after
            return [spikes, *(leaf for leaf in flat if tree.is_float(leaf))]

        _, (of_spikes, *of_state) = backend.jvp(function, primals, directions)
        remaining = iter(of_state)
        flat = iter([next(remaining) if is_moving else 0.0 for is_moving in outside["floats"]])
        return of_spikes, tree.map_leaves(lambda _: next(flat), outside["structure"])

    spikes, after, changed = stateless(leaves, values)
    for variable, value in changed:
        variable.assign(value)
    return spikes, after, along


def _like(tangent, primal):
    """A tangent, which may be a number, converted to the shape and dtype of its primal."""
    dtype = primal.dtype if ops.is_tensor(primal) else "float32"
    if ops.is_tensor(tangent):
        return ops.broadcast_to(time_axis.cast(tangent, dtype), ops.shape(primal))
    return ops.full_like(primal, tangent, dtype=dtype)

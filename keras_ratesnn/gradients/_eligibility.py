r"""How a neuron's firing rate answers to its input and to its weights: a forward-mode derivative, collected step by step.

A cell has a state x_t and a step (s_t, x_t) = f(I_t, x_{t−1}; w). For a constant shift c of the input, ẋ_t = ∂x_t/∂c, ẋ_0 = 0:

    (ṡ_t, ẋ_t) = Df(I_t, x_{t−1}; w) · (1, ẋ_{t−1}, 0)            g = ∂r/∂c = (1/T) Σ_t ṡ_t

with the surrogate in the place of the spike's derivative; likewise, with (0, ẋ_{t−1}, e_w), for each trainable weight w of the
cell. For LIF neurons ẋ is the ρ recursion of Yu et al., NeurIPS 2024, and g their eligibility. It is right for a step that acts
on each neuron alone, see `_element_wise`.

A cell may have a written derivative, `NeuronCell.step_derivative`, which is faster; any other step is differentiated here.
"""

import functools

import keras
from keras import ops

from keras_ratesnn._core import backend, inheritance, keras_internals, time_axis, tree
from keras_ratesnn.gradients import _windows
from keras_ratesnn.gradients._time_loop import NeuronPass
from keras_ratesnn.layers import NeuronCell


class EligibilityPass(NeuronPass):
    """Neurons in a time loop that also collect their firing rate and its derivatives, by the input and by each weight.

    With several windows of time there is a rate a window, and a derivative of it by the input in each window up to it.

    Args:
        cell: A `NeuronCell`.
        dtype: String, that of the spikes.
        windows: Tuple of integers, the sizes of the windows.
    """

    def __init__(self, cell, dtype, windows):
        super().__init__(cell, dtype, with_gradient=False)
        self.windows = windows
        # By the input of each window, and by each weight, which acts in all of them.
        self.directions = [*range(len(windows)), *cell.trainable_variables]

    @property
    def key(self):
        return *super().key, self.windows, tuple(variable.trainable for variable in self.cell.variables)

    @property
    def compiles(self):
        # PyTorch's compiler fails on the graphs that its forward mode leaves.
        return has_written_derivative(self.cell)

    def phase(self, t):
        return _windows.inside(self.windows, t)

    def start(self, current):
        """Traces are numbers, which become tensors where they come to differ."""
        state = self.cell.initial_state(current)
        at_rest = tree.map_leaves(lambda _: 0.0, state)
        return {
            "state": state,
            "tangents": [at_rest for _ in self.directions],
            "spikes": [0.0 for _ in self.windows],
            "slopes": [[0.0 for _ in self._answering(direction)] for direction in self.directions],
        }

    def advance(self, phase, current, carried):
        spikes, state, along, slope = _step(self.cell, current, carried["state"])
        tangents, slopes = [], []
        for direction, tangent, totals in zip(self.directions, carried["tangents"], carried["slopes"], strict=True):
            if isinstance(direction, int):
                of_distance, tangent = along(phase[direction] if phase else 1.0, tangent, None)
            else:
                of_distance, tangent = along(0.0, tangent, direction)
            tangents.append(tangent)
            inside = [phase[window] for window in self._answering(direction)] if phase else ()
            slopes.append(self._accumulate(totals, slope, of_distance, inside))
        counts = _windows.accumulate(carried["spikes"], spikes, phase)
        carried = {"state": state, "tangents": tangents, "spikes": counts, "slopes": slopes}
        return time_axis.cast(spikes, self.dtype), carried

    def as_tensors(self, carried):
        """A loop would carry what is still a number as float32 and a scalar, whatever it will become."""
        like = carried["spikes"][0]
        full = functools.partial(tree.map_leaves, lambda x: x if ops.is_tensor(x) else ops.full_like(like, x))
        scalar = functools.partial(
            tree.map_leaves, lambda x: x if ops.is_tensor(x) else ops.convert_to_tensor(x, dtype=like.dtype)
        )
        sums = {name: full(carried[name]) for name in ("spikes", "slopes")}
        return {"state": carried["state"], "tangents": scalar(carried["tangents"]), **sums}

    def finish(self, carried):
        """Records for each window its rate, and the derivatives by the input in the windows up to it and by the weights."""
        record = []
        for window, size in enumerate(self.windows):
            answering = [
                totals[window - self._answering(direction).start] / size
                for direction, totals in zip(self.directions, carried["slopes"], strict=True)
                if window in self._answering(direction)
            ]
            record.append({"rate": carried["spikes"][window] / size, "slopes": answering})
        return carried["state"], record

    def _answering(self, direction):
        """The windows whose rate a direction changes: not those before it."""
        return range(direction if isinstance(direction, int) else 0, len(self.windows))

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
    """The firing rate in each window: its value is the time mean of the spikes, its derivatives are those that were collected.

    Args:
        cell: A `NeuronCell`.
        recorded: What an `EligibilityPass` left.
        mean_input: Tensor c, the rate of the input current, with gradient, `(batch * W, ...)`.
        windows: Tuple of integers, the sizes of the windows.

    Returns:
        Tensor r `(batch * W, ...)` of the membrane's dtype.
    """
    inputs = _windows.cut(mean_input, windows)
    rates = []
    for window, of_window in enumerate(recorded):
        value, slopes = of_window["rate"], of_window["slopes"]
        weights = [ops.broadcast_to(ops.cast(weight, value.dtype), ops.shape(value)) for weight in cell.trainable_variables]
        first, *others = [time_axis.cast(onto, value.dtype) for onto in (*inputs[: window + 1], *weights)]
        rate = backend.graft(value, first, slopes[0])
        for onto, slope in zip(others, slopes[1:], strict=True):
            rate = rate + backend.graft(ops.zeros_like(value), onto, slope)
        rates.append(rate)
    return _windows.join(rates)


def has_written_derivative(cell):
    """Whether a cell has a `step_derivative` that is that of its step: a subclass that changes anything has none."""
    owner = next(base for base in type(cell).__mro__ if "step_derivative" in vars(base))
    return owner is not NeuronCell and not inheritance.redefines(type(cell), owner)


def _step(cell, current, state):
    """One step of a cell, and its derivative.

    Returns:
        `(spikes, state, along, slope)`: `along(input_tangent, state_tangent, weight)` returns the tangents of what the spikes
        are a function of and of the state; the tangent of the spikes is `slope` times the first.
    """
    if has_written_derivative(cell):
        membrane, spikes, after = cell.step(current, state)
        slope = cell.surrogate_derivative(membrane)
        return spikes, after, cell.step_derivative(state, membrane, spikes, slope), slope
    return *_forward_mode(cell, current, state), 1.0


def _forward_mode(cell, current, state):
    """`(spikes, state, along)` of any cell: a step is computed once more for each direction."""
    variables = cell.variables
    with keras_internals.without_autocast():
        values = [ops.convert_to_tensor(variable) for variable in variables]
    # What is not a float, a counter for example, has no derivative.
    leaves = [current, *tree.flatten(state)]
    moving = [is_float(leaf) for leaf in leaves]

    def stateless(leaves, values):
        current, *flat = leaves
        remaining = iter(flat)
        with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
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
            outside["floats"] = [is_float(leaf) for leaf in flat]
            outside["structure"] = after
            return [spikes, *(leaf for leaf in flat if is_float(leaf))]

        _, (of_spikes, *of_state) = backend.jvp(function, primals, directions)
        remaining = iter(of_state)
        flat = iter([next(remaining) if is_moving else 0.0 for is_moving in outside["floats"]])
        return of_spikes, tree.map_leaves(lambda _: next(flat), outside["structure"])

    spikes, after, changed = stateless(leaves, values)
    for variable, value in changed:
        variable.assign(value)
    return spikes, after, along


def is_float(leaf):
    """Whether a leaf of a state is a floating-point number or tensor, which has a derivative."""
    return time_axis.is_float(leaf.dtype) if ops.is_tensor(leaf) else isinstance(leaf, float)


def _like(tangent, primal):
    """A tangent, which may be a number, in the shape and dtype of its primal."""
    dtype = primal.dtype if ops.is_tensor(primal) else "float32"
    if ops.is_tensor(tangent):
        return ops.broadcast_to(time_axis.cast(tangent, dtype), ops.shape(primal))
    return ops.full_like(primal, tangent, dtype=dtype)

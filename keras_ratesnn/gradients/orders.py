"""How a rule sees time steps: all at once (`step_mode="multi"`), or one after the other (`step_mode="single"`).

Both orders have the same interface, so a training method is written only once. State that passes from one step to the next, or
from one walk to another (membranes, sums for time means, statistics, masks), is stored in the order's memory. Its key is the
place of the operation, because a layer may be used in several places. Operations whose inputs are the same at every step run
once, and their results are stored as constants.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients import _compiled_loop, _time_loop, _windows
from keras_ratesnn.gradients._propagate_nan import propagate_nan
from keras_ratesnn.gradients.signals import Signal

if TYPE_CHECKING:
    from keras_ratesnn.gradients.base import Rule, Run


class Order:
    """Base class of both orders.

    Args:
        timesteps: Integer T.
        windows: Tuple of integers that add up to T, the sizes of the windows with a mean each. Defaults to `None`, one window.

    Attributes:
        memory: Dict from places to structures of tensors.
        constants: Dict from places to structures of signals that are the same at every step.
        adding: Set of the places of calls on steps that add losses of their own.
        layout: Context for calls of layers that can keep the memory layout of their data.
        t: Integer, or integer scalar tensor: the time step that a rule sees, from 0 on; `None` if it sees all steps at once.
    """

    sees_all_steps = True
    """Whether a rule sees all steps at once, so that time means need no state between steps."""

    def __init__(self, timesteps: int, windows: Sequence[int] | None = None) -> None:
        self.t: int | Tensor | None = None
        self.timesteps = timesteps
        self.windows = windows or (timesteps,)
        self.memory: dict[str, Any] = {}
        self.constants: dict[str, Structure] = {}
        self.adding: set[str] = set()
        self.layout = backend.layout_kept()
        self._neurons: dict[str, _time_loop.NeuronPass] = {}
        self._finishing: dict[str, Callable[..., Any]] = {}
        self._adding: dict[str, keras.layers.Layer] = {}
        self._losses: list[tuple[keras.layers.Layer, Tensor]] = []
        self._once: set[str] = set()
        self._normalized: dict[str, Call] = {}
        self._statistics: list[tuple[Call, Tensor, Tensor]] = []

    @property
    def calls(self) -> int:
        """The number of calls of the operation at a place."""
        return 1 if self.sees_all_steps else self.timesteps

    # What differs between the orders:

    def begin(self, tensor: Tensor, has_time: bool) -> Signal:
        """The signal of an input of the network: `(batch, T, ...)` if `has_time`, else `(batch, ...)`."""
        raise NotImplementedError

    def tensor(self, signal: Signal) -> Tensor:
        """The tensor of a signal, with a row for each step that the rule sees, even if the signal is static."""
        raise NotImplementedError

    def mask(self, signal: Signal) -> Tensor | None:
        """The Keras mask of `tensor(signal)`, or `None`."""
        return keras_internals.mask_of(signal.value)

    def each(self, function: Callable[..., Any]) -> Structure:
        """`function(t)` for each step t that the rule sees, joined in one structure of tensors, with their Keras masks."""
        raise NotImplementedError

    def at(self, signal: Signal, t: int) -> Tensor:
        """The tensor `(batch, ...)` of a signal at a step that the rule sees, with its Keras mask."""
        raise NotImplementedError

    def time_steps(self, args: Structure) -> int | Tensor:
        """The time step of each row of an operation's arguments; an integer if all rows belong to one step."""
        raise NotImplementedError

    def scale(self, tensor: Tensor, by_sample: Tensor) -> Tensor:
        """The product of a tensor of the steps that the rule sees and a tensor of one step, `(batch, ...)`."""
        raise NotImplementedError

    def through_time(self, place: str, neuron_pass: _time_loop.NeuronPass, current: Signal) -> Tensor:
        """The spikes of a neuron layer, see `NeuronPass`, given the signal of its input current."""
        raise NotImplementedError

    def finished(self, place: str) -> Any:
        """The result of `NeuronPass.finish` for a neuron layer after the steps so far."""
        raise NotImplementedError

    def average(self, place: str, values: Structure) -> None:
        """Stores the mean of a structure of tensors over the calls in each window: a list with one element per window.

        In multi-step order there is only one call for all windows, so the list has one element.
        """
        raise NotImplementedError

    def average_steps(self, place: str, tensors: Structure) -> Structure:
        """Stores the time mean in each window, `(batch * W, ...)`, of a structure of tensors of the steps.

        For integers and booleans, whose mean would not be an integer or boolean, all steps are stored, `(batch * T, ...)`.

        Returns:
            The tensors; use these from now on.
        """
        raise NotImplementedError

    def run(self, rule: "Rule", run: "Run") -> Structure:
        """Runs the network over time with a rule.

        Returns:
            Tensors in the structure of the network's outputs: time means `(batch, ...)`, or all steps `(batch, T, ...)` if
            `run.return_sequences`.
        """
        raise NotImplementedError

    # What both orders share:

    def once(self, place: str, function: Callable[..., Any]) -> Any:
        """The result of `function()`, which is called only the first time for each place."""
        if place not in self.memory:
            self.memory[place] = function()
            self._once.add(place)
        return self.memory[place]

    def drawn(self) -> Any:
        """The memory entries set by `once`. An order that starts with them reuses the same masks and noise."""
        return {place: self.memory[place] for place in self._once}

    def regularize(self, call: Call, outputs: Structure, share: float = 1.0, each_step: bool = False) -> None:
        """Adds the activity regularisation of a call to its layer's losses, divided by the number of rows, as in Keras.

        Args:
            call: `Call`.
            outputs: Structure of tensors.
            share: Float, the fraction of all steps that these outputs cover. Defaults to `1.0`.
            each_step: See `add_loss`.
        """
        regularizer = getattr(call.operation, "activity_regularizer", None)
        if regularizer is not None:
            outputs = tree.flatten(outputs)
            loss = sum(regularizer(output) / ops.cast(ops.shape(output)[0], output.dtype) for output in outputs)
            self.add_loss(call, time_axis.widen(loss) * share, each_step)

    def add_loss(self, call: Call, loss: Tensor, each_step: bool = False) -> None:
        """Stores a loss of a call's layer.

        Args:
            call: `Call`.
            loss: Tensor.
            each_step: Boolean, whether this is called for every call of the operation instead of once for all steps. Defaults
                to `False`.
        """
        if not each_step:
            self._losses.append((call.operation, loss))
            return
        # Stored in the memory, which a loop can carry; it has no gradient if the steps have none.
        place = f"loss at {call.place}"
        self.memory[place] = self.memory.get(place, 0.0) + ops.sum(loss)
        self._adding[place] = call.operation

    def after_steps(self, call: Call, mean: Tensor, variance: Tensor, mask: Tensor | None = None) -> None:
        """Collects statistics that a call's normalisation receives after the last walk, averaged over all steps.

        With a `mask` of what they leave out, steps count by how much they do not.
        """
        if all(signal.static for signal in call.signals):
            self._statistics.append((call, mean, variance))
            return
        place = f"batch at {call.place}"
        square = variance + ops.square(mean)
        if mask is None:
            self.average(place, {"mean": mean, "square": square})
        else:
            rows = ops.sum(time_axis.cast(mask, mean.dtype))
            self.average(place, {"mean": rows * mean, "rows": rows, "square": rows * square})
        self._normalized[place] = call

    def losses_of_steps(self) -> Any:
        """The memory entries in which `add_loss` sums the losses of the steps."""
        return {place: self.memory[place] for place in self._adding}

    def end(self) -> None:
        """Called after the last walk of a run: passes collected losses and statistics to their layers."""
        # Calling a layer may clear earlier losses.
        for layer, loss in [*self._losses, *((layer, self.memory[place]) for place, layer in self._adding.items())]:
            layer.add_loss(loss)
        for call, mean, variance in self._statistics:
            call.kind.normalization.after_steps(call.operation, mean, variance)  # type: ignore[union-attr, misc]

    def _finish(self, rule, outputs):
        """The outputs of a walk. Replaces the state in the memory by the records for later walks."""
        finished = {place: self.finished(place) for place in self._neurons}
        for place, (state, record) in finished.items():
            self._neurons[place].cell.after_steps(state)
            self.memory[place] = record
        for place, function in self._finishing.items():
            self.memory[place] = function(self.memory.get(place))
        for place, call in self._normalized.items():
            windows = self.memory[place]
            moments = {name: self._of_all_steps([of[name] for of in windows]) for name in windows[0]}
            rows = moments.get("rows", 1.0)
            mean, square = (moments[name] / ops.where(rows > 0.0, rows, 1.0) for name in ("mean", "square"))
            self._statistics.append((call, mean, ops.maximum(square - ops.square(mean), 0.0)))
        rule.finish()
        return propagate_nan(outputs, [state for state, _ in finished.values()])

    def _of_all_steps(self, means):
        """The mean over all steps of values stored by `average`."""
        if len(means) == 1:
            return means[0]
        return sum(mean * (size / self.timesteps) for mean, size in zip(means, self.windows, strict=True))

    def states(self) -> Any:
        """The states of all neuron layers after the last step: a list of structures of tensors."""
        return [self.finished(place)[0] for place in self._neurons]


class AllSteps(Order):
    """Multi-step order: a layer sees all steps at once, as `batch * T` rows."""

    def begin(self, tensor: Tensor, has_time: bool) -> Signal:
        self._rows = ops.shape(tensor)[0] * self.timesteps
        return Signal(time_axis.fold(tensor) if has_time else tensor, static=not has_time)

    def _checked(self, steps):
        """Checks that a tensor has a row for each sample and step, and returns it."""
        backend.check_equal(
            ops.shape(steps)[0] if len(steps.shape) else 1,
            self._rows,
            'A network run with step_mode="multi" must keep the batch as the first axis of all tensors that change with time: '
            f"one row for each sample and step. Received: a tensor of shape {tuple(steps.shape)}, which does not have "
            f"{self._rows if isinstance(self._rows, int) else 'that number of'} rows. Remove the operation that reshapes or "
            'reduces that axis, or set step_mode="single", in which the network sees the samples of one step.',
        )
        return steps

    def tensor(self, signal: Signal) -> Tensor:
        if not signal.static:
            return signal.value
        return keras_internals.with_mask(lambda tensor: time_axis.repeat(tensor, self.timesteps), signal.value)

    def mask(self, signal: Signal) -> Tensor | None:
        mask = super().mask(signal)
        return time_axis.repeat(mask, self.timesteps) if signal.static and mask is not None else mask

    def each(self, function: Callable[..., Any]) -> Structure:
        def joined(*steps):
            return keras_internals.with_mask(lambda *steps: time_axis.fold(ops.stack(steps, axis=1)), *steps)

        return tree.map_leaves(joined, *(function(t) for t in range(self.timesteps)))

    def at(self, signal: Signal, t: int) -> Tensor:
        if signal.static:
            return signal.value
        return keras_internals.with_mask(lambda tensor: time_axis.unfold(tensor, self.timesteps)[:, t], signal.value)

    def time_steps(self, args: Structure) -> int | Tensor:
        rows = ops.shape(tree.flatten(args)[0])[0]
        return ops.arange(rows) % self.timesteps

    def scale(self, tensor: Tensor, by_sample: Tensor) -> Tensor:
        return time_axis.fold(time_axis.unfold(tensor, self.timesteps) * by_sample[:, None])

    def through_time(self, place: str, neuron_pass: _time_loop.NeuronPass, current: Signal) -> Tensor:
        if not current.static:
            self._checked(current.value)
        spikes, self.memory[place] = _time_loop.run(neuron_pass, current, self.timesteps)
        self._neurons[place] = neuron_pass
        return spikes

    def finished(self, place: str) -> Any:
        return self.memory[place]

    def average(self, place: str, values: Structure) -> None:
        self.memory[place] = [values]

    def average_steps(self, place: str, tensors: Structure) -> Structure:
        tree.map_leaves(self._checked, tensors)
        # If the compiler postponed the mean to the backward pass, all steps would stay in memory until then.
        means = tree.map_leaves(
            lambda tensor: _windows.means_over_steps(tensor, self.windows) if time_axis.is_float(tensor.dtype) else tensor,
            tensors,
        )
        after, self.memory[place] = backend.optimization_barrier((tensors, means))
        return tree.map_leaves(
            lambda tensor, before: keras_internals.put_mask(tensor, keras_internals.mask_of(before)), after, tensors
        )

    def run(self, rule: "Rule", run: "Run") -> Structure:
        outputs = run.walk([self.begin(tensor, has_time) for tensor, has_time in run.inputs], rule)

        def output(signal):
            steps = rule.output(self.tensor(signal) if signal.static else self._checked(signal.value))
            return time_axis.unfold(steps, self.timesteps) if run.return_sequences else time_axis.mean(steps, self.timesteps)

        return self._finish(rule, tree.map_leaves(output, outputs))


class OneStep(Order):
    """Single-step order: the loop over time is outside, and one step runs through the whole network.

    No tensor of size T · batch is ever allocated. Batch normalisation uses separate statistics for each step, over batch and
    space, and updates its moving averages once per step, like the authors' program.
    """

    sees_all_steps = False

    def __init__(self, timesteps: int, windows: Sequence[int] | None = None) -> None:
        super().__init__(timesteps, windows)
        self.t = 0

    def begin(self, tensor: Tensor, has_time: bool) -> Signal:
        return Signal(ops.take(tensor, self.t, axis=1) if has_time else tensor, static=not has_time)

    def tensor(self, signal: Signal) -> Tensor:
        return signal.value

    def each(self, function: Callable[..., Any]) -> Structure:
        return function(self.t)

    def at(self, signal: Signal, t: int) -> Tensor:
        return signal.value

    def time_steps(self, args: Structure) -> int | Tensor:
        return self.t

    def scale(self, tensor: Tensor, by_sample: Tensor) -> Tensor:
        return tensor * by_sample

    def through_time(self, place: str, neuron_pass: _time_loop.NeuronPass, current: Signal) -> Tensor:
        self._neurons[place] = neuron_pass
        carried = self.memory[place] if place in self.memory else neuron_pass.start(current.value)
        spikes, carried = _time_loop.step(neuron_pass, current.value, carried, self.t)
        self.memory[place] = neuron_pass.as_tensors(carried)
        return spikes

    def finished(self, place: str) -> Any:
        return self._neurons[place].finish(self.memory[place])

    def average(self, place: str, values: Structure) -> None:
        inside = _windows.inside(self.windows, self.t)
        totals = self.memory.get(place)
        if totals is None:
            zeros = [tree.map_leaves(ops.zeros_like, values) for _ in self.windows[1:]]
            self.memory[place] = [values, *zeros]
            self._finishing[place] = self._means
        else:
            by_leaf = [_windows.accumulate(of_leaf, value, inside) for *of_leaf, value in _leaves(*totals, values)]
            self.memory[place] = [_like(values, of_window) for of_window in zip(*by_leaf, strict=True)]

    def _means(self, totals):
        return [
            tree.map_leaves(lambda x, n=size: x / n, of_window) for of_window, size in zip(totals, self.windows, strict=True)
        ]

    def average_steps(self, place: str, tensors: Structure) -> Structure:
        kept = f"steps at {place}"
        is_float = tree.map_leaves(lambda tensor: time_axis.is_float(tensor.dtype), tensors)
        floats = [leaf for leaf in tree.flatten(tensors) if time_axis.is_float(leaf.dtype)]
        others = [leaf for leaf in tree.flatten(tensors) if not time_axis.is_float(leaf.dtype)]
        if floats:
            self.average(place, [time_axis.widen(leaf) for leaf in floats])
        if others:
            so_far = self.memory.get(kept, [None for _ in others])
            self.memory[kept] = [self._with_step(steps, leaf) for steps, leaf in zip(so_far, others, strict=True)]

        def finish(totals):
            means = map(_windows.join, zip(*self._means(totals), strict=True)) if totals else iter(())
            steps = map(time_axis.fold, self.memory.get(kept, ()))
            return tree.map_leaves(lambda of_floats: next(means if of_floats else steps), is_float)

        self._finishing[place] = finish
        return tensors

    def walk_step(self, rule, walk, signals, t, memory):
        """One walk.

        Args:
            rule: The rule, of this order.
            walk: Function `(signals, rule) -> signals`, see `Run`.
            signals: Function that returns the list of signals of the network's inputs at this step.
            t: Integer, or integer scalar tensor: the time step, from 0 on.
            memory: Dict returned by the previous step; `{}` before the first.

        Returns:
            `(memory, outputs)`: the memory for the next step, and tensors in the structure of the network's outputs.
        """
        self.t, self.memory = t, dict(memory)
        outputs = tree.map_leaves(lambda signal: rule.output(signal.value), walk(signals(), rule))
        return self.memory, outputs

    def run(self, rule: "Rule", run: "Run") -> Structure:
        return self.finish(rule, run, self.sweep(rule, run))

    def sweep(self, rule, run):
        """Runs all steps.

        Returns:
            The argument of `finish`: the sum of the outputs in the structure of the network's outputs, or all of them if
            `run.return_sequences`.
        """

        def signals():
            return [self.begin(tensor, has_time) for tensor, has_time in run.inputs]

        memory, outputs = self.walk_step(rule, run.walk, signals, 0, {})
        carried = memory, tree.map_leaves(lambda output: self._gather(run, None, output), outputs)

        def body(t, carried):
            memory, gathered = carried
            memory, outputs = self.walk_step(rule, run.walk, signals, t, memory)
            return memory, tree.map_leaves(lambda so_far, output: self._gather(run, so_far, output), gathered, outputs)

        if not rule.with_gradient and self.timesteps > backend.unrolled_network_steps():
            carried = _compiled_loop.run(body, carried, run.network.variables, 1, self.timesteps)
        else:
            for t in range(1, self.timesteps):
                carried = body(t, carried)

        self.memory, gathered = carried
        # The dtypes of the outputs; sums are wider.
        self._dtypes = tree.map_leaves(lambda output: output.dtype, outputs)
        return gathered

    def finish(self, rule, run, gathered):
        """The outputs of the run, from the result of `sweep`."""

        def mean(total, dtype):
            return ops.cast(total / self.timesteps, time_axis.mean_dtype(dtype))

        return self._finish(rule, gathered if run.return_sequences else tree.map_leaves(mean, gathered, self._dtypes))

    def _gather(self, run, so_far, output):
        """The sum of the outputs so far, in float32 or wider, or their sequence, `(batch, T, ...)`."""
        if not run.return_sequences:
            output = time_axis.widen(output)
            return output if so_far is None else so_far + output
        return self._with_step(so_far, output)

    def _with_step(self, so_far, tensor):
        """Writes the tensor `(batch, ...)` of this step into a sequence `(batch, T, ...)`; `so_far` is `None` at first."""
        if so_far is None:
            return ops.repeat(tensor[:, None], self.timesteps, axis=1)
        at_step = ops.reshape(ops.arange(self.timesteps) == self.t, (1, -1, *([1] * (len(tensor.shape) - 1))))
        return ops.where(at_step, tensor[:, None], so_far)


def _leaves(*structures):
    """Tuples of corresponding leaves of structures of the same form."""
    return zip(*map(tree.flatten, structures), strict=True)


def _like(structure, leaves):
    """The given leaves in the form of `structure`."""
    leaves = iter(leaves)
    return tree.map_leaves(lambda _: next(leaves), structure)

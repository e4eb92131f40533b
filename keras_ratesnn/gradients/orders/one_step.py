"""Single-step order."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras import ops

from keras_ratesnn._core import backend, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.gradients import _compiled_loop, _time_loop, _windows
from keras_ratesnn.gradients.orders.order import Order
from keras_ratesnn.gradients.signals import Signal

if TYPE_CHECKING:
    from keras_ratesnn.gradients.base import Rule, Run


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
        if not has_time:
            return Signal(tensor, static=True)
        # PyTorch cannot export Keras' `take` to ONNX.
        return Signal(tensor[:, self.t] if isinstance(self.t, int) else ops.take(tensor, self.t, axis=1))

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

        def walk(signals, rule):
            outputs = run.walk(signals, rule)
            self._gather_masks(run, outputs)
            return outputs

        memory, outputs = self.walk_step(rule, walk, signals, 0, {})
        carried = memory, tree.map_leaves(lambda output: self._gather(run, None, output), outputs)

        def body(t, carried):
            memory, gathered = carried
            memory, outputs = self.walk_step(rule, walk, signals, t, memory)
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

    def _gathered_mask(self, run, so_far, mask):
        if run.return_sequences:
            return self._with_step(so_far, mask)
        return mask if so_far is None else ops.logical_or(so_far, mask)

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

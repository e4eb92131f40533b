"""A neuron layer in a time loop whose steps may be padding, or masked for some of its rows."""

from keras import ops

from keras_ratesnn._core import time_axis, tree
from keras_ratesnn.gradients.neuron_pass import NeuronPass


def padded(neuron_pass, counts_at):
    """The pass, or one that keeps the state of neurons that wait, and do not spike, at the steps that do not count for them.

    Args:
        neuron_pass: `NeuronPass`.
        counts_at: Function of a step that returns a boolean tensor, `(batch,)` or of more of the first axes of the current,
            false for what is padding or masked at it; `None` if all steps count.
    """
    return neuron_pass if counts_at is None or not neuron_pass.waits else _PaddedPass(neuron_pass, counts_at)


class _PaddedPass(NeuronPass):
    def __init__(self, neuron_pass, counts_at):
        super().__init__(neuron_pass.cell, neuron_pass.dtype, neuron_pass.with_gradient)
        self._inner = neuron_pass
        self._counts_at = counts_at

    @property
    def key(self):
        return *super().key, *self._inner.key

    @property
    def compiles(self):
        return self._inner.compiles

    def phase(self, t):
        return {"inner": self._inner.phase(t), "counts": self._counts_at(t)}

    def start(self, current):
        counts = time_axis.as_rows(self._counts_at(0), current)
        return tree.map_leaves(_not_shared(counts, self.cell.moves_in_padding), self._inner.start(current))

    def advance(self, phase, current, carried):
        counts = phase["counts"]
        if self.cell.moves_in_padding:
            of_current = time_axis.as_rows(counts, current)
            phase = self._inner.valid_phase(phase["inner"], of_current)
            results, after = self._inner.advance(phase, time_axis.zero_unless(counts, current), carried)
            return time_axis.zero_unless(counts, results), tree.map_leaves(
                _not_shared(of_current, True), self._inner.as_tensors(after)
            )
        results, after = self._inner.advance(phase["inner"], current, carried)

        def kept(new, old):
            if new is old:
                # With many windows, most traces are of others than that of this step.
                return new
            like = new if ops.is_tensor(new) and len(new.shape) else current
            return ops.where(time_axis.as_rows(counts, like), new, old)

        waiting = self._inner.at_padding(carried)
        return time_axis.zero_unless(counts, results), tree.map_leaves(kept, self._inner.as_tensors(after), waiting)

    def finish(self, carried):
        return self._inner.finish(carried)

    def as_tensors(self, carried):
        return self._inner.as_tensors(carried)


def _not_shared(counts, counts_all):
    """A function of leaves: what neurons share differs once steps do not count for some of them.

    Args:
        counts: What counts at a step, with as many axes as the current.
        counts_all: Boolean, whether a number of steps counts all of them.
    """
    shape = ops.shape(counts)

    def not_shared(leaf):
        is_shared = ops.is_tensor(leaf) and not len(leaf.shape)
        if not is_shared or (counts_all and not time_axis.is_float(leaf.dtype)):
            return leaf
        return ops.broadcast_to(leaf, shape)

    return not_shared

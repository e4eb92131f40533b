"""A neuron layer in a time loop whose steps may be padding."""

from keras import ops

from keras_ratesnn._core import time_axis, tree
from keras_ratesnn.gradients.neuron_pass import NeuronPass


def padded(neuron_pass, mask):
    """The pass, or for a mask one that keeps the state of neurons that wait, and do not spike, at the steps that are padding.

    Args:
        neuron_pass: `NeuronPass`.
        mask: Boolean tensor `(batch, T)`, false for padding; `None` if there is none.
    """
    return neuron_pass if mask is None or not neuron_pass.waits else _PaddedPass(neuron_pass, mask)


class _PaddedPass(NeuronPass):
    def __init__(self, neuron_pass, mask):
        super().__init__(neuron_pass.cell, neuron_pass.dtype, neuron_pass.with_gradient)
        self._inner = neuron_pass
        self._mask = mask

    @property
    def key(self):
        return *super().key, *self._inner.key

    @property
    def compiles(self):
        return self._inner.compiles

    def phase(self, t):
        return {"inner": self._inner.phase(t), "valid": time_axis.step_of(self._mask, t)}

    def start(self, current):
        return tree.map_leaves(self._of_samples(current), self._inner.start(current))

    def _of_samples(self, current):
        """A function of leaves: what all samples share differs between them once some have padding, unless it counts all."""
        batch, *shape = ops.shape(current)

        def of_samples(leaf):
            is_shared = ops.is_tensor(leaf) and not len(leaf.shape)
            if not is_shared or (self.cell.moves_in_padding and not time_axis.is_float(leaf.dtype)):
                return leaf
            return ops.broadcast_to(leaf, (batch, *[1 for _ in shape]))

        return of_samples

    def advance(self, phase, current, carried):
        valid = phase["valid"]
        if self.cell.moves_in_padding:
            phase = self._inner.valid_phase(phase["inner"], time_axis.as_rows(valid, current))
            results, after = self._inner.advance(phase, time_axis.zero_unless(valid, current), carried)
            return time_axis.zero_unless(valid, results), tree.map_leaves(
                self._of_samples(current), self._inner.as_tensors(after)
            )
        results, after = self._inner.advance(phase["inner"], current, carried)

        def kept(new, old):
            if new is old:
                # With many windows, most traces are of others than that of this step.
                return new
            like = new if ops.is_tensor(new) and len(new.shape) else current
            return ops.where(time_axis.as_rows(valid, like), new, old)

        waiting = self._inner.at_padding(carried)
        return time_axis.zero_unless(valid, results), tree.map_leaves(kept, self._inner.as_tensors(after), waiting)

    def finish(self, carried):
        return self._inner.finish(carried)

    def as_tensors(self, carried):
        return self._inner.as_tensors(carried)

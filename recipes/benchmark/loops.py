"""The time loops of neuron layers under XLA: all unrolled, or all compiled as loops."""

import contextlib

from keras_ratesnn._core.backend import xla_loops


@contextlib.contextmanager
def unrolled(choice):
    """A context in which XLA unrolls the time loop of every neuron layer, or of none.

    Programs that are compiled in the context keep their loops afterwards.

    Args:
        choice: Boolean.
    """
    before = dict(xla_loops.UNROLLED_STEPS)
    limit = float("inf") if choice else 1
    xla_loops.UNROLLED_STEPS.update({kind: {False: limit, True: limit} for kind in before})
    try:
        yield
    finally:
        xla_loops.UNROLLED_STEPS.update(before)

"""The time loops of neuron layers on JAX: all unrolled, or all compiled as loops."""

import contextlib


@contextlib.contextmanager
def unrolled(choice):
    """A context in which JAX unrolls the time loop of every neuron layer, or of none.

    Programs that are compiled in the context keep their loops afterwards.

    Args:
        choice: Boolean.
    """
    # Imported here because this module imports JAX.
    from keras_ratesnn._core.backend import jax

    before = dict(jax.UNROLLED_STEPS)
    limit = float("inf") if choice else 1
    jax.UNROLLED_STEPS.update({kind: {False: limit, True: limit} for kind in before})
    try:
        yield
    finally:
        jax.UNROLLED_STEPS.update(before)

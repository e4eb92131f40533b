"""The time loops of neuron layers under XLA: all unrolled, or all compiled as loops."""

import sys

import keras_ratesnn


def unrolled(choice):
    """A context in which XLA unrolls the time loop of every neuron layer, or of none.

    Programs that are compiled in the context keep their loops afterwards.

    Args:
        choice: Boolean.
    """
    limit = sys.maxsize if choice else 1
    return keras_ratesnn.engine_settings(unrolled_steps={kind: {False: limit, True: limit} for kind in ("cpu", "gpu")})

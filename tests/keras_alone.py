"""Keras for processes of their own, half of whose time it would take to import what it
can do without."""

import sys


def imported_alone(backend):
    """Keras, without the packages that it imports only if they are there."""
    others = dict.fromkeys({"jax", "sklearn", "tensorflow"} - {backend})
    sys.modules |= others
    import keras

    if "tensorflow" in others:
        # Here it looks for TensorFlow, once.
        keras.utils.set_random_seed(0)
    for name in others:
        del sys.modules[name]
    return keras

"""The precision of the checks."""

import contextlib

import keras


@contextlib.contextmanager
def single_precision():
    """Creates all layers inside with float32, for any policy of the user, because comparisons need it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

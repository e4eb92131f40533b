"""The precision that checks run in."""

import contextlib

import keras


@contextlib.contextmanager
def single_precision():
    """float32 for all layers that are made inside, whatever the user's policy is: comparisons need it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

"""The precision of new layers."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def global_policy(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Creates all layers inside with a dtype policy, whatever the global one of the
    user is."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

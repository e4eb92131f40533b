"""Context variables with another value for a while."""

import contextlib


@contextlib.contextmanager
def setting(variable, value):
    """A context in which a `contextvars.ContextVar` has a value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)

"""Context variables and attributes with another value for a while."""

import contextlib


@contextlib.contextmanager
def setting(variable, value):
    """A context in which a `contextvars.ContextVar` has a value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@contextlib.contextmanager
def replaced(owner, name, value):
    """A context in which an attribute of an object has a value."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)

"""Marks outputs that will not be differentiated, as in testing and prediction: methods
may then do less."""

import contextlib
import contextvars

from keras_ratesnn._core.contexts import setting

_is_undifferentiated = contextvars.ContextVar(
    "keras_ratesnn_undifferentiated", default=False
)


def undifferentiated() -> contextlib.AbstractContextManager[None]:
    """A context for outputs that will not be differentiated."""
    return setting(_is_undifferentiated, True)


def is_undifferentiated() -> bool:
    """Whether the outputs of a model will not be differentiated."""
    return _is_undifferentiated.get()

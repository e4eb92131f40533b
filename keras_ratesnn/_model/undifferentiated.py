"""Marks outputs that will not be differentiated, as in testing and prediction: methods
may then do less."""

import contextlib
import contextvars
from typing import Any

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


class UndifferentiatedSteps:
    """A mixin for Keras models: the outputs of test and prediction steps are not
    differentiated."""

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        with undifferentiated():
            return super().test_step(*args, **kwargs)  # type: ignore[misc]

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        with undifferentiated():
            return super().predict_step(*args, **kwargs)  # type: ignore[misc]

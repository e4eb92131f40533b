"""Marks outputs that will not be differentiated, as in testing and prediction: methods may then do less."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

_is_without_gradient = contextvars.ContextVar("keras_ratesnn_without_gradient", default=False)


@contextlib.contextmanager
def without_gradient() -> Iterator[None]:
    """A context for outputs that will not be differentiated."""
    token = _is_without_gradient.set(True)
    try:
        yield
    finally:
        _is_without_gradient.reset(token)


def is_without_gradient() -> bool:
    """Whether the outputs of a model will not be differentiated."""
    return _is_without_gradient.get()


class StepsWithoutGradient:
    """A mixin for Keras models: the outputs of test and prediction steps are not differentiated."""

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        with without_gradient():
            return super().test_step(*args, **kwargs)  # type: ignore[misc]

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        with without_gradient():
            return super().predict_step(*args, **kwargs)  # type: ignore[misc]

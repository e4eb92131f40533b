"""What callbacks do before and after `fit` as a whole: Keras tells them nothing of its data, nor of its errors."""

import contextlib
import sys

import keras


@contextlib.contextmanager
def around_fit(model, x, callbacks):
    """A context for Keras' `fit`: before it, callbacks check the model and its data; after it they undo what they changed.

    Args:
        model: The model that `fit` trains.
        x: Its argument `x`.
        callbacks: Its argument `callbacks`. Those with methods `on_fit_begin(model, x)` and `on_fit_end(error)` are called.
    """
    listed = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else keras.tree.flatten(callbacks)
    found = [callback for callback in listed if hasattr(callback, "on_fit_begin")]
    for callback in found:
        callback.on_fit_begin(model, x)
    try:
        yield
    finally:
        for callback in found:
            callback.on_fit_end(sys.exception())

"""The callbacks of `fit`: their order, and what they do before and after it, as Keras
tells them nothing of data and errors."""

import contextlib
import sys
import warnings
from typing import Any

import keras

from keras_ratesnn._core import keras_internals

_READ_LOGS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.EarlyStopping,
    keras.callbacks.History,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


def in_order(callbacks: Any) -> Any:
    """The callbacks given to `fit`, in the order in which each sees what it should.

    Those that change the number of time steps of a batch, `changes_timesteps = True`,
    come first: they change it back before others see or save the model. Those that add
    to the logs, `adds_to_logs = True`, come in front of those of Keras that only read
    the logs, because Keras hands the logs from one callback to the next: what a later
    one adds, an earlier one does not see. Any other callback may change the model: what
    stands behind it stays there, and a warning says so.

    Args:
        callbacks: As for `fit`: a `keras.callbacks.CallbackList`, which is changed, a
            callback, a list or `None`.

    Returns:
        The `CallbackList`, or a list.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks = _in_order(callbacks.callbacks)
        return callbacks
    return _in_order(keras.tree.flatten(callbacks or []))


def _in_order(callbacks):
    changing = [callback for callback in callbacks if _changes_batches(callback)]
    if len(changing) > 1:
        names = " and ".join(type(callback).__name__ for callback in changing)
        raise ValueError(
            "`callbacks` may have one callback that sets the number of time steps of "
            f"a batch. Received: {names}."
        )
    remaining = [callback for callback in callbacks if not _changes_batches(callback)]
    ordered: list[keras.callbacks.Callback] = []
    for callback in changing + remaining:
        index = len(ordered)
        if getattr(callback, "adds_to_logs", False):
            while index and isinstance(ordered[index - 1], _READ_LOGS):
                index -= 1
            _warn_of_readers(callback, ordered[:index])
        ordered.insert(index, callback)
    return ordered


def _changes_batches(callback):
    return getattr(callback, "changes_timesteps", False)


def _warn_of_readers(callback, earlier):
    readers = [
        type(callback).__name__
        for callback in earlier
        if isinstance(callback, _READ_LOGS)
    ]
    if readers:
        name = type(callback).__name__
        warnings.warn(
            f"`callbacks`: {', '.join(readers)} will not see what {name} adds to the "
            f"logs, since it comes earlier, and {type(earlier[-1]).__name__} between "
            f"them may change the model that {name} measures. Put {name} in front of "
            f"{readers[0]}, or {readers[0]} behind {name}.",
            stacklevel=5,
        )


@contextlib.contextmanager
def around_fit(model, x, callbacks):
    """A context for Keras' `fit`: before it, callbacks check the model and its data;
    after it they undo what they changed.

    Args:
        model: The model that `fit` trains.
        x: Its argument `x`.
        callbacks: What `in_order` returned. Those with methods `on_fit_begin(model, x)`
            and `on_fit_end(error)` are called.
    """
    listed = (
        callbacks.callbacks
        if isinstance(callbacks, keras.callbacks.CallbackList)
        else callbacks
    )
    told = [callback for callback in listed if hasattr(callback, "on_fit_begin")]
    for callback in told:
        callback.on_fit_begin(model, x)
    try:
        yield
    finally:
        keras_internals.keep_apart(model)
        for callback in told:
            callback.on_fit_end(sys.exception())

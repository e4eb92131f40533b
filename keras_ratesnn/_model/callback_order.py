"""The order of the callbacks of `fit`: those that add to the logs run before those that read them."""

import warnings
from typing import Any

import keras

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


def measurements_first(callbacks: Any) -> Any:
    """The callbacks given to `fit`, with those that add to the logs in front of those of Keras that only read the logs.

    Keras hands the logs from one callback to the next: what a later one adds, an earlier one does not see. Any other callback
    may change the model: what stands behind it stays there, and a warning says so.

    Args:
        callbacks: As for `fit`: a `keras.callbacks.CallbackList`, which is changed, a callback, a list or `None`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks = _in_order(callbacks.callbacks)
        return callbacks
    return _in_order(keras.tree.flatten(callbacks)) if isinstance(callbacks, (list, tuple)) else callbacks


def _in_order(callbacks):
    ordered: list[keras.callbacks.Callback] = []
    for callback in callbacks:
        index = len(ordered)
        if getattr(callback, "_adds_to_logs", False):
            while index and isinstance(ordered[index - 1], _READ_LOGS):
                index -= 1
            _warn_of_readers(callback, ordered[:index])
        ordered.insert(index, callback)
    return ordered


def _warn_of_readers(callback, earlier):
    readers = [type(other).__name__ for other in earlier if isinstance(other, _READ_LOGS)]
    if readers:
        name = type(callback).__name__
        warnings.warn(
            f"`callbacks`: {', '.join(readers)} will not see what {name} adds to the logs, since it comes earlier, and "
            f"{type(earlier[-1]).__name__} between them may change the model that {name} measures. Put {name} in front of "
            f"{readers[0]}, or {readers[0]} behind {name}.",
            stacklevel=5,
        )

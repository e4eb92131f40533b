"""The order of the callbacks of `fit`: those that add to the logs run before those that read them."""

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
    """The callbacks given to `fit`, with those that add to the logs in front of the first of Keras' that reads the logs.

    Keras hands the logs from one callback to the next: what a later one adds, an earlier one does not see. All others keep
    their order.

    Args:
        callbacks: As for `fit`: a `keras.callbacks.CallbackList`, which is changed, a callback, a list or `None`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks = _in_order(callbacks.callbacks)
        return callbacks
    return _in_order(keras.tree.flatten(callbacks)) if isinstance(callbacks, (list, tuple)) else callbacks


def _in_order(callbacks):
    first = next((index for index, callback in enumerate(callbacks) if isinstance(callback, _READ_LOGS)), len(callbacks))
    before, after = callbacks[:first], callbacks[first:]
    late = [callback for callback in after if getattr(callback, "_adds_to_logs", False)]
    return [*before, *late, *(callback for callback in after if callback not in late)]

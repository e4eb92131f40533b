"""Outputs of all steps with their Keras mask, for losses of samples: these have no time
axis, so Keras cannot apply a mask with one."""

from typing import Any

from keras import ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.annotations import Structure, Tensor


def with_counts(y_pred: Tensor, dtype: Any) -> Structure:
    """A dict of the outputs and of what counts, or the outputs alone if they have no
    mask with a time axis."""
    mask = keras_internals.mask_of(y_pred)
    if mask is None or len(mask.shape) == 1:
        return y_pred
    return {"steps": y_pred, "counts": ops.cast(mask, dtype)}


def steps_and_counts(y_pred: Structure) -> tuple[Tensor, Tensor | None]:
    """`(outputs, counts)` of what `with_counts` returned; `counts` is `None` if all
    steps count."""
    if isinstance(y_pred, dict):
        return y_pred["steps"], y_pred["counts"]
    return y_pred, None

"""Assertions of the checks, with explanations."""

import functools
import pathlib
import tempfile

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import tree


def to_numpy(structure):
    """Converts a structure of tensors to arrays; floats become float64, which can
    represent all half precision types."""

    def as_array(tensor):
        array = np.asarray(ops.convert_to_numpy(tensor))
        return array.astype("float64") if array.dtype.kind not in "biu" else array

    return tree.map_leaves(as_array, structure)


def require(condition, finding):
    """Raises AssertionError with the finding unless the condition holds."""
    if not condition:
        raise AssertionError(finding)


def require_same(arrays, expected, finding, rtol=0.0, atol=0.0):
    """Raises AssertionError with the finding and the largest difference unless two
    structures of arrays are close.

    Args:
        arrays: Structure of arrays.
        expected: Structure of arrays.
        finding: String, the explanation if they are not.
        rtol: Float, tolerance relative to the largest expected value. Defaults to
            `0.0`.
        atol: Float, absolute tolerance. Defaults to `0.0`.
    """
    arrays, expected = tree.flatten(arrays), tree.flatten(expected)
    require(
        len(arrays) == len(expected),
        f"{finding} There are {len(arrays)} tensors, not {len(expected)}.",
    )
    for ours, theirs in zip(arrays, expected, strict=True):
        require(
            ours.shape == theirs.shape,
            f"{finding} The shape is {ours.shape}, not {theirs.shape}.",
        )
        if not ours.size:
            continue
        difference = np.abs(ours.astype("float64") - theirs)
        allowed = atol + rtol * np.abs(theirs).max()
        # NaN in both counts as equal.
        far = ~((difference <= allowed) | (np.isnan(ours) & np.isnan(theirs)))
        if far.any():
            index = np.unravel_index(
                np.where(far, np.nan_to_num(difference, nan=np.inf), -1.0).argmax(),
                ours.shape,
            )
            where = tuple(int(i) for i in index)
            raise AssertionError(
                f"{finding} {far.sum()} of {far.size} values differ, most at {where}: "
                f"{ours[index]} instead of {theirs[index]}."
            )


require_close = functools.partial(require_same, rtol=1e-4, atol=1e-6)


def saved_and_loaded(model):
    """A model as it is after saving and loading."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.keras"
        model.save(file)
        return keras.saving.load_model(file)

"""Masks in time: which steps of the sequences in a batch are padding."""

import functools
import math
import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, time_axis
from keras_ratesnn._model.input_checks import check_batch, with_time

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def masked(model, pairs, mask):
    """The inputs of a call, with the masks of their rows on them, where layers find
    them, and the mask in time.

    Args:
        model: A `SpikingModel`. At a step that is padding all elements have its
            `mask_value`, unless that is `None`.
        pairs: List of `(tensor, has_time)`, its inputs.
        mask: `None`, or a mask, or a structure of masks like the inputs: for an input
            with time `(batch, T)`, or `(batch, T, rows)` for rows that are masked at
            some steps; for one without time `(batch, rows)`. A single mask for several
            inputs is that of the inputs with time.

    Returns:
        `(pairs, mask)`: the inputs, and a boolean tensor `(batch, T)`, false for
        padding; `None` if all steps count.

    Raises:
        ValueError: If a mask does not fit its input, or there is no input with time for
            a single mask.
    """
    inputs, in_time, mask_value = [], [], model.mask_value
    for (tensor, timed), input_mask in zip(
        pairs, _masks_of(model, pairs, mask), strict=True
    ):
        if input_mask is None:
            input_mask = keras_internals.mask_of(tensor)
        _check_rank(input_mask, tensor)
        if timed and mask_value is not None:
            in_time.append(_any_of_each(_is_data(tensor, mask_value)))
        if input_mask is not None:
            row_mask = ops.cast(input_mask, "bool")
            if timed:
                # A step counts where some of its rows do.
                in_time.append(_any_of_each(row_mask))
                row_mask = row_mask if len(row_mask.shape) > 2 else None
            # What a row holds at the steps at which it is masked does not matter.
            clean = time_axis.zero_unless(row_mask, tensor) if timed else tensor
            # Another tensor: the caller's keeps its mask.
            tensor = keras_internals.put_mask(
                ops.copy(tensor) if clean is tensor else clean, row_mask
            )
        inputs.append((tensor, timed))
    return inputs, functools.reduce(ops.logical_and, in_time) if in_time else None


def checked_mask_value(value):
    """The argument `mask_value` as a float or `None`; raises an error unless it is
    None, or a number that data can hold."""
    if value is None:
        return None
    advice = "It is what all elements of a time step are where it is padding."
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise checks.wrong_type(
            "mask_value", "a number, which may be NaN, or None", value, advice
        )
    if value in (math.inf, -math.inf) or value != value:
        return float(value)
    return checks.real("mask_value", value, advice=advice)


def check_data_hold(model, pairs, mask):
    """Raises ValueError if no input has time, or none can hold the value of padding,
    and no mask says what is padding.

    For the arguments see `masked`; the inputs are those before they are cast to the
    dtypes that the network wants.
    """
    mask_value = model.mask_value
    if mask_value is None or mask is not None:
        return
    timed = [
        (tensor, wanted)
        for (tensor, timed), wanted in zip(pairs, model.inputs, strict=True)
        if timed
    ]
    if not timed:
        raise ValueError(
            "`mask_value` says which time steps are padding. Received: "
            f"mask_value={mask_value}, and data without time, of shape "
            f"{tuple(pairs[0][0].shape)}. Pass one frame for each step, (batch, "
            f"{model.timesteps}, ...), or set model.mask_value = None."
        )
    wrong = []
    for tensor, wanted in timed:
        held = [
            dtype
            for dtype in (tensor.dtype, wanted.dtype)
            if not _as_data_holds_it(mask_value, dtype)
        ]
        if not held:
            return
        wrong.append(
            (
                keras_internals.name_of_input(wanted),
                keras.backend.standardize_dtype(held[0]),
            )
        )
    if wrong:
        name, dtype = wrong[0]
        raise ValueError(
            "`mask_value` must be a number that the data can hold. Received: "
            f"mask_value={mask_value} for input {name!r} of dtype {dtype}, which has "
            "no such number. Pad with a number of this dtype, convert the data before "
            "they are padded, or pass a mask."
        )


def check_samples(model, x):
    """Raises ValueError if a batch does not fit a `SpikingModel`, has no samples, or
    one of padding alone."""
    check_batch(model, x)
    check_some_steps_count(model, x)


def check_some_steps_count(model, x, mask=None):
    """Raises ValueError if all steps of a sample are padding, where that can be seen
    without reading a device's memory.

    Args:
        model: A `SpikingModel`.
        x: Its inputs, a structure of tensors or arrays.
        mask: See `masked`; with one, only what it masks is looked at. Defaults to
            `None`.
    """
    if not any(isinstance(leaf, np.ndarray) for leaf in keras.tree.flatten([x, mask])):
        return
    pairs = with_time(model, x)
    check_data_hold(model, pairs, mask)
    mask_value = model.mask_value if mask is None else None
    for (tensor, timed), input_mask in zip(
        pairs, _masks_of(model, pairs, mask), strict=True
    ):
        counts = []
        if timed and isinstance(input_mask, np.ndarray):
            counts.append(_any_of_each(input_mask, np))
        if timed and mask_value is not None and isinstance(tensor, np.ndarray):
            counts.append(_any_of_each(_is_data(tensor, mask_value, np), np))
        empty: Any = (
            []
            if not counts
            else np.flatnonzero(~np.logical_and.reduce(counts).any(axis=1))
        )
        if len(empty):
            raise ValueError(
                "Each sample must have at least one time step that is not padding. "
                f"Received: only padding in {len(empty)} of {len(counts[0])} samples, "
                f"the first of them sample {empty[0]}. Leave them out."
            )


def _masks_of(model, pairs, mask):
    """The mask of each input of a model, a list; raises ValueError if one does not
    fit."""
    if mask is None:
        return [None for _ in pairs]
    masks = (
        _masks_where_time_is(mask, pairs)
        if hasattr(mask, "shape")
        else _in_structure(_graph.as_graph(model.network), mask)
    )
    for (tensor, timed), input_mask, wanted in zip(
        pairs, masks, model.inputs, strict=True
    ):
        if input_mask is not None:
            name = keras_internals.name_of_input(wanted)
            _check_values(input_mask, name)
            _check_rank(input_mask, tensor)
            _check_shape(input_mask, tensor, timed, name)
    return masks


def _masks_where_time_is(mask, pairs):
    if len(pairs) > 1 and not any(timed for _, timed in pairs):
        raise ValueError(
            "A single `mask` for several inputs masks time steps. Received: mask of "
            f"shape {tuple(mask.shape)}, and inputs without time. Pass masks in a "
            "structure like the inputs."
        )
    return [mask if timed or len(pairs) == 1 else None for _, timed in pairs]


def _in_structure(network, mask):
    wrong = [
        leaf
        for leaf in keras.tree.flatten(mask)
        if not (leaf is None or hasattr(leaf, "shape"))
    ]
    if not wrong:
        try:
            return _graph.match_inputs(network, mask)
        except ValueError as error:
            raise ValueError(
                "`mask` must be a single mask, or masks in a structure like the "
                f"inputs. {error}"
            ) from error
    raise TypeError(
        "`mask` must be a boolean tensor or array, or tensors, arrays and None in a "
        f"structure like the inputs. Received: mask of type {type(mask).__name__} with "
        f"{wrong[0]!r} in it. Convert a list of numbers with np.asarray."
    )


def _check_values(mask, name):
    """Raises an error for a mask of other values than booleans and numbers, or an array
    of others than 0 and 1."""
    advice = (
        "False and 0 are padding. Pass for example np.arange(timesteps) < "
        "lengths[:, None]."
    )
    if not checks.holds_numbers(mask):
        raise TypeError(
            f"`mask` of input {name!r} must hold booleans. Received: a mask of dtype "
            f"{mask.dtype}. {advice}"
        )
    wrong: Any = mask[(mask != 0) & (mask != 1)] if isinstance(mask, np.ndarray) else ()
    if len(wrong):
        raise ValueError(
            f"`mask` of input {name!r} must hold booleans. Received: a mask with "
            f"{wrong[0]} in it. {advice}"
        )


def _check_rank(mask, tensor):
    """Raises ValueError if a mask has an unknown number of axes, as TensorFlow's may
    have."""
    if mask is not None and getattr(mask.shape, "rank", 0) is None:
        wanted = tuple(tensor.shape[:2])
        raise ValueError(
            "`mask` must have a known number of axes, to decide whether it masks rows "
            "of a step, too. Received: a mask of unknown rank. Set its shape: "
            f"tf.ensure_shape(mask, {wanted})."
        )


def _check_shape(mask, tensor, timed, name):
    rank, shape = len(mask.shape), tuple(tensor.shape)
    if (
        rank < 2
        or rank > len(shape)
        or not checks.fits(tuple(mask.shape), shape[:rank])
    ):
        wanted = "(batch, time), or (batch, time, rows)" if timed else "(batch, rows)"
        no_time = (
            "" if timed else " The input has no time, so that no step of it is padding."
        )
        raise ValueError(
            f"`mask` of input {name!r} must have the shape {wanted} of the first axes "
            f"of the input. Received: mask of shape {tuple(mask.shape)} for an input "
            f"of shape {shape}.{no_time}"
        )


def _is_data(tensor, mask_value, numpy=ops):
    """Where a tensor does not hold the value of padding, which may be NaN."""
    if mask_value != mask_value:
        return numpy.logical_not(numpy.isnan(tensor))
    differs = [
        numpy.not_equal(tensor, value)
        for value in _as_data_holds_it(mask_value, tensor.dtype)
    ]
    return (
        functools.reduce(numpy.logical_and, differs)
        if differs
        else numpy.ones_like(tensor, dtype="bool")
    )


def _as_data_holds_it(mask_value, dtype):
    """The numbers that the value of padding may be in data of a dtype: −0.1 in half
    precision is another number.

    Data may have had another precision before: Keras casts what `fit` gets. A number
    that a dtype does not hold, since it is 0 or infinite there, or no integer of this
    size, is in no data of this dtype.
    """
    dtype, values = keras.backend.standardize_dtype(dtype), []
    if dtype.startswith(("bool", "int", "uint")):
        least, most = (
            (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        )
        return (
            [int(mask_value)]
            if least <= mask_value <= most and mask_value == int(mask_value)
            else []
        )
    with np.errstate(over="ignore"):
        for first in _FLOATS:
            value = np.float64(mask_value).astype(first)
            value = float(value.astype(dtype) if dtype in _FLOATS else value)
            if (
                value == mask_value
                or mask_value != mask_value
                or (value and math.isfinite(value))
            ):
                values.append(value)
    return dict.fromkeys(values)


def _any_of_each(steps, numpy=ops):
    """Whether any element of each step is true, `(batch, T)`, of a boolean tensor
    `(batch, T, ...)`."""
    if len(steps.shape) < 3:
        return steps
    _, timesteps, *shape = steps.shape
    if None in (timesteps, *shape):
        return numpy.any(steps, axis=tuple(range(2, len(steps.shape))))
    # One axis: OpenVINO's converter fails at several.
    return numpy.any(numpy.reshape(steps, (-1, timesteps, math.prod(shape))), axis=2)

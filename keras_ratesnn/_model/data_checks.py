"""Checks of the values of data: labels that are no numbers or no classes, NaN, and
images that are scaled twice."""

import math
import numbers

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model import loss_checks
from keras_ratesnn._model.input_checks import match
from keras_ratesnn._model.silence_causes import any_nan
from keras_ratesnn.layer_kinds import fixed_scale

_SMALL_SCALE = 1 / 8
"""A `Rescaling` by less makes numbers between 0 and 1 of larger ones."""

_SAMPLES = 32
"""The number of samples that are read to tell whether data are scaled."""


def check_labels(model, y, sample_weight=None):
    """Raises ValueError if labels, arrays, are no numbers, or the loss takes numbers of
    classes and one is no class.

    Args:
        model: A `SpikingModel`.
        y: The labels, as Keras takes them. Of data sets nothing is known, see
            `check_first_batch`.
        sample_weight: With weights, or a class that the loss ignores, labels may be of
            no class. Defaults to `None`.
    """
    check_numbers(y)
    _check_classes(model, y, sample_weight)


def check_numbers(y):
    """Raises ValueError if labels, arrays, are no numbers."""
    for leaf in keras.tree.flatten(y):
        is_array = isinstance(leaf, np.ndarray)
        if isinstance(leaf, (str, numbers.Number)) or (
            is_array and leaf.dtype.kind in "USO"
        ):
            received = (
                f"an array of dtype {leaf.dtype}"
                if is_array
                else f"{leaf!r} of type {type(leaf).__name__}, in a list"
            )
            raise ValueError(
                f"`y` must be an array of numbers. Received: {received}. Convert lists "
                "with np.asarray, and number classes that have names: names, y = "
                "np.unique(y, return_inverse=True)."
            )


def are_arrays(structure):
    """Whether all leaves of a structure are arrays of NumPy's."""
    return all(isinstance(leaf, np.ndarray) for leaf in keras.tree.flatten(structure))


def check_first_batch(model, data, trains):
    """Raises ValueError if the loss takes numbers of classes and a label of the first
    batch is no class.

    Args:
        model: A `SpikingModel`.
        data: What Keras passes to the function of a step.
        trains: Boolean, whether the step trains the model, which then remembers whether
            its inputs have time.

    Returns:
        The data that replace `data`, whose iterator has been read from.
    """
    batches, data = engine.batches_of_step(data, model.steps_per_execution)
    for batch in batches[:1]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if trains:
            model.remember_time(x)
        # Labels of other shapes are not checked, nor read, nor are those that other
        # processes have.
        if (
            ops.is_tensor(y)
            and tuple(y.shape[1:]) in ((), (1,))
            and getattr(y, "is_fully_addressable", True)
        ):
            y = ops.convert_to_numpy(y)
        _check_classes(model, y, sample_weight, " of the first batch")
    return data


def _check_classes(model, y, sample_weight, of=""):
    if sample_weight is None and loss_checks.takes_classes(model):
        for output in keras.tree.flatten(
            keras_internals.outputs_structure(_graph.as_graph(model.network))
        ):
            checks.labels("y", y, output, of)


def problem_of_nan(model, x, y):
    """The problem if arrays have NaN that makes the loss NaN, a text; else `None`.

    Networks and losses may well take NaN, for what is not known, so a sample is tried.

    Args:
        model: A `SpikingModel`.
        x: The inputs, as Keras takes them.
        y: The labels, likewise.
    """
    if are_arrays(x):
        row = _first_nan_in(x, model.mask_value)
        if row is not None and _is_nan(
            model, keras.tree.map_structure(lambda leaf: leaf[row : row + 1], x)
        ):
            return (
                f"`x` has NaN in sample {row}, and the outputs for it are NaN: so "
                "are the loss, and all weights after a step with it. Leave out such "
                "samples, or fill the gaps, np.nan_to_num(x). If NaN stands for time "
                "steps that are padding, create the model with mask_value=np.nan; all "
                "elements of such a step must be NaN."
            )
    row = _first_nan_in(y, None)
    if (
        row is not None
        and loss_checks.is_of_keras(model)
        and not loss_checks.takes_classes(model)
    ):
        return (
            f"`y` has NaN in the labels of sample {row}: so is the loss, and so are "
            "all weights after a step with it. Leave out such samples, or use a loss "
            "of your own that does."
        )
    return None


def problem_of_scale(model, x):
    """The problem if arrays lie between 0 and 1, and the network scales them to that
    range itself, a text; else `None`.

    Args:
        model: A `SpikingModel`.
        x: The inputs, as Keras takes them.
    """
    network = _graph.as_graph(model.network)
    for index, layer in _scaled_inputs(network) if are_arrays(x) else ():
        scale = float(np.max(np.abs(fixed_scale(layer))))
        if 0 < scale <= _SMALL_SCALE and _is_scaled(
            match(network, x)[index][:_SAMPLES]
        ):
            return (
                "`x` lies between 0 and 1, and the network multiplies it by "
                f"{scale:.4g} in {layer.name!r}: numbers that are scaled already are "
                "scaled again, and the outputs are wrong. Pass the numbers of the "
                f"data set, 0 to {1 / scale:.4g}, or leave that layer out."
            )
    return None


def _scaled_inputs(network):
    """Pairs of the index of an input and a layer that scales it."""
    producers = _graph.producers_of(network)
    for index, slot in enumerate(_graph.whole_of(network).inputs):
        for call in producers[slot.index].consumers:
            if call is not None and fixed_scale(call.operation) is not None:
                yield index, call.operation


def _is_scaled(array):
    """Whether numbers lie between 0 and 1, and some of them are not 0 or 1."""
    is_float = array.dtype.kind == "f" and array.size
    return bool(
        is_float
        and np.min(array) >= 0
        and np.max(array) <= 1
        and np.any((array > 0) & (array < 1))
    )


def _first_nan_in(structure, mask_value):
    """`_first_nan` of the first array in a structure that has one, or `None`."""
    rows = (
        _first_nan(leaf, mask_value)
        for leaf in keras.tree.flatten(structure)
        if isinstance(leaf, np.ndarray)
    )
    return next((row for row in rows if row is not None), None)


def _first_nan(array, mask_value):
    """The index of the first sample with NaN, or `None`; with the `mask_value` NaN,
    with NaN in a part of a time step."""
    # A file in memory is read once, by Keras. The minimum is NaN if anything is, and
    # needs no memory.
    if (
        array.dtype.kind != "f"
        or not array.size
        or isinstance(array, np.memmap)
        or not np.isnan(np.min(array))
    ):
        return None
    is_padding = mask_value is not None and math.isnan(mask_value) and array.ndim > 2
    for index, sample in enumerate(array):
        is_nan = np.isnan(sample)
        if is_padding:
            is_nan = is_nan.reshape(len(is_nan), -1)
            is_nan = is_nan.any(axis=1) & ~is_nan.all(axis=1)
        if is_nan.any():
            return index
    return None


def _is_nan(model, x):
    with engine.no_gradient():
        outputs = model(
            keras.tree.map_structure(ops.convert_to_tensor, x), training=False
        )
    return any_nan(outputs)

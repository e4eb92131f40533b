"""Batches of samples with labels, and what they are compared with."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.analysis import _observation
from keras_ratesnn.spiking_model import SpikingModel


def batches(x: Structure, y: Any, batch_size: int) -> Iterator[tuple[Structure, Tensor]]:
    """Yields batches of inputs and labels, as tensors.

    Raises:
        TypeError: If `batch_size` is not an integer.
        ValueError: If it is not >= 1, or `x` and `y` do not have the same number of samples, at least one.
    """
    size = checks.positive_integer("batch_size", batch_size, advice="It is the number of samples processed at once.")
    y = np.asarray(y)
    check_labels(x, y)
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        yield _observation.tensors(keras.tree.map_structure(lambda array: array[part], x)), ops.convert_to_tensor(y[part])  # noqa: B023


def check_labels(x: Structure, y: Any) -> None:
    """Raises ValueError if inputs and labels do not have the same number of samples, at least one."""
    found = _observation.samples(x)
    if not found or any(len(labels) != found for labels in keras.tree.flatten(y)):
        raise ValueError(
            "`x` and `y` must have the same number of samples, at least one. Received: "
            f"{found} inputs and {[len(labels) for labels in keras.tree.flatten(y)]} labels."
        )


def only_output(model: SpikingModel, outputs: Structure) -> Tensor:
    """The output of a model; raises ValueError if it has several."""
    if isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            f"`model` must have one output, whose accuracy is measured. Received: model {model.name!r} with {len(outputs)}. "
            "Make a SpikingModel of a keras.Model(network.inputs, network.output[...]), which shares the weights."
        )
    return outputs

"""Batches of samples with labels, their checks, and accuracies with their errors."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, progress
from keras_ratesnn._core.accuracy import is_right
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.progress import Verbosity
from keras_ratesnn._model import data_checks
from keras_ratesnn._model.time_masks import check_samples
from keras_ratesnn.analysis import _figures, _observation
from keras_ratesnn.spiking_model import SpikingModel


def batches(
    model: SpikingModel, x: Structure, y: Any, batch_size: int, verbose: Verbosity
) -> Iterator[tuple[Structure, Tensor]]:
    """Yields batches of inputs and labels, as tensors, and draws a progress bar.

    Raises:
        TypeError: If `batch_size` is not an integer.
        ValueError: If it is not >= 1, `verbose` is unknown, `x` does not fit the model,
            the model has several outputs, `x` and `y` do not have the same number of
            samples, at least one, or a label is of no class.
    """
    size = checks.positive_integer(
        "batch_size",
        batch_size,
        advice="It is the number of samples processed at once.",
    )
    check_samples(model, x)
    _check_one_output(model)
    y = ops.convert_to_numpy(y)
    check_labels(x, y)
    check_classes(model, "y", y)
    starts = range(0, len(y), size)
    for start in progress.tracked(starts, len(starts), verbose):
        inputs = keras.tree.map_structure(
            lambda array, start=start: array[start : start + size], x
        )
        yield (
            keras.tree.map_structure(ops.convert_to_tensor, inputs),
            ops.convert_to_tensor(y[start : start + size]),
        )


def check_labels(x: Structure, y: Any) -> None:
    """Raises ValueError if inputs and labels do not have the same number of samples, at
    least one."""
    samples = _observation.samples(x)
    sizes = [np.shape(labels)[:1] for labels in keras.tree.flatten(y)]
    if not sizes or any(size != (samples,) for size in sizes):
        raise ValueError(
            "`x` and `y` must have the same number of samples, at least one, and be "
            f"arrays. Received: {samples} inputs and {[*sum(sizes, ())]} labels."
        )


def check_classes(model: SpikingModel, name: str, y: np.ndarray) -> None:
    """Raises ValueError if labels are no numbers, or one is of no class of the only
    output."""
    data_checks.check_numbers(y)
    output = keras_internals.outputs_structure(_graph.as_graph(model.network))
    if isinstance(output, keras.KerasTensor):
        # A binary output is one number for two classes.
        checks.labels(name, y, np.empty((0, 2)) if output.shape[-1] == 1 else output)


def right(y: Tensor, outputs: Tensor, threshold: float) -> np.ndarray:
    """1 for each sample that is right, `(samples,)`, or the share of its labels that
    are; see `AnytimeAccuracy`."""
    labels, outputs = ops.convert_to_tensor(y), ops.convert_to_tensor(outputs)
    by_label = ops.convert_to_numpy(is_right(labels, outputs, "auto", threshold))
    return by_label.reshape(len(y), -1).mean(axis=1)


def standard_error(accuracy: Any, samples: int) -> Any:
    """How much an accuracy would differ between draws of as many samples: its standard
    deviation."""
    return np.sqrt(accuracy * (1 - accuracy) / samples)


def figure_by_step(
    accuracy: np.ndarray, samples: int, label: str, **look: Any
) -> tuple[Any, Any]:
    """A figure of the accuracies after each step, with their standard errors, which the
    label names, and its axes. The look is that of Matplotlib's `errorbar`."""
    figure, axes = _figures.new_figure(5.5, 3.6)
    axes.errorbar(
        np.arange(1, len(accuracy) + 1),
        accuracy,
        standard_error(accuracy, samples),
        label=f"{label}, ± standard error",
        **look,
    )
    axes.set(ylabel="accuracy", xticks=_figures.step_ticks(len(accuracy)))
    axes.grid(alpha=0.3)
    return figure, axes


def _check_one_output(model):
    """Raises ValueError if a model has several outputs."""
    outputs = keras_internals.outputs_structure(_graph.as_graph(model.network))
    if isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            "`model` must have one output, whose accuracy is measured. Received: "
            f"model {model.name!r} with {len(outputs)}. Make a SpikingModel of a "
            "keras.Model(network.inputs, network.output[...]), which shares the "
            "weights."
        )

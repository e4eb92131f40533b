"""The accuracy after each time step: how early a model could stop."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.progress import Verbosity
from keras_ratesnn.analysis import _accuracy, _observation
from keras_ratesnn.metrics import AnytimeAccuracy
from keras_ratesnn.spiking_model import SpikingModel, checked_model, twin_of


@dataclasses.dataclass(frozen=True, eq=False)
class AccuracyOverTime:
    """The result of `accuracy_over_time`.

    Args:
        accuracy: Array `(T,)`: the accuracy after 1, ..., T steps.
        trained_timesteps: Integer, the `timesteps` of the model.
        samples: Integer, the number of samples.
    """

    accuracy: np.ndarray
    trained_timesteps: int
    samples: int

    def plot(self) -> Any:
        """Draws the accuracy against the number of time steps, with its standard error
        for this number of samples.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        figure, axes = _accuracy.figure_by_step(
            self.accuracy,
            self.samples,
            f"{self.samples} samples",
            color="black",
            marker="o",
            capsize=2,
        )
        axes.axvline(
            self.trained_timesteps,
            color="0.5",
            linestyle="--",
            label=f"T = {self.trained_timesteps} of the model",
        )
        axes.set_xlabel("after time step")
        axes.legend(fontsize="small")
        return figure


def accuracy_over_time(
    model: SpikingModel,
    x: Structure,
    y: Any,
    timesteps: int | None = None,
    batch_size: int = 128,
    threshold: float = 0.5,
    verbose: Verbosity = "auto",
) -> AccuracyOverTime:
    """Measures the accuracy of the mean output after each time step.

    The output of a step does not depend on later steps, so one run gives the accuracy
    for every number of steps up to T. (An encoder that spreads its input over T steps,
    like `layers.LatencyEncoder`, is an exception: with fewer steps in all it would
    spike at other times.) The model runs in inference mode and is not changed.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits")
    >>> accuracy_over_time(
    ...     model, np.zeros((4, 8, 8, 1)), np.zeros(4), timesteps=8, verbose=0
    ... ).accuracy.shape
    (8,)

    Args:
        model: A `SpikingModel` with one output.
        x: Inputs, as for `model.predict`.
        y: Array, the labels: class indices, one-hot vectors, or 0 and 1 for each
            output, as for `"accuracy"` in Keras.
        timesteps: Integer T >= 1, the largest number of steps. Defaults to `None`, that
            of the model.
        batch_size: Integer, the number of samples that are processed at once. Defaults
            to `128`.
        threshold: Float, the output above which a binary label is 1; 0 for logits.
            Defaults to `0.5`.
        verbose: `"auto"`, 0, 1 or 2, as in `model.predict`: 1 shows a progress bar, 2 a
            line at the end, 0 nothing. Defaults to `"auto"`, which is 1.

    Returns:
        `AccuracyOverTime`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, or a number has the wrong type.
        ValueError: If `timesteps` or `batch_size` is not >= 1, `verbose` is unknown,
            the model has several outputs or a time mean, `x` and `y` do not have the
            same number of samples, or a label is of no class.
    """
    model = checked_model(model)
    _graph.check_mean_of_steps(_graph.as_graph(model.network))
    timesteps = model.timesteps if timesteps is None else timesteps
    watched = twin_of(model, "bptt", model.step_mode, return_sequences=True)
    watched.timesteps = timesteps
    metric = AnytimeAccuracy(
        watched.timesteps, threshold=checks.real("threshold", threshold)
    )
    for inputs, labels in _accuracy.batches(watched, x, y, batch_size, verbose):
        metric.update_state(labels, watched(inputs, training=False))
    accuracy = np.array(
        [float(ops.convert_to_numpy(value)) for value in metric.result().values()]
    )
    return AccuracyOverTime(accuracy, model.timesteps, _observation.samples(x))

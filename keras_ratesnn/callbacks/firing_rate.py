"""The firing rates of the network and of its layers, in the logs of each epoch."""

import os
import time
import warnings
from typing import Any

import keras
import numpy as np

from keras_ratesnn import analysis
from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.time_masks import check_samples
from keras_ratesnn.analysis.costs.description import describe
from keras_ratesnn.callbacks._measured import measured

_ADVICE = "The kernels that follow have a gradient of zero. Lower the learning rate. "


class FiringRate(keras.callbacks.Callback):
    """Adds the firing rate of the network to the logs of each epoch, or that of each
    layer as well, and warns of dead layers.

    The logs have `"firing_rate"`, the spikes per neuron and time step of the whole
    network. Other callbacks, the history and the progress bar see it. A network whose
    rate is near 0 is silent and does not learn; near 1 (with integer spikes, near their
    `levels`) its neurons saturate. For a `Distiller`, the student is measured.

    With `by_layer` the logs also have a value `"firing_rate/LAYER"` for each neuron
    layer, and a warning says when a layer dies: no neuron spikes for any sample of `x`,
    and the kernels after it have a gradient of zero. It is given again only if the
    layer has spiked in between.

    After each epoch this costs one forward pass over `x` in eager mode, and a copy of
    all spikes.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((8, 4))
    >>> history = model.fit(
    ...     x,
    ...     np.ones((8, 2)),
    ...     callbacks=[keras_ratesnn.callbacks.FiringRate(x)],
    ...     verbose=0,
    ... )
    >>> history.history["firing_rate"]
    [1.0]

    Args:
        x: Inputs to measure the rates on, as `SpikingModel` takes them. A hundred
            samples are enough.
        by_layer: Boolean, whether the logs also have the rate of each layer, and a
            layer that dies is warned of. Defaults to `False`.
        log_dir: String or path, a folder in which histograms of the rates of single
            neurons are written for TensorBoard, which must be installed. Defaults to
            `None`: none are written.

    Raises:
        TypeError: If `by_layer` is not a boolean, or `log_dir` neither a string nor a
            path.
        ValueError: When `fit` starts, if `x` does not fit the model or has no samples.
        ImportError: If `log_dir` is given and TensorBoard is not installed.
    """

    adds_to_logs = True

    def __init__(
        self,
        x: Structure,
        by_layer: bool = False,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.x = x
        self.by_layer = checks.boolean("by_layer", by_layer)
        self._writer = None if log_dir is None else _Histograms(log_dir)
        self._dead: set[str] = set()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        check_samples(measured(self.model), self.x)
        self._dead = set()
        if self._writer is not None:
            self._writer.open()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rates = analysis.firing_rates(measured(self.model), self.x)
        layer_rates = {
            f"firing_rate/{name}": rate
            for name, rate in zip(rates.layers, rates.mean.tolist(), strict=True)
        }
        if logs is not None:
            of_neurons = np.concatenate([rate.ravel() for rate in rates.by_neuron])
            logs["firing_rate"] = float(of_neurons.mean())
            logs.update(layer_rates if self.by_layer else {})
        if self._writer is not None:
            self._writer.write(zip(layer_rates, rates.by_neuron, strict=True), epoch)
        # A rate may be NaN.
        dead = {
            name
            for name, rate in zip(rates.layers, layer_rates.values(), strict=True)
            if not rate > 0
        }
        died = [name for name in rates.layers if name in dead - self._dead]
        self._dead = dead
        if died and self.by_layer:
            description = describe(measured(self.model), self.x, verbose=False)
            state = "no neuron spikes any more"
            advice = f"{_ADVICE}{description.remedy}"
            if description.nan:
                state, advice = "the rate is NaN", description.remedy
            warnings.warn(
                f"DEAD after epoch {epoch + 1}: {state} in {', '.join(died)}. {advice} "
                "keras_ratesnn.describe(model, x) shows all layers.",
                stacklevel=2,
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()


class _Histograms:
    """Writes histograms for TensorBoard to a folder, without TensorFlow.

    Args:
        log_dir: String or path.

    Raises:
        TypeError: If `log_dir` is neither a string nor a path.
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._log_dir = checks.path("log_dir", log_dir)
        try:
            from tensorboard.compat.proto import event_pb2
            from tensorboard.plugins.histogram.summary_v2 import histogram_pb
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(
                "`log_dir` needs TensorBoard, which is not installed. Received: "
                f"log_dir={self._log_dir!r}. Install it with `python -m pip install "
                "tensorboard`, or leave it out."
            ) from error
        self._event = event_pb2.Event
        self._histogram = histogram_pb
        self._file = EventFileWriter

    def open(self):
        """Starts a file, next to those of earlier runs."""
        self._open = self._file(self._log_dir, filename_suffix=".firing_rates")

    def write(self, histograms, epoch):
        """Writes histograms, pairs of a name and an array."""
        for name, values in histograms:
            # TensorBoard refuses NaN, in the middle of a run.
            summary = self._histogram(name, values[np.isfinite(values)])
            event = self._event(step=epoch, wall_time=time.time(), summary=summary)
            self._open.add_event(event)
        self._open.flush()

    def close(self):
        """Ends the file."""
        self._open.close()

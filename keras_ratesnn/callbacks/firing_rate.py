"""The firing rate of the whole network, in the logs of each epoch."""

from typing import Any

import keras

from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.analysis.description import describe
from keras_ratesnn.callbacks._measured import check_x, measured


class FiringRate(keras.callbacks.Callback):
    """Adds the firing rate of the whole network to the logs of each epoch, as `"firing_rate"`: spikes per neuron and time step.

    `FiringRates` has a value for each layer. Other callbacks, the history and the progress bar see the value. A network whose
    rate is near 0 is silent and does not learn; near 1 (with integer spikes, near
    their `levels`) its neurons saturate. For a `Distiller`, the student is measured.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((8, 4))
    >>> history = model.fit(x, np.ones((8, 2)), callbacks=[keras_ratesnn.callbacks.FiringRate(x)], verbose=0)
    >>> history.history["firing_rate"]
    [1.0]

    Args:
        x: Inputs to measure the rate on, as `SpikingModel` takes them. A hundred samples are enough.

    Raises:
        ValueError: When `fit` starts, if `x` does not fit the model or has no samples.
    """

    # `fit` puts it in front of the callbacks that read the logs.
    _adds_to_logs = True

    def __init__(self, x: Structure) -> None:
        super().__init__()
        self.x = x

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        check_x(self.model, self.x)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        layers = describe(measured(self.model), self.x, print_fn=None).layers
        if logs is not None:
            spikes = sum(layer.firing_rate * layer.neurons for layer in layers)
            logs["firing_rate"] = spikes / sum(layer.neurons for layer in layers)

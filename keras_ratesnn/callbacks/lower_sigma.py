"""Narrows the kernels of learned delays while training runs."""

from typing import Any

from keras_ratesnn._core import checks
from keras_ratesnn.callbacks._layer_schedule import LayerSchedule
from keras_ratesnn.layers import Delay


class LowerSigma(LayerSchedule):
    """Lowers `sigma` of all `Delay` layers by the same factor in each epoch, from half the largest delay to `end`.

    Example:

    >>> inputs = keras.Input((4,))
    >>> delay = keras_ratesnn.layers.Delay(max_delay=5)
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(delay(inputs))))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, gradient="bptt")
    >>> model.compile("sgd", "mse")
    >>> lower_sigma = keras_ratesnn.callbacks.LowerSigma(epochs=2)
    >>> history = model.fit(np.ones((8, 4, 4)), np.ones((8, 2)), epochs=3, callbacks=[lower_sigma], verbose=0)
    >>> round(delay.sigma, 6)
    0.23

    Args:
        epochs: Integer >= 1, the number of epochs after which σ is `end`. The source takes a quarter of all epochs.
        end: Float > 0, the last σ. Defaults to `0.23`.

    Raises:
        ValueError: If an argument is out of its range. When `fit` starts, if the model has no `Delay`.
        TypeError: If an argument has the wrong type.

    Source: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024.
    """

    layer_class = Delay

    def __init__(self, epochs: int, end: float = 0.23) -> None:
        super().__init__()
        self.epochs = checks.positive_integer("epochs", epochs, advice="After this number, σ stays as it is.")
        self.end = checks.real("end", end, above=0)

    def change(self, layer: Any, epoch: int) -> None:
        start = layer.max_delay // 2
        layer.sigma = start * (self.end / start) ** min(1.0, epoch / self.epochs)

"""Raises the mask of parallel neurons while training runs."""

from typing import Any

from keras_ratesnn._core import checks
from keras_ratesnn.callbacks._layer_schedule import LayerSchedule
from keras_ratesnn.layers import MaskedPSN


class RaiseMask(LayerSchedule):
    """Raises `mask` of all `MaskedPSN` layers in equal steps, from `start` in the first epoch to 1 in epoch `epochs`.

    Example:

    >>> inputs = keras.Input((4,))
    >>> neurons = keras_ratesnn.layers.MaskedPSN(timesteps=4, order=2, mask=0.0)
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(neurons(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", "mse")
    >>> raise_mask = keras_ratesnn.callbacks.RaiseMask(epochs=3)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=3, callbacks=[raise_mask], verbose=0)
    >>> neurons.mask
    1.0

    Args:
        epochs: Integer >= 1, the number of the first epoch with a mask of 1.
        start: Float from 0 to 1, the mask in the first epoch. Defaults to `0.0`.

    Raises:
        ValueError: If an argument is out of its range. When `fit` starts, if the model has no `MaskedPSN`.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., NeurIPS 2023.
    """

    layer_class = MaskedPSN

    def __init__(self, epochs: int, start: float = 0.0) -> None:
        super().__init__()
        self.epochs = checks.positive_integer("epochs", epochs, advice="The mask is 1 from this epoch on.")
        self.start = checks.real("start", start, at_least=0, at_most=1)

    def change(self, layer: Any, epoch: int) -> None:
        done = min(1.0, epoch / (self.epochs - 1)) if self.epochs > 1 else 1.0
        layer.mask = self.start + (1.0 - self.start) * done

"""Change a setting of some layers at the beginning of each epoch."""

import abc
from typing import Any

import keras

from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn.layers import Delay, MaskedPSN


class LayerSchedule(keras.callbacks.Callback, abc.ABC):
    """Base class: subclasses name `layer_class`, and implement `change(layer,
    epoch)`."""

    layer_class: type[keras.layers.Layer]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        inside = keras_internals.with_sublayers(self.model)
        self._layers = [
            layer for layer in inside if isinstance(layer, self.layer_class)
        ]
        if not self._layers:
            raise ValueError(
                f"{type(self).__name__} needs a model with {self.layer_class.__name__} "
                f"layers. Received: model {self.model.name!r} without any. Leave the "
                "callback out."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for layer in self._layers:
            self.change(layer, epoch)

    @abc.abstractmethod
    def change(self, layer: Any, epoch: int) -> None:
        """Sets what is due in an epoch, from 0 on."""


class LowerSigma(LayerSchedule):
    """Lowers `sigma` of all `Delay` layers by the same factor in each epoch, from half
    the largest delay to `end`.

    Example:

    >>> inputs = keras.Input((4,))
    >>> delay = keras_ratesnn.layers.Delay(max_delay=5)
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(delay(inputs)))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, gradient="bptt")
    >>> model.compile("sgd", "mse")
    >>> lower_sigma = keras_ratesnn.callbacks.LowerSigma(epochs=2)
    >>> history = model.fit(
    ...     np.ones((8, 4, 4)),
    ...     np.ones((8, 2)),
    ...     epochs=3,
    ...     callbacks=[lower_sigma],
    ...     verbose=0,
    ... )
    >>> round(delay.sigma, 6)
    0.23

    Args:
        epochs: Integer >= 1, the number of epochs after which σ is `end`. The source
            takes a quarter of all epochs.
        end: Float > 0, the last σ. Defaults to `0.23`.

    Raises:
        ValueError: If an argument is out of its range. When `fit` starts, if the model
            has no `Delay`.
        TypeError: If an argument has the wrong type.

    Source: Hammouamri, Khalfaoui-Hassani and Masquelier, ICLR 2024.
    """

    layer_class = Delay

    def __init__(self, epochs: int, end: float = 0.23) -> None:
        super().__init__()
        self.epochs = checks.positive_integer(
            "epochs", epochs, advice="After this number, σ stays as it is."
        )
        self.end = checks.real("end", end, above=0)

    def change(self, layer: Any, epoch: int) -> None:
        start = layer.max_delay // 2
        layer.sigma = start * (self.end / start) ** min(1.0, epoch / self.epochs)


class RaiseMask(LayerSchedule):
    """Raises `mask` of all `MaskedPSN` layers in equal steps, from `start` in the first
    epoch to 1 in epoch `epochs`.

    Example:

    >>> inputs = keras.Input((4,))
    >>> neurons = keras_ratesnn.layers.MaskedPSN(timesteps=4, order=2, mask=0.0)
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(neurons(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", "mse")
    >>> raise_mask = keras_ratesnn.callbacks.RaiseMask(epochs=3)
    >>> history = model.fit(
    ...     np.ones((8, 4)),
    ...     np.ones((8, 2)),
    ...     epochs=3,
    ...     callbacks=[raise_mask],
    ...     verbose=0,
    ... )
    >>> neurons.mask
    1.0

    Args:
        epochs: Integer >= 1, the number of the first epoch with a mask of 1.
        start: Float from 0 to 1, the mask in the first epoch. Defaults to `0.0`.

    Raises:
        ValueError: If an argument is out of its range. When `fit` starts, if the model
            has no `MaskedPSN`.
        TypeError: If an argument has the wrong type.

    Source: Fang et al., NeurIPS 2023.
    """

    layer_class = MaskedPSN

    def __init__(self, epochs: int, start: float = 0.0) -> None:
        super().__init__()
        self.epochs = checks.positive_integer(
            "epochs", epochs, advice="The mask is 1 from this epoch on."
        )
        self.start = checks.real("start", start, at_least=0, at_most=1)

    def change(self, layer: Any, epoch: int) -> None:
        done = min(1.0, epoch / (self.epochs - 1)) if self.epochs > 1 else 1.0
        layer.mask = self.start + (1.0 - self.start) * done

"""Changes a setting of some layers at the beginning of each epoch."""

from typing import Any

import keras

from keras_ratesnn._core import keras_internals


class LayerSchedule(keras.callbacks.Callback):
    """Base class: subclasses name `layer_class`, and implement `change(layer, epoch)`."""

    layer_class: type[keras.layers.Layer]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        inside = keras_internals.with_sublayers(self.model)
        self._layers = [layer for layer in inside if isinstance(layer, self.layer_class)]
        if not self._layers:
            raise ValueError(
                f"{type(self).__name__} needs a model with {self.layer_class.__name__} layers. Received: model "
                f"{self.model.name!r} without any. Leave the callback out."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for layer in self._layers:
            self.change(layer, epoch)

    def change(self, layer: Any, epoch: int) -> None:
        """Sets what is due in an epoch, from 0 on."""
        raise NotImplementedError

"""The model that a callback measures."""

import keras

from keras_ratesnn.spiking_model import SpikingModel, checked_model


def measured(model: keras.Model) -> SpikingModel:
    """The `SpikingModel` of a model that `fit` trains: the model itself, or the student
    if it is a `Distiller`.

    Raises:
        TypeError: If that is no `SpikingModel`.
    """
    return checked_model(
        model.student if isinstance(model, keras.distillation.Distiller) else model
    )

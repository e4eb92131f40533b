"""The model that a callback measures, and the data that it measures it on."""

import keras

from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.time_masks import check_samples
from keras_ratesnn.spiking_model import SpikingModel, checked_model


def measured(model: keras.Model) -> SpikingModel:
    """The `SpikingModel` of a model that `fit` trains: the model itself, or the student if it is a `Distiller`.

    Raises:
        TypeError: If that is another model.
    """
    return checked_model(model.student if isinstance(model, keras.distillation.Distiller) else model)


def check_x(model: keras.Model, x: Structure) -> None:
    """Raises ValueError before training if `x` does not fit the model that `fit` trains and is measured, or has no samples."""
    check_samples(measured(model), x)

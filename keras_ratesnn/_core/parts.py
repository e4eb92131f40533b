"""Layers and cells that are parts of other layers."""

from typing import Any

import keras

from keras_ratesnn._core.annotations import Shape


def deserialized(part: Any) -> Any:
    """A part, which is given as it is or as its config."""
    if isinstance(part, dict):
        return keras.saving.deserialize_keras_object(part)
    return part


def build(part: keras.layers.Layer, input_shape: Shape) -> None:
    """Builds a part that is not built."""
    if not part.built:
        part.build(input_shape)

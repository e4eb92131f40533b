"""Files of a later Keras, read by one that does not know all of their arguments."""

import keras
import pytest
from helpers import registered

from keras_ratesnn._core import keras_internals


@registered
class OldNormalization(keras.layers.Layer):
    """As in a Keras without `renorm`."""

    def __init__(self, momentum=0.99, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}


def saved(**later):
    config = keras.saving.serialize_keras_object(OldNormalization(0.5, name="old"))
    return {**config, "config": {**config["config"], **later}}


def test_arguments_that_this_keras_does_not_know_are_left_out_at_their_defaults():
    later = {"renorm": False, "renorm_clipping": None, "renorm_momentum": 0.99}
    nested = {"layers": [saved(**later)]}
    known = keras_internals.without_later_arguments(nested)
    layer = keras.saving.deserialize_keras_object(known["layers"][0])
    assert layer.momentum == 0.5
    assert nested == {"layers": [saved(**later)]}


def test_an_argument_with_another_value_is_an_error_that_names_both_versions():
    message = rf"Keras 3\.14, and Keras {keras.__version__} .*renorm=True"
    with pytest.raises(ValueError, match=message):
        keras_internals.without_later_arguments(saved(renorm=True))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dense(3, kernel_initializer="he_normal"),
        keras.layers.BatchNormalization(),
        keras.layers.MultiHeadAttention(2, 3),
    ],
    ids=lambda layer: layer.name,
)
def test_what_this_keras_knows_stays(layer):
    config = keras.saving.serialize_keras_object(layer)
    assert keras_internals.without_later_arguments(config) == config

"""Checks that an object can be recreated from its config; shared by cells and gradient methods."""

import json

import keras

from keras_ratesnn.testing._findings import require


def check_config(thing):
    """Raises AssertionError unless the config recreates the same object, in this process and from a file."""
    cls, name = type(thing), type(thing).__name__
    require(
        keras.saving.get_registered_object(keras.saving.get_registered_name(cls)) is cls,
        f"{name} is not registered, so a saved model could not find it. Decorate the class with "
        '@keras.saving.register_keras_serializable(package="your_package").',
    )
    config = thing.get_config()
    again = cls.from_config(config).get_config()
    different = sorted(key for key in config.keys() | again.keys() if config.get(key) != again.get(key))
    require(
        not different,
        f"{name}.from_config(get_config()) creates a different object: {different} differ. `get_config` must return every "
        "constructor argument, and the constructor must store it.",
    )
    try:
        written = json.dumps(keras.saving.serialize_keras_object(thing))
    except TypeError as error:
        raise AssertionError(f"The config of {name} cannot be written to a file: {error}.") from error
    loaded = keras.saving.deserialize_keras_object(json.loads(written)).get_config()
    require(loaded == config, f"{name} differs after its config was written to a file: {loaded} instead of {config}.")

"""Whether an object's config makes it again: what cells and gradient methods have in common."""

import json

import keras

from keras_ratesnn.testing._findings import require


def check_config(thing):
    """AssertionError unless the config makes the same object again, in this process and from a file."""
    cls, name = type(thing), type(thing).__name__
    require(
        keras.saving.get_registered_object(keras.saving.get_registered_name(cls)) is cls,
        f"{name} is not registered, and a saved model would not find it. Decorate the class with "
        '@keras.saving.register_keras_serializable(package="your_package").',
    )
    config = thing.get_config()
    again = cls.from_config(config).get_config()
    different = sorted(key for key in config.keys() | again.keys() if config.get(key) != again.get(key))
    require(
        not different,
        f"{name}.from_config(get_config()) makes another one: {different} differ. `get_config` must return every argument of "
        "the constructor, and the constructor keep it.",
    )
    try:
        written = json.dumps(keras.saving.serialize_keras_object(thing))
    except TypeError as error:
        raise AssertionError(f"The config of {name} cannot be written to a file: {error}.") from error
    loaded = keras.saving.deserialize_keras_object(json.loads(written)).get_config()
    require(loaded == config, f"{name} is another one after its config was written to a file: {loaded} against {config}.")

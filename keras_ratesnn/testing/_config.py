"""Checks that an object can be recreated from its config; shared by cells and gradient
methods."""

import inspect
import json

import keras

from keras_ratesnn.testing._findings import require


def check_config(thing):
    """Raises AssertionError unless the config recreates the same object, in this
    process and from a file."""
    cls, name = type(thing), type(thing).__name__
    require(
        keras.saving.get_registered_object(keras.saving.get_registered_name(cls))
        is cls,
        f"{name} is not registered, so a saved model could not find it. Decorate the "
        "class with "
        '@keras.saving.register_keras_serializable(package="your_package").',
    )
    config = thing.get_config()
    missing = [argument for argument in _arguments(cls) if argument not in config]
    require(
        not missing,
        f"{name}.get_config() does not return {missing}, so a copy or a saved file has "
        f"the defaults. {_ADVICE}",
    )
    try:
        again = cls.from_config(thing.get_config()).get_config()
    except Exception as error:
        raise AssertionError(
            f"{name}.from_config(get_config()) fails: {error} {_ADVICE}"
        ) from error
    written, written_again = _written(name, config), _written(name, again)
    different = sorted(
        key
        for key in config.keys() | again.keys()
        if written.get(key) != written_again.get(key)
    )
    require(
        not different,
        f"{name}.from_config(get_config()) creates a different object: {different} "
        f"differ. {_ADVICE}",
    )
    try:
        text = json.dumps(keras.saving.serialize_keras_object(thing))
    except TypeError as error:
        raise AssertionError(
            f"The config of {name} cannot be written to a file: {error}."
        ) from error
    try:
        loaded = _written(
            name, keras.saving.deserialize_keras_object(json.loads(text)).get_config()
        )
    except Exception as error:
        raise AssertionError(
            f"{name} cannot be read from a file: {error} {_ADVICE}"
        ) from error
    require(
        loaded == written,
        f"{name} differs after its config was written to a file: {loaded} instead of "
        f"{written}.",
    )


_ADVICE = (
    "`get_config` must return every constructor argument, and the constructor "
    "must store it."
)


def _arguments(cls):
    """The names of a class' own constructor arguments."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind in named
    ]


def _written(name, config):
    """A config as plain values: backends wrap the dicts and lists of layers, and arrays
    have no `==` of one truth value."""
    try:
        return {
            key: keras.saving.serialize_keras_object(value)
            for key, value in config.items()
        }
    except TypeError as error:
        raise AssertionError(
            f"The config of {name} cannot be written to a file: {error}."
        ) from error

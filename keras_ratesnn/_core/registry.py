"""Objects given as a name, an instance or a saved config: surrogates and gradient
methods."""

import inspect
from collections.abc import Callable, Mapping
from typing import Self, TypeVar

import keras

from keras_ratesnn._core.annotations import Config

_Base = TypeVar("_Base")

PACKAGE = "keras_ratesnn"
"""The package name under which classes are registered. Saved models contain it, so it
must never change."""

register = keras.saving.register_keras_serializable(package=PACKAGE)


class Configured:
    """Base class of objects that are made from their config: the arguments of their
    constructor, none by default."""

    def get_config(self) -> Config:
        return {}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={value!r}" for name, value in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"


def resolve(
    argument: str,
    identifier: object,
    base: type[_Base],
    by_name: Mapping[str, Callable[[], _Base]],
    advice: str = "",
) -> _Base:
    """Turns what a user passed for `argument` into an instance of `base`.

    Args:
        argument: String, the name of the constructor argument, for the error message.
        identifier: A key of `by_name`, an instance of `base`, or a dict returned by
            `serialize`.
        base: Class of the result.
        by_name: Dict of names to subclasses of `base`, which are created with default
            arguments.
        advice: String, what else to do about an unknown name, with a space before it.
            Defaults to `""`.

    Returns:
        An instance of `base`.

    Raises:
        ValueError: If a name is unknown.
        TypeError: If `identifier` is none of these.
    """
    if isinstance(identifier, base):
        return identifier
    names = ", ".join(repr(name) for name in by_name)
    if isinstance(identifier, str):
        if identifier not in by_name:
            received = f"Received: {argument}={identifier!r}.{advice}"
            raise ValueError(
                f"`{argument}` must be one of {names}, or a {base.__name__}. {received}"
            )
        return by_name[identifier]()
    if isinstance(identifier, dict):
        instance = keras.saving.deserialize_keras_object(identifier)
        if isinstance(instance, base):
            return instance
    hint = (
        " Pass an instance: add the parentheses." if inspect.isclass(identifier) else ""
    )
    raise TypeError(
        f"`{argument}` must be one of {names}, or a {base.__name__}. Received: "
        f"{argument}={identifier!r}.{hint}"
    )


def serialize(instance: object) -> Config:
    """A dict from which `resolve` creates an equal object."""
    return keras.saving.serialize_keras_object(instance)

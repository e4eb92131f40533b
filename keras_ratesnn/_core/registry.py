"""Objects given as a name, an instance or a saved config: surrogates and gradient
methods."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, Self, TypeVar

import keras

from keras_ratesnn._core.annotations import Config

_Base = TypeVar("_Base")
_Arguments = ParamSpec("_Arguments")

PACKAGE = "keras_ratesnn"
"""The package name under which classes are registered. Saved models contain it, so it
must never change."""

register = keras.saving.register_keras_serializable(package=PACKAGE)


def _freezing(init: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """A constructor after which the object is frozen, unless that of a subclass has
    called it."""

    @functools.wraps(init)
    def constructor(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        attributes = vars(args[0])
        is_outermost = "_is_frozen" not in attributes
        attributes["_is_frozen"] = False
        init(*args, **kwargs)
        attributes["_is_frozen"] = is_outermost

    return constructor


class Configured:
    """Base class of objects that are made from their config: the arguments of their
    constructor, none by default.

    They are frozen once they are made: compiled code would not see a change.
    """

    _remedy: str
    """Advice in place of assigning an attribute, with `{kind}` for the name of the
    class and `{name}` for that of the attribute."""
    _is_frozen = False
    in_config: tuple[str, ...] = ()
    """Names of the attributes that its config has."""

    @_freezing
    def __init__(self) -> None:
        """Made without arguments by default."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _freezing(cls.__init__)  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: object) -> None:
        if self._is_frozen:
            kind = type(self).__name__
            raise AttributeError(
                f"`{name}` of {kind} is fixed when it is created. Received: "
                f"{name}={value!r}. " + self._remedy.format(kind=kind, name=name)
            )
        super().__setattr__(name, value)

    def get_config(self) -> Config:
        return {name: getattr(self, name) for name in self.in_config}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        # Keras leaves the objects in a config as they were saved.
        return cls(**keras.saving.deserialize_keras_object(config))

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
    other_names: Mapping[str, str],
) -> _Base:
    """Turns what a user passed for `argument` into an instance of `base`.

    Args:
        argument: String, the name of the constructor argument, for the error message.
        identifier: A key of `by_name`, an instance of `base`, or a dict returned by
            `serialize`.
        base: Class of the result.
        by_name: Dict of names to subclasses of `base`, which are created with default
            arguments.
        other_names: Dict of names that are not here to what to use in their place.

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
            known = [*by_name, *other_names]
            near = difflib.get_close_matches(identifier.lower(), known, 1)
            advice = "".join(
                f" Use {other_names.get(name, repr(name))}." for name in near
            )
            raise ValueError(
                f"`{argument}` must be one of {names}, or a {base.__name__}. Received: "
                f"{argument}={identifier!r}.{advice}"
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

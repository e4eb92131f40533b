"""Names of arguments and attributes in other libraries, and what they are here.

A table is a dict from a name to a sentence, in which `{value!r}` is what was given and
`{example}` a decay for it.
"""

import inspect
import numbers
from collections.abc import Mapping
from typing import ClassVar


class RefusesOtherNames:
    """A mixin of layers, whose attributes have none of the names in `other_names`."""

    other_names: ClassVar[Mapping[str, str]]

    def __setattr__(self, name, value):
        check_attribute_name(self.other_names, self, name, value)
        super().__setattr__(name, value)


def check_attribute_name(other_names, owner, name, value):
    """Raises AttributeError if an attribute that is set has a name of another library,
    and says what to use.

    A class may have an attribute of that name. A constructor of a user's may give its
    object any attributes.

    Args:
        other_names: A table of names.
        owner: The object.
        name: String, the name of the attribute.
        value: Its value.
    """
    kind = type(owner)
    if (
        name in other_names
        and kind.__init__.__module__.startswith("keras_ratesnn.")
        and not hasattr(kind, name)
        and name not in inspect.signature(kind.__init__).parameters
    ):
        raise AttributeError(
            f"{kind.__name__} has no attribute {_received(other_names, name, value)}"
        )


def refuse_other_names(other_names, kind, arguments):
    """Raises TypeError if an argument has a name of another library, and says what to
    use.

    Args:
        other_names: A table of names.
        kind: String, the name of the class.
        arguments: Dict, the unknown keyword arguments.
    """
    for name, value in arguments.items():
        if name in other_names:
            raise TypeError(
                f"{kind} has no argument {_received(other_names, name, value)}"
            )


def _received(other_names, name, value):
    remedy = other_names[name].format(value=value, example=_decay_of(value))
    return f"`{name}`. Received: {name}={value!r}. {remedy}"


def _decay_of(time_constant):
    number = isinstance(time_constant, numbers.Real) and not isinstance(
        time_constant, bool
    )
    return (
        f": here decay={round(1 - 1 / time_constant, 6)}"
        if number and time_constant >= 1
        else ""
    )

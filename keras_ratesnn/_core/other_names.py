"""Names of arguments and attributes in other libraries, and what they are here.

A table is a dict from a name to a sentence, in which `{value!r}` is what was given and
`{example}` a decay for it.
"""

import inspect
import numbers
from collections.abc import Mapping
from typing import ClassVar


class RefusesOtherNames:
    """A mixin of layers and models: they have no attributes with the names in
    `other_names`, unless a class has its own.

    A constructor of a user's may give its object any attributes.
    """

    other_names: ClassVar[Mapping[str, str]]

    def __setattr__(self, name, value):
        kind = type(self)
        is_other = name in self.other_names and kind.__init__.__module__.startswith(
            "keras_ratesnn."
        )
        if (
            is_other
            and not hasattr(kind, name)
            and name not in inspect.signature(kind.__init__).parameters
        ):
            raise AttributeError(
                f"{kind.__name__} has no attribute "
                f"{_received(self.other_names, name, value)}"
            )
        super().__setattr__(name, value)


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

"""Arguments that came with a later Keras than the one that runs.

A file that a later one wrote has them, at their defaults in nearly all cases. At these
an older Keras does the same without them.
"""

import functools
import inspect
import sys

import keras

from keras_ratesnn._core import tree

_LATER = {
    "ignore_class": ("3.14", None),
    "native_serialization_platforms": ("3.14", None),
    "oov_method": ("3.14", "floormod"),
    "renorm": ("3.14", False),
    "renorm_clipping": ("3.14", None),
    "renorm_momentum": ("3.14", 0.99),
    "salt": ("3.14", None),
    "use_gate": ("3.14", False),
    # Before, a scale was that of a whole column.
    "block_size": ("3.14", None),
    "input_axes": ("3.15", None),
    "output_axes": ("3.15", None),
    "sliding_window": ("3.15", None),
}
"""The Keras with which each came, and the value at which it changes nothing."""


def without_later_arguments(config):
    """A serialised object without the arguments that this Keras does not know.

    Args:
        config: Dict, list or tuple with what `keras.saving.serialize_keras_object`
            returns, at any depth.

    Returns:
        A copy.

    Raises:
        ValueError: If one of them has another value than its default.
    """
    return tree.map_dicts(_without_later_arguments, config)


def _without_later_arguments(part):
    cls, arguments = _class_of(part), part.get("config")
    if cls is None or not isinstance(arguments, dict):
        return part
    later = (arguments.keys() & _LATER.keys()) - _named_arguments(cls)
    for name in sorted(later):
        version, default = _LATER[name]
        if arguments[name] != default:
            raise ValueError(
                f"`{name}` came with Keras {version}, and Keras {keras.__version__} "
                f"runs here. Received: {name}={arguments[name]!r} in the file, in the "
                f'config of {cls.__name__}. Install "keras>={version}".'
            )
    known = {name: arguments[name] for name in arguments if name not in later}
    return {**part, "config": known}


def _class_of(part):
    """The class of a serialised object, or `None`. Nothing is imported: a file may name
    any module."""
    registered = keras.saving.get_registered_object(part.get("registered_name"))
    module = sys.modules.get(part.get("module"))
    found = registered or getattr(module, str(part.get("class_name")), None)
    return found if inspect.isclass(found) else None


@functools.cache
def _named_arguments(cls):
    """The names of the arguments of a class and of those that it inherits from."""
    return {
        name
        for base in cls.__mro__
        if "__init__" in vars(base)
        for name in inspect.signature(base.__init__).parameters
    }

"""Decides whether facts about a class still hold for a subclass."""

_HARMLESS = {
    "__init__",
    "build",
    "compute_output_shape",
    "compute_output_spec",
    "get_config",
    "from_config",
}
"""Methods that a subclass may override without changing its computation."""


def overrides_computation(subclass, base):
    """Whether a subclass, or a class between the two, overrides anything that may
    affect the computation."""
    between = subclass.__mro__[: subclass.__mro__.index(base)]
    return any(
        _matters(name, value) for cls in between for name, value in vars(cls).items()
    )


def _matters(name, value):
    special = name.startswith("__") and name != "__call__"
    return (
        (callable(value) or isinstance(value, property))
        and name not in _HARMLESS
        and not special
    )

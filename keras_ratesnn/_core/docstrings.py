"""Docstrings that name another one, X, for their arguments: "Args: as in", and X in
backticks. Below it is what differs.

An entry that only says what it "Defaults to" keeps the sentences before that.
"""

import inspect
import re
from typing import Any

_ARGS = re.compile(r"^( *)Args:(?: as in `(\w+)`.*)?\n((?:\1 .*\n)*)", re.MULTILINE)


def write_out(names: dict[str, Any]) -> None:
    """Writes out the docstrings of the classes and functions among `names`, in which X
    is looked up, too: an entry for each parameter, in the order of the signature."""
    for value in list(names.values()):
        # Python may have dropped docstrings.
        if "Args: as in `" in (value.__doc__ or ""):
            _write_out(value, names)


def _write_out(value: Any, names: dict[str, Any]) -> dict[str, str]:
    """Returns the entries of a docstring, by the names of parameters."""
    section: Any = _ARGS.search(value.__doc__)
    # Python 3.13 takes the indentation of all docstrings away.
    indent, base, lines = section.groups()
    _, *parts = re.split(rf"(?m)^(?={indent}    \W*(\w+):)", lines)
    own = dict(zip(parts[::2], parts[1::2], strict=True))
    if base is None:
        return own
    entries = _write_out(names[base], names)
    for name, entry in own.items():
        text = entry.partition(": ")[2]
        if text.startswith("Defaults to"):
            before = entries[name].partition("Defaults")[0]
            entry = f"{before.rstrip()}\n{indent}        {text}"
        entries[name] = entry
    written = [entries[name] for name in inspect.signature(value).parameters]
    section_of_all = "".join([indent, "Args:\n", *written])
    value.__doc__ = value.__doc__.replace(section[0], section_of_all)
    return entries

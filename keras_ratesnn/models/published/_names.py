"""Tables that map the authors' names of layers to ours.

Numbers in names are placeholders: `"layer{s}.{b}.conv{n}": "stage{s}_block{b+1}_conv{n}"`. The first entry that fits counts.
"""

import functools
import re

_PLACEHOLDER = re.compile(r"\{(\w+)(?:\+(\d+))?\}")


def without_containers(name):
    """A name without what SpikingJelly's `SeqToANNContainer` adds to it, in some of its versions."""
    return name.replace(".module.", ".")


class Table:
    """A table of names.

    Args:
        names: Dict of names, with placeholders, to other names with the same placeholders. Containers in the former are left
            out.
    """

    def __init__(self, names):
        self.patterns = [(_Pattern(without_containers(name)), other) for name, other in names.items()]

    def find(self, name):
        """What the table has for a name, or `None`."""
        for pattern, other in self.patterns:
            numbers = pattern.numbers(name)
            if numbers is not None:
                return _PLACEHOLDER.sub(functools.partial(_number, numbers), other)
        return None


def _number(numbers, part):
    return str(numbers[part[1]] + int(part[2] or 0))


class _Pattern:
    """A name with placeholders."""

    def __init__(self, name):
        self.added: dict[str, int] = {}
        parts, end = [], 0
        for part in _PLACEHOLDER.finditer(name):
            parts.append(re.escape(name[end : part.start()]))
            # A placeholder that comes again stands for the same number. Python refuses to read very long ones.
            parts.append(f"(?P={part[1]})" if part[1] in self.added else rf"(?P<{part[1]}>\d{{1,9}})")
            self.added[part[1]], end = int(part[2] or 0), part.end()
        self.expression = re.compile("".join(parts) + re.escape(name[end:]))

    def numbers(self, name):
        """What the placeholders stand for in a name; `None` if it is another one."""
        found = self.expression.fullmatch(name)
        return found and {part: int(found[part]) - added for part, added in self.added.items()}

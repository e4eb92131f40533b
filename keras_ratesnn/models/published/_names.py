"""Tables that map the authors' names of layers to ours.

Numbers in names are placeholders: `"layer{s}.{b}.conv{n}": "stage{s}_block{b+1}_conv{n}"`. The first entry that fits counts.
"""

import functools
import re

_PLACEHOLDER = re.compile(r"\{(\w+)(?:\+(\d+))?\}")


class Table:
    """A table of names.

    Args:
        names: Dict of the authors' names to ours.
    """

    def __init__(self, names):
        self.patterns = [(_pattern(theirs), ours) for theirs, ours in names.items()]

    def find(self, name):
        """What the table has for one of the authors' names, or `None`."""
        for pattern, ours in self.patterns:
            found = pattern.fullmatch(name)
            if found:
                return _PLACEHOLDER.sub(functools.partial(_number, found), ours)
        return None


def _pattern(theirs):
    # A placeholder that comes again stands for the same number.
    parts, seen = [], set()
    for index, part in enumerate(re.split(r"\{(\w+)\}", theirs)):
        if index % 2 == 0:
            parts.append(re.escape(part))
        else:
            parts.append(f"(?P={part})" if part in seen else rf"(?P<{part}>\d+)")
            seen.add(part)
    return re.compile("".join(parts))


def _number(found, part):
    name, added = part.groups()
    return str(int(found[name]) + int(added)) if added else found[name]

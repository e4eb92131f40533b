"""Tables that map the authors' names of layers to ours.

Numbers in names are placeholders: `"layer{s}.{b}.conv{n}":
"stage{s}_block{b+1}_conv{n}"`, or `{2*b+1}` for odd ones. The first entry that fits
counts.
"""

import functools
import re

_PLACEHOLDER = re.compile(r"\{(?:(\d+)\*)?(\w+)(?:\+(\d+))?\}")


def without_containers(name):
    """A name without what SpikingJelly's `SeqToANNContainer` adds to it, in some of its
    versions."""
    return name.replace(".module.", ".")


def named(names, ours, **numbers):
    """The authors' name of a layer, given that in our column of a table of names, and
    the numbers in theirs."""
    theirs = next(theirs for theirs, name in names.items() if name == ours)
    return without_containers(theirs).format(**numbers)


class Table:
    """A table of names.

    Args:
        names: Dict of names, with placeholders, to other names with the same
            placeholders. Containers in the former are left out.
    """

    def __init__(self, names):
        self.patterns = [
            (_Pattern(without_containers(name)), target)
            for name, target in names.items()
        ]

    def find(self, name):
        """The entry of the table for a name, or `None`."""
        for pattern, target in self.patterns:
            numbers = pattern.numbers(name)
            if numbers is not None:
                return _PLACEHOLDER.sub(functools.partial(_number, numbers), target)
        return None


def _number(numbers, part):
    factor, name, added = _parts(part)
    return str(factor * numbers[name] + added)


def _parts(placeholder):
    """The factor, the name and what is added."""
    factor, name, added = placeholder.groups()
    return int(factor or 1), name, int(added or 0)


class _Pattern:
    """A name with placeholders, each once."""

    def __init__(self, name):
        texts = _PLACEHOLDER.split(name)[:: _PLACEHOLDER.groups + 1]
        # Python refuses to read very long numbers.
        self.expression = re.compile(r"(\d{1,9})".join(map(re.escape, texts)))
        self.placeholders = [*map(_parts, _PLACEHOLDER.finditer(name))]

    def numbers(self, name):
        """The values of the placeholders in a name; `None` if it is another one."""
        match = self.expression.fullmatch(name)
        if match is None:
            return None
        numbers = {}
        digits = zip(self.placeholders, match.groups(), strict=True)
        for (factor, part, added), number in digits:
            numbers[part], rest = divmod(int(number) - added, factor)
            if rest:
                return None
        return numbers

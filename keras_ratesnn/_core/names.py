"""Names of what is made, and lists of names in messages."""

import itertools
from collections.abc import Container, Sequence

MOST_LISTED = 4


def free(wanted: str, taken: Container[str]) -> str:
    """The wanted name, or the name and a number, if it is taken."""
    numbered = (f"{wanted}_{number}" for number in itertools.count(1))
    return (
        wanted
        if wanted not in taken
        else next(name for name in numbered if name not in taken)
    )


def take(wanted: str, taken: set[str]) -> str:
    """The free name for a wanted one, which is taken from now on."""
    name = free(wanted, taken)
    taken.add(name)
    return name


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")

"""Lists of names in reports."""

LISTED = 4
"""The largest number of names that a report lists for each kind."""


def grouped(changes, label):
    """One line for each label, `label(change)`, with the names of its changes."""
    groups: dict[str, list[str]] = {}
    for change in changes:
        groups.setdefault(label(change), []).append(change.name)
    return [f"  {text}: {listed(names)}" for text, names in groups.items()]


def listed(names):
    """The names, or the first of them and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more

"""Markdown tables."""


def row(cells):
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def heading(columns):
    """The two lines above the rows, for a table that is printed row by row."""
    return row(columns) + "\n" + "|---" * len(columns) + "|"


def table(columns, rows):
    """A table.

    Args:
        columns: Sequence of the names of the columns.
        rows: Iterable of sequences of cells, one for each column.
    """
    return "\n".join([heading(columns), *map(row, rows)])

"""Markdown tables, and numbers in them."""

import statistics


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


def mean_of(values):
    """The mean of accuracies, and ± their standard deviation if there are several, as
    text."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"

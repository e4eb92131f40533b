"""Tables as text."""

from collections.abc import Sequence


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first two columns to the left, numbers to the right."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]

    sides = "<<".ljust(len(columns), ">")

    def line(row):
        return "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()

    return [line(columns), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)]

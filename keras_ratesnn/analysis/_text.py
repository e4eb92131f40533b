"""How results are printed: tables, joules with a prefix, and training methods."""

from collections.abc import Sequence

import numpy as np

from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.gradients.lookup import BY_NAME


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left: int
) -> list[str]:
    """Lines of a table: the first `left` columns to the left, numbers to the right."""
    cells_by_column = zip(columns, *rows, strict=True)
    widths = [max(map(len, cells)) for cells in cells_by_column]
    sides = ("<" * left).ljust(len(columns), ">")
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def line(row):
        cells = zip(row, sides, widths, strict=True)
        return "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells)

    lines = [line(row).rstrip() for row in [columns, *rows]]
    return [lines[0], rule, *lines[1:]]


def joules(energy: float) -> str:
    """Joules with a prefix, three digits."""
    for exponent, prefix in ((-3, "m"), (-6, "µ"), (-9, "n")):
        if energy >= 10.0**exponent:
            return f"{energy / 10.0**exponent:.3g} {prefix}J"
    return f"{energy / 1e-12:.3g} pJ"


def percent(rate: float, unknown: str = "") -> str:
    """A rate in percent, or `unknown` if it is NaN, as that of no layer is."""
    return unknown if np.isnan(rate) else f"{rate:.1%}"


def name_of(method: GradientMethod) -> str:
    """The name of a method, with the arguments that are not the defaults: "rate", or
    "rate(windows=2)"."""
    for name, kind in BY_NAME.items():
        if type(method) is kind:
            defaults = kind().get_config()
            given = [
                f"{key}={value!r}"
                for key, value in method.get_config().items()
                if value != defaults[key]
            ]
            return f"{name}({', '.join(given)})" if given else name
    return repr(method)

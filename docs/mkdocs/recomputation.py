"""Memory and time of BPTT that runs layers again: `python docs/mkdocs/recomputation.py`
draws docs/images/recomputation.png.

The records are those of the commands in docs/benchmarks.md, of one network each.
"""

import pathlib

from overview import COSTS, draw_cost

from recipes import plots
from recipes.atomic_files import read_json

IMAGES = pathlib.Path(__file__).parent.parent / "images"
NETWORKS = {"ResNet18": "ResNet-18", "VGG11": "VGG-11"}
"""Names of the records, and of their networks."""


def draw(records):
    """A figure with a column for each network and a row for each cost, against T.

    Args:
        records: Dictionary of records by the titles of networks.
    """
    figure = plots.new_figure(9, 6)
    grid = figure.subplots(len(COSTS), len(records), sharex=True)
    for column, (name, record) in zip(grid.T, records.items(), strict=True):
        methods = record["settings"]["methods"]
        rows = [row for row in record["rows"] if row["method"] in methods]
        for axes, (title, cost) in zip(column, COSTS.items(), strict=True):
            draw_cost(axes, rows, f"{name}: {title}", cost)
        column[-1].set_xlabel("T")
    return figure


if __name__ == "__main__":
    records = {
        title: read_json(IMAGES / "recomputation" / f"{name}.json")
        for name, title in NETWORKS.items()
    }
    plots.save(draw(records), IMAGES / "recomputation.png", dpi=90)

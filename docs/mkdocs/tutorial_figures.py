"""Draws the figures of tutorials: `KERAS_BACKEND=torch python docs/mkdocs/tutorial_figures.py neuron spikes network`.

A page's blocks of Python run in docs/images/tutorials, so what they save is there. PNG files get SVG files beside them.
"""

import os
import pathlib
import re
import sys
from unittest import mock

from matplotlib.figure import Figure

from recipes import plots

DOCS = pathlib.Path(__file__).parent.parent.absolute()
SAVEFIG = Figure.savefig


def draw(page):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "tutorials" / f"{page}.md").read_text(), flags=re.DOTALL)
    names = {}
    with mock.patch.object(Figure, "savefig", _save):
        for block in blocks:
            exec(compile(block, page, "exec"), names)


def _save(figure, file, **kwargs):
    # The frames of an animation are no files.
    if not isinstance(file, str):
        return SAVEFIG(figure, file, **kwargs)
    with mock.patch.object(Figure, "savefig", SAVEFIG):
        return plots.save(figure, pathlib.Path(file), dpi=90)


if __name__ == "__main__":
    os.chdir(DOCS / "images" / "tutorials")
    for page in sys.argv[1:]:
        draw(page)

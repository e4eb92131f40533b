"""Writes what tutorials show: `KERAS_BACKEND=torch python docs/mkdocs/run_tutorials.py
neuron spikes network`.

The figures that a page's blocks of Python save are put into docs/images/tutorials, PNG
files with SVG files beside them. What a block prints is put into the page, as a block
of text after it, in place of what was there.
"""

import contextlib
import io
import pathlib
import shutil
import sys
import tempfile
import textwrap
from unittest import mock

from matplotlib.figure import Figure
from pages_of_code import BLOCK

from recipes import plots

DOCS = pathlib.Path(__file__).parent.parent.absolute()
SAVEFIG = Figure.savefig


def run(page):
    """The text of a page, with what its blocks print. The files that they save are in
    the working folder."""
    names = {}

    def with_output(match):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match[1], page.name, "exec"), names)
        # Bars of progress are no results.
        lines = [
            line.rstrip() for line in printed.getvalue().splitlines() if "━" not in line
        ]
        output = "".join(
            f"{textwrap.fill(line, 128)}\n" if len(line) > 128 else f"{line}\n"
            for line in lines
            if line
        )
        return f"```python\n{match[1]}```\n" + (
            f"\n```text\n{output}```\n" if output else ""
        )

    with mock.patch.object(Figure, "savefig", _save):
        return BLOCK.sub(with_output, page.read_text())


def _save(figure, file, **kwargs):
    # The frames of an animation are no files.
    if not isinstance(file, str):
        return SAVEFIG(figure, file, **kwargs)
    with mock.patch.object(Figure, "savefig", SAVEFIG):
        return plots.save(figure, pathlib.Path(file), dpi=90)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = DOCS / "tutorials" / f"{name}.md"
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            path.write_text(run(path))
            for figure in [
                file
                for suffix in ("png", "svg", "gif")
                for file in pathlib.Path().glob(f"*.{suffix}")
            ]:
                shutil.copy(figure, DOCS / "images" / "tutorials")

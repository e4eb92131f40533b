"""Tutorials, pages with blocks of Python and what these have printed, and examples,
Python files in the form of keras.io's.

`KERAS_BACKEND=torch python docs/mkdocs/tutorials.py neuron spikes network` writes what
these tutorials show: the figures that their blocks save are put into
docs/images/tutorials, PNG files with SVG files beside them. What a block prints is put
into the page, as a block of text after it, in place of what was there. The site shows
tutorials as notebooks, too, and examples as pages.
"""

import contextlib
import io
import pathlib
import re
import shutil
import sys
import tempfile
import textwrap
import urllib.parse
from unittest import mock

from recipes import addresses

DOCS = pathlib.Path(__file__).parent.parent.absolute()
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE
)
"""A block of Python of a tutorial, and what it has printed."""

INSTALL = """%pip install -q -e ".[torch,recipes,plots,export{extras}]"
%env KERAS_BACKEND=torch"""
CLONE = """!git clone -q --depth 1 {repository} keras_ratesnn
%cd keras_ratesnn
"""
LINK = re.compile(r"\]\(([^):#\s]+)(#[^)\s]*)?\)")


def page_of_example(source):
    """The Markdown of an example: strings on lines of their own are text, the first one
    is the head, and the rest is code.

    Args:
        source: String, the content of the file.
    """
    _, head, *parts = re.split(r'^"""\n', source, flags=re.MULTILINE)
    facts = dict(line.split(": ", 1) for line in head.splitlines())
    blocks = [
        part if index % 2 else f"```python\n{part.strip()}\n```\n"
        for index, part in enumerate(parts)
        if part.strip()
    ]
    about = (
        f"*{facts['Description']}*\n\nBy {facts['Author']}, {facts['Date created']}\n"
    )
    return "\n".join([f"# {facts['Title']}\n", about, *blocks])


def page_as_notebook(markdown, repository):
    """The notebook of a tutorial, as JSON: a cell that installs the library, then its
    text and its blocks of Python, in order.

    What the blocks have printed is left out, since they print it again.
    """
    # The site alone needs it.
    import jupytext

    code = BLOCK.sub(lambda match: f"```python\n{match[1]}```\n", markdown)
    notebook = jupytext.reads(code, fmt="md")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            site = addresses.site(repository)
            cell.source = with_links_of_notebooks(cell.source, site)
    first = f"```python\n{first_cell(markdown, repository)}\n```\n"
    notebook.cells = jupytext.reads(first, fmt="md").cells + notebook.cells
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    return jupytext.writes(notebook, fmt="ipynb")


def first_cell(markdown, repository):
    """What installs the library in a notebook: from a clone that it makes, or, if the
    address is not known, in the one that it is started in."""
    extras = ",timeseries" if "timeseries]" in markdown else ""
    begin = (
        CLONE.format(repository=repository)
        if repository
        else "# In a clone of the repository:\n"
    )
    return begin + INSTALL.format(extras=extras)


def with_links_of_notebooks(markdown, site):
    """The text of a cell, with links to pages of the site: absolute ones if its address
    is known, since a notebook may be opened elsewhere."""

    def replace(match):
        target, anchor = match[1], match[2] or ""
        target = re.sub(r"\.(md|py)$", ".html", target)
        if site:
            target = urllib.parse.urljoin(f"{site}tutorials/", target)
        return f"]({target}{anchor})"

    return LINK.sub(replace, markdown)


def run(page):
    """The text of a page, with what its blocks print. The files that they save are in
    the working folder."""
    names = {}

    def with_output(match):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(match[1], page.name, "exec"), names)
        output = _shown(printed.getvalue())
        block = f"```python\n{match[1]}```\n"
        return f"{block}\n```text\n{output}```\n" if output else block

    return BLOCK.sub(with_output, page.read_text())


def _shown(printed):
    """What a page shows of what a block has printed: no bars of progress, no empty
    lines, and long lines cut."""
    lines = []
    for line in printed.splitlines():
        if line.strip() and "━" not in line:
            lines += textwrap.wrap(line.rstrip(), 128) if len(line) > 128 else [line]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def main(tutorials):
    # The site does without both.
    from matplotlib.figure import Figure

    from recipes import plots

    savefig = Figure.savefig

    def save(figure, file, **kwargs):
        # The frames of an animation are no files.
        if not isinstance(file, str):
            return savefig(figure, file, **kwargs)
        with mock.patch.object(Figure, "savefig", savefig):
            return plots.save(figure, pathlib.Path(file), dpi=90)

    for name in tutorials:
        path = DOCS / "tutorials" / f"{name}.md"
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
            mock.patch.object(Figure, "savefig", save),
        ):
            path.write_text(run(path))
            for figure in pathlib.Path().iterdir():
                if figure.suffix in (".png", ".svg", ".gif"):
                    shutil.copy(figure, DOCS / "images" / "tutorials")


if __name__ == "__main__":
    main(sys.argv[1:])

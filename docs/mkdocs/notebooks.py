"""Tutorials as notebooks, for the site."""

import re

import jupytext
from pages_of_code import BLOCK

FIRST = """# In a clone of the repository:
%pip install -q -e ".[torch,recipes,plots,export{}]"
%env KERAS_BACKEND=torch"""
LINK = re.compile(r"\]\(([^):#\s]+)\.(?:md|py)(#[^)\s]*)?\)")


def notebook_of(markdown):
    """The notebook of a page, as JSON: a cell that installs the library, then its text
    and its blocks of Python, in order.

    What the blocks have printed is left out, since they print it again; links lead to
    pages of the site.
    """
    code = BLOCK.sub(lambda match: f"```python\n{match[1]}```\n", markdown)
    notebook = jupytext.reads(LINK.sub(r"](\1.html\2)", code), fmt="md")
    first = FIRST.format(",timeseries" if "timeseries]" in markdown else "")
    cells = jupytext.reads(f"```python\n{first}\n```\n", fmt="md").cells
    notebook.cells = cells + notebook.cells
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    return jupytext.writes(notebook, fmt="ipynb")

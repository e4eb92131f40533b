"""The tables of docs/api, made from docstrings: `KERAS_BACKEND=torch python docs/mkdocs/api_tables.py` writes them anew.

A page has words of its own, and tables of the public names of its module, whose rows can be moved; a new name is put at the
end. The site adds the entries that the tables list: docs/mkdocs/repository_pages.py.
"""

import importlib
import inspect
import pathlib
import re

FOLDER = pathlib.Path(__file__).parent.parent / "api"
ROW = re.compile(r"^\| `(\w+)` \|.*\n", re.MULTILINE)


def pages():
    """The pages of modules, by the names of the modules."""
    paths = [path for path in sorted(FOLDER.glob("*.md")) if path.name != "index.md"]
    return {"keras_ratesnn" if path.stem == "keras_ratesnn" else f"keras_ratesnn.{path.stem}": path for path in paths}


def with_tables(text, module):
    """The text of a page with the rows of its module."""
    rows = {name: _row((name, value)) for name, value in public(importlib.import_module(module))}
    return ROW.sub(lambda match: rows.pop(match[1], ""), text) + "".join(rows.values())


def public(module):
    """The public classes and functions of a module, pairs of name and value. It may have other modules and constants."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    values = [(name, getattr(module, name)) for name in names]
    return [(name, value) for name, value in values if callable(value)]


def _row(entry):
    name, value = entry
    paragraph = inspect.getdoc(value).partition("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=\.) (?=[A-Z`])", paragraph)[0].rstrip(".:,")
    return f"| `{name}` | {sentence.replace('|', '&#124;')} |\n"


if __name__ == "__main__":
    for module, path in pages().items():
        path.write_text(with_tables(path.read_text(), module))

"""The tables of docs/api, made from docstrings and docs/api/promises.toml:
`KERAS_BACKEND=torch python docs/mkdocs/api_tables.py` writes them anew.

A page has words of its own, and tables of the public names of its module, whose rows
can be moved; a new name is put at the end. A neuron has the figure of
figures.py. The site adds the entries that the tables list: repository_pages.py.
"""

import importlib
import inspect
import pathlib
import re
import tomllib

FOLDER = pathlib.Path(__file__).parent.parent / "api"
FIGURES = "../../images/neurons"
ROW = re.compile(r"^\| `(\w+)` \|.*\n", re.MULTILINE)
PROMISES = tomllib.loads((FOLDER / "promises.toml").read_text())
"""For each module whether its public names are `stable` or `experimental`."""


def pages():
    """The pages of modules, a list for each, by the names of the modules. A folder has
    the pages of one."""
    found = {}
    for path in sorted(FOLDER.rglob("*.md")):
        name = path.stem if path.parent == FOLDER else path.parent.name
        if name != "index":
            found.setdefault(
                "keras_ratesnn" if name == "keras_ratesnn" else f"keras_ratesnn.{name}",
                [],
            ).append(path)
    return found


def with_tables(texts, module):
    """The texts of the pages of a module, with its rows; those that are on no page come
    to the end of the last one."""
    rows = {
        name: _row(name, value, PROMISES[module][promised(name)])
        for name, value in public(importlib.import_module(module))
    }
    *others, last = [
        ROW.sub(lambda match: rows.pop(match[1], ""), text) for text in texts
    ]
    return [*others, last + "".join(rows.values())]


def promised(name):
    """The name with the promise: that of a cell is that of its layer."""
    return name.removesuffix("Cell")


def public(module):
    """The public classes and functions of a module, pairs of name and value. It may
    have other modules and constants."""
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
    ]
    names = getattr(
        module, "__all__", [name for name in own if not name.startswith("_")]
    )
    values = [(name, getattr(module, name)) for name in names]
    return [(name, value) for name, value in values if callable(value)]


def _row(name, value, promise):
    paragraph = inspect.getdoc(value).partition("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=\.) (?=[A-Z`])", paragraph)[0].rstrip(".:,")
    figure = (
        f" <br>![{name}: membrane and spikes]({FIGURES}/{name}.png)"
        if (FOLDER / "layers" / FIGURES / f"{name}.png").exists()
        else ""
    )
    return f"| `{name}` | {sentence.replace('|', '&#124;')}{figure} | {promise} |\n"


if __name__ == "__main__":
    for module, paths in pages().items():
        for path, text in zip(
            paths,
            with_tables([path.read_text() for path in paths], module),
            strict=True,
        ):
            path.write_text(text)

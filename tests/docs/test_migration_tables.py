"""The tables of the migration pages have a row for every class, and for every argument,
of the library that is installed."""

import importlib
import inspect
import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "migrate"
NONE = "no: "


def tables(page):
    """The tables of the section of a page, by the head of their first column: pairs of
    the names of a row, and what is here."""
    text = (
        (DOCS / page)
        .read_text()
        .partition("## Every class and argument\n")[2]
        .partition("\n## ")[0]
    )
    found = {}
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = [
            line.strip("|\n ").split(" | ", 1) for line in table.splitlines()
        ]
        found[head[0]] = [
            (_expanded(re.findall(r"`([\w{},]+)`", names)), here)
            for names, here in rows
        ]
    return found


def _expanded(names):
    """Names, with `Conv{1,2,3}d` as three."""
    parts = [re.split("[{}]", name) for name in names]
    return [
        part[0] + "".join([middle, *part[2:]])
        for part in parts
        for middle in (part[1].split(",") if part[1:] else [""])
    ]


def classes_of(module):
    found, library = (
        vars(importlib.import_module(module)).values(),
        module.partition(".")[0],
    )
    return {
        kind.__name__: kind
        for kind in found
        if inspect.isclass(kind) and kind.__module__.startswith(library)
    }


def arguments_of(kind):
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {
        one.name
        for one in parameters
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }


def names_of(table):
    names = [name for row, _ in table for name in row]
    assert len(names) == len(set(names)), "a name has two rows"
    return set(names)


@pytest.mark.parametrize(
    ("page", "head", "module", "with_arguments"),
    [
        ("snntorch.md", "class", "snntorch", True),
        ("snntorch.md", "class of `functional`", "snntorch.functional", False),
        (
            "spikingjelly.md",
            "class of `neuron`",
            "spikingjelly.activation_based.neuron",
            True,
        ),
        (
            "spikingjelly.md",
            "class of `layer`",
            "spikingjelly.activation_based.layer",
            False,
        ),
    ],
)
def test_every_class_and_argument_has_a_row(page, head, module, with_arguments):
    of_page, classes = tables(page), classes_of(module)
    assert names_of(of_page[head]) == classes.keys()
    if with_arguments:
        # Those of classes that are not here need none.
        here = [
            name
            for names, what in of_page[head]
            if not what.startswith(NONE)
            for name in names
        ]
        wanted = set().union(
            *(
                arguments_of(classes[name])
                for name in here
                if not name.endswith("BaseNode")
            )
        )
        assert names_of(of_page["argument"]) == wanted

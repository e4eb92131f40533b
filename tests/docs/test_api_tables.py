"""The tables of docs/api are those of the docstrings and the promises, and the site can
show the entries that they list."""

import importlib
import inspect
import pathlib
import re
import runpy

import griffe
import pytest

from keras_ratesnn import layers

pytestmark = pytest.mark.runs_once

ROOT = pathlib.Path(__file__).parents[2]
TABLES = runpy.run_path(str(ROOT / "docs" / "mkdocs" / "api_tables.py"))


@pytest.mark.parametrize("module", {**TABLES["pages"](), **TABLES["PROMISES"]})
def test_every_public_name_is_stable_or_experimental(module):
    library, promises = importlib.import_module(module), TABLES["PROMISES"][module]
    exported = {
        name
        for name in getattr(library, "__all__", [])
        if not inspect.ismodule(getattr(library, name))
    }
    exported |= {name for name, _ in TABLES["public"](library)}
    names = set(map(TABLES["promised"], exported))
    assert names - promises.keys() == set(), "write them to docs/api/promises.toml"
    assert promises.keys() - names == set(), "they are not public"
    assert set(promises.values()) <= {"stable", "experimental"}


@pytest.mark.parametrize(("module", "paths"), TABLES["pages"]().items())
def test_the_pages_of_a_module_list_its_public_names_with_their_first_sentences(
    module, paths
):
    texts = [path.read_text() for path in paths]
    for text in texts:
        title, _, _ = text.partition("\n")
        assert title.partition(":")[0] == f"# {module}", (
            "The site reads the module from the title of the page."
        )
        assert "| |\n|---|" not in text, "A column of a table has no heading."
    out_of_date = (
        "{} is out of date: `KERAS_BACKEND=torch python "
        "docs/mkdocs/api_tables.py` writes its rows anew."
    )
    for path, text, expected in zip(
        paths, texts, TABLES["with_tables"](texts, module), strict=True
    ):
        assert text == expected, out_of_date.format(path)


def test_the_guide_has_all_neurons_in_its_table():
    blocks = (ROOT / "docs" / "howto" / "neurons.md").read_text().split("\n\n")
    table = next(block for block in blocks if "| `LIF` |" in block)
    names = {
        name
        for name, value in TABLES["public"](layers)
        if inspect.isclass(value) and issubclass(value, layers.Neuron)
    }
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)", " ".join(rows))) == names - {"Neuron"}


@pytest.fixture(scope="module")
def package():
    """The library as the site reads it, by its own extensions."""
    extensions = griffe.load_extensions(str(ROOT / "docs" / "mkdocs" / "docstrings.py"))
    return griffe.load("keras_ratesnn", search_paths=[ROOT], extensions=extensions)


@pytest.mark.parametrize("module", TABLES["pages"]())
def test_the_site_reads_the_docstring_and_the_arguments_of_every_public_name(
    package, module
):
    for name, value in TABLES["public"](importlib.import_module(module)):
        entry = package[f"{module}.{name}".removeprefix("keras_ratesnn.")]
        described = [
            parameter.name.lstrip("*")
            for section in entry.docstring.parse("google")
            if section.kind == griffe.DocstringSectionKind.parameters
            for parameter in section.value
        ]
        assert described == list(inspect.signature(value).parameters), name

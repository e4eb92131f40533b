"""What is uploaded, and what its users read: the package's metadata, its size, what it
imports and what it says to install."""

import ast
import importlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import keras_ratesnn
from keras_ratesnn._core import imported_keras, moved_names, optional_packages
from keras_ratesnn._core.keras_internals import versions
from keras_ratesnn.gradients import GradientMethod, extend
from keras_ratesnn.layers import NeuronCell, RecurrentCell

ROOT = pathlib.Path(__file__).parents[2]
REPOSITORY = "https://github.com/example/keras_ratesnn"


def core_metadata(repository):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"] = repository
    return ProjectMetadata(str(ROOT), PluginManager(), project).core


def links_of(readme):
    text = re.sub(r"```.*?```", "", readme, flags=re.DOTALL)
    return re.findall(r"\]\(([^)]+)\)", text)


def test_links_of_the_page_on_an_index_are_absolute():
    core = core_metadata(REPOSITORY)
    links = links_of(core.readme)
    assert f"{REPOSITORY}/blob/HEAD/CONTRIBUTING.md" in links
    assert any(link.startswith(f"{REPOSITORY}/raw/HEAD/docs/images/") for link in links)
    assert [link for link in links if not link.startswith("https://")] == []
    assert core.urls["Repository"] == REPOSITORY
    assert core.urls["Documentation"] == "https://example.github.io/keras_ratesnn/"
    files = [
        link.removeprefix(f"{REPOSITORY}/").split("/", 2)[2]
        for link in links
        if link.startswith(REPOSITORY)
    ]
    assert [
        file for file in files if not (ROOT / file.partition("#")[0]).exists()
    ] == []


def test_without_an_address_the_page_on_an_index_has_no_link_that_leads_nowhere():
    core = core_metadata("")
    assert [
        link for link in links_of(core.readme) if not link.startswith("https://")
    ] == []
    assert "Contributing" in core.readme
    assert "![" not in core.readme
    assert core.urls == {}


def test_the_metadata_says_who_made_what_and_for_whom():
    core = core_metadata("")
    assert core.authors == [{"name": "keras_ratesnn contributors"}]
    assert {
        "Development Status :: 4 - Beta",
        "Operating System :: OS Independent",
    } <= set(core.classifiers)
    # An index refuses classifiers of licenses beside an expression.
    assert core.license_expression == "Apache-2.0"
    assert not any(classifier.startswith("License") for classifier in core.classifiers)


def test_a_bound_excludes_nothing_but_the_next_major_version_of_keras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    backends = [
        project["optional-dependencies"][name] for name in imported_keras.BACKENDS
    ]
    required = [*project["dependencies"], *itertools.chain(*backends)]
    bounded = [text for text in required if "<" in text]
    assert bounded == ["keras>=3.13,<4"]


def test_the_table_of_versions_is_what_is_promised_and_what_is_tested():
    page = (ROOT / "docs" / "getting_started.md").read_text()
    table = {
        name: (oldest, newest)
        for name, oldest, newest in re.findall(
            r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|", page, re.M
        )
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = {
        versions.NAMES[package]: f"{major}.{minor}"
        for package, (major, minor) in versions.NEWEST_TESTED.items()
    }
    required = [
        project["dependencies"][0],
        *(
            project["optional-dependencies"][name][0]
            for name in imported_keras.BACKENDS
        ),
    ]
    oldest = {
        versions.NAMES[package]: version
        for package, version in re.findall(r"(\w+)>=([\d.]+)", " ".join(required))
    }
    pythons = [
        text.rpartition(" ")[2]
        for text in project["classifiers"]
        if "Python :: 3." in text
    ]
    assert project["requires-python"] == f">={pythons[0]}"
    session = (ROOT / "noxfile.py").read_text().partition("def oldest")[0]
    assert f'python="{pythons[0]}"' in session
    assert f"{pythons[0]} to {pythons[-1]}" in (ROOT / "README.md").read_text()
    pairs = {name: (oldest[name], newest[name]) for name in newest}
    assert table == {"Python": (pythons[0], pythons[-1]), **pairs}


def test_the_wheel_has_the_mark_of_a_typed_package_and_at_most_24_mib():
    """Weights are compressed already; what else there is becomes smaller still."""
    included = WheelBuilder(str(ROOT)).recurse_included_files()
    paths = {file.relative_path: file.path for file in included}
    assert "keras_ratesnn/py.typed" in paths
    weights = [path for path in paths.values() if path.endswith(".keras")]
    assert sum(map(os.path.getsize, weights)) < 22 * 2**20


def test_a_message_says_which_packages_to_install(monkeypatch):
    requirements = [
        "keras<4,>=3.15",
        "nir>=1.0.8; extra == 'nir'",
        'onnx>=1.16 ; extra == "export"',
        "a>=1; extra == 'nir'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    assert (
        optional_packages.how_to_install("nir")
        == 'python -m pip install "nir>=1.0.8" "a>=1"'
    )
    assert (
        optional_packages.how_to_install("export")
        == 'python -m pip install "onnx>=1.16"'
    )
    assert (
        optional_packages.how_to_install("cv")
        == 'python -m pip install "keras-ratesnn[cv]"'
    )


PROGRAM = """
import json, sys
import keras
before = set(sys.modules)
import keras_ratesnn
added, names = set(sys.modules) - before, sorted(dir(keras_ratesnn))
registered = sorted(keras.saving.get_custom_objects())
for name in keras_ratesnn.__all__:
    getattr(keras_ratesnn, name)
later = sorted(keras.saving.get_custom_objects())
print(json.dumps([sorted(added), names, registered, later]))
"""
AT_MOST = 206
"""Modules of the library that its import may import: each takes a millisecond or
two."""


@pytest.fixture(scope="module")
def imported():
    """What the import of the library has imported, and what it is like afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_import_adds_no_package_to_those_of_keras(imported):
    added, names, _, _ = imported
    assert {name.partition(".")[0] for name in added} - sys.stdlib_module_names == {
        "keras_ratesnn"
    }
    assert set(keras_ratesnn.__all__) <= set(names)
    assert all(hasattr(keras_ratesnn, name) for name in keras_ratesnn.__all__)


def test_the_import_brings_what_programs_need_and_all_classes_that_files_name(imported):
    added, _, registered, later = imported
    own = [name for name in added if name.startswith("keras_ratesnn")]
    assert len(own) <= AT_MOST
    assert {"keras_ratesnn>LIF", "keras_ratesnn>PaddedMaxPooling2D"} <= set(registered)
    assert registered == later


def test_names_that_are_imported_later_are_those_that_type_checkers_see():
    module = ast.parse((ROOT / "keras_ratesnn" / "__init__.py").read_text())
    (seen,) = [node for node in module.body if isinstance(node, ast.If)]
    assert ast.unparse(seen.test) == "TYPE_CHECKING"
    found = {}
    for node in seen.body:
        is_own = node.module == "keras_ratesnn"
        found |= {
            alias.name: f"{node.module}.{alias.name}" if is_own else node.module
            for alias in node.names
        }
    assert found == keras_ratesnn._IMPORTED_LATER
    assert found.keys() <= set(keras_ratesnn.__all__)


NEW_NAMES = {
    **moved_names.NEW_NAMES,
    **{
        f"keras_ratesnn.gradients.{name}": f"{extend.__name__}.{name}"
        for name in extend.__all__
    },
}


@pytest.mark.parametrize(("old", "new"), NEW_NAMES.items())
def test_a_name_that_moved_is_an_error_that_says_the_new_one_until_0_3(old, new):
    assert keras_ratesnn.__version__.startswith("0.2."), "Remove the table."
    module, _, name = old.rpartition(".")
    message = re.escape(f"module {module!r} has no attribute {name!r}. Use {new}.")
    with pytest.raises(AttributeError, match=message):
        getattr(importlib.import_module(module), name)
    place, *_ = new.split(",")
    assert place.startswith("python -m ") or pkgutil.resolve_name(place)


SUBCLASSES = {
    GradientMethod: GradientMethod,
    extend.Handler: extend.OperationHandler,
    extend.LoopedHandler: extend.EligibilityHandler,
    NeuronCell: RecurrentCell,
}


def test_a_subclass_that_overrides_a_hook_by_its_old_name_is_refused():
    assert {base.__name__ for base in SUBCLASSES} == moved_names.NEW_HOOKS.keys()
    for base, subclass in SUBCLASSES.items():
        for old, new in moved_names.NEW_HOOKS[base.__name__].items():
            message = f"Mine overrides `{old}` of {base.__name__}, which is `{new}` now"
            with pytest.raises(TypeError, match=message):
                type("Mine", (subclass,), {old: True})
            assert hasattr(base, new)
            type("Mine", (subclass,), {new: True})

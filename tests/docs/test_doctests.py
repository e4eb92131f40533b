"""The examples in docstrings, in the README and in docs/ run, and docstring examples
print the documented output."""

import doctest
import importlib
import importlib.util
import pathlib
import re

import keras
import numpy as np
import pytest
from helpers import free_port
from keras import ops

import keras_ratesnn

BACKEND = keras.backend.backend()
ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    str(path.relative_to(ROOT))
    for path in (
        ROOT / "README.md",
        ROOT / "docs" / "llms.txt",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    # tests/docs/test_upstream.py runs the programs of that page, which fail on purpose.
    if "```python" in path.read_text() and path.name != "upstream.md"
]
BACKENDS = {"jax", "tensorflow", "torch"}
FILES = [
    path.relative_to(ROOT).with_suffix("").parts
    for path in sorted((ROOT / "keras_ratesnn").rglob("*.py"))
]
# The other backends' modules need their backend.
MODULES = [
    ".".join(parts).removesuffix(".__init__")
    for parts in FILES
    if not BACKENDS - {BACKEND} & set(parts)
]
# Readers of files, facts about layers, and the shapes of networks are the same on each
# backend; analyses have tests on each.
ONCE = (
    "keras_ratesnn.analysis.",
    "keras_ratesnn.events.",
    "keras_ratesnn.layer_kinds.",
    "keras_ratesnn.models.",
)
WITH_EXAMPLES = [
    name
    for name in MODULES
    if (BACKEND == "torch" or not name.startswith(ONCE))
    and ">>>" in pathlib.Path(importlib.util.find_spec(name).origin).read_text()
]
# Pages run on PyTorch, where they take the least time. Elsewhere those do that users
# copy first or that have blocks for what is there, the backend or a package; the others
# are slow tests there.
ON_EACH_BACKEND = {
    "README.md",
    "docs/getting_started.md",
    "docs/guide.md",
    "docs/howto/neurons.md",
}
# Blocks for a package that is not in the extra `test` run where it is installed, as in
# .ci/versions.
IN_BLOCKS = {
    "",
    BACKEND,
    *(["kerashub"] if importlib.util.find_spec("keras_hub") else []),
}
NAMES = {"keras": keras, "np": np, "ops": ops, "keras_ratesnn": keras_ratesnn}


def test_every_module_can_be_imported():
    for name in MODULES:
        importlib.import_module(name)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    results = doctest.testmod(
        module,
        extraglobs=NAMES,
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert results.failed == 0


# Pages whose data come with a package that is not in the extra `test`, and the package:
# `.ci/run` installs it alone.
NEEDS = {"docs/tutorials/speech.md": "aeon"}


def _where_it_runs(page):
    labels = set(re.findall(r"```python (\w+)\n", (ROOT / page).read_text()))
    here = BACKEND == "torch" or page in ON_EACH_BACKEND or labels & IN_BLOCKS
    package = NEEDS.get(page)
    missing = package is not None and importlib.util.find_spec(package) is None
    needs = pytest.mark.skipif(
        missing, reason=f"{package} is not in the extra test: see .ci/run"
    )
    return pytest.param(page, marks=[needs] if here else [needs, pytest.mark.slow])


# What readers are warned of is no error.
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("page", [_where_it_runs(page) for page in PAGES])
def test_python_blocks_of_a_page_run_in_order_and_tutorials_show_what_they_print(
    page, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    # As in the first process of `torchrun --nproc-per-node 1`.
    job = {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    for name, value in job.items():
        monkeypatch.setenv(name, str(value))
    names = {}
    # A block may name what it is for: a backend, or a package.
    blocks = re.findall(
        r"```python ?(\w*)\n(.*?)```\n(\n```text)?",
        (ROOT / page).read_text(),
        flags=re.DOTALL,
    )
    for label, block, output in blocks:
        if label in IN_BLOCKS:
            exec(compile(block, page, "exec"), names)
            if page.startswith("docs/tutorials/"):
                shown = bool(output) == bool(capsys.readouterr().out.strip())
                assert shown, (
                    "`KERAS_BACKEND=torch python docs/mkdocs/tutorials.py "
                    f"{pathlib.Path(page).stem}` writes:\n{block}"
                )

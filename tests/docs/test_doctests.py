"""The examples in docstrings, in the README and in docs/ run, and docstring examples print the documented output."""

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
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    # tests/docs/test_upstream.py runs the programs of that page, which fail on purpose.
    if "```python" in path.read_text() and path.name != "upstream.md"
]
BACKENDS = {"jax", "tensorflow", "torch"}
FILES = [path.relative_to(ROOT).with_suffix("").parts for path in sorted((ROOT / "keras_ratesnn").rglob("*.py"))]
# The other backends' modules need their backend.
MODULES = [".".join(parts).removesuffix(".__init__") for parts in FILES if not BACKENDS - {BACKEND} & set(parts)]
# JAX compiles each operation of what these pages run outside of compiled functions. Their functions have tests on JAX.
LONG_ON_JAX = {
    f"docs/{page}.md"
    for page in (
        *("analysis", "extending", "tasks"),
        *(f"tutorials/{name}" for name in ("compare", "convert", "digits", "gradients", "spikes", "train", "transformer")),
    )
}
# Blocks for a package that is not in the extra `test` run where it is installed, as in .ci/versions.
IN_BLOCKS = {"", BACKEND, *(["kerashub"] if importlib.util.find_spec("keras_hub") else [])}
NAMES = {"keras": keras, "np": np, "ops": ops, "keras_ratesnn": keras_ratesnn}


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs=NAMES, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0


# What readers are warned of is no error.
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if BACKEND == "jax" and page in LONG_ON_JAX else page for page in PAGES]
)
def test_python_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As in the first process of `torchrun --nproc-per-node 1`.
    job = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in job.items():
        monkeypatch.setenv(name, str(value))
    names = {}
    # A block may name what it is for: a backend, or a package.
    for label, block in re.findall(r"```python ?(\w*)\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL):
        if label in IN_BLOCKS:
            exec(compile(block, page, "exec"), names)

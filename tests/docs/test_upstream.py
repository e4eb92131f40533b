"""The programs of docs/upstream.md show the faults that they are about, with the
versions that are named there."""

import json
import pathlib
import re
import subprocess
import sys

import keras
import pytest
from helpers import BACKEND, only_on

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "upstream.md"
SHOWN = re.search(
    r"shown with (Keras [\d., ]*\d) where a section does not say otherwise",
    " ".join(PAGE.read_text().split()),
)[1]
SECTIONS = re.findall(
    r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE
)
RUN = """
import json, sys, traceback
results = {}
for title, program in json.load(sys.stdin).items():
    try:
        exec(compile(program, title, "exec"), {"__name__": title})
        results[title] = "mended"
    except AssertionError:
        results[title] = "fault"
    except Exception:
        results[title] = traceback.format_exc()
print("\\n" + json.dumps(results))
"""


def programs(kind):
    """Dict of titles to the programs of this kind."""
    found = {
        title: re.search(
            rf"^```python {kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE
        )
        for title, text in SECTIONS
    }
    # A program that makes virtual devices comes first.
    found = {title: match[1] for title, match in found.items() if match}
    return dict(
        sorted(
            found.items(),
            key=lambda item: not re.search("logical_device|device_count", item[1]),
        )
    )


def is_to_show(title):
    """Whether the installed versions are among those with which a fault is said to be
    seen; `None` if they are others, or Python is: some depend on how it frees memory.
    """
    if sys.version_info[:2] != (3, 11):
        return None
    (text,) = (text for name, text in SECTIONS if name == title)
    stated = re.search(r"Shown with ([^.]*(?:\.\d[^.]*)*)\.", text)
    shown = stated[1] if stated else SHOWN
    version = ".".join(keras.__version__.split(".")[:2])
    if library := re.search(r"(PyTorch|TensorFlow) ([\d.]+)", shown):
        module = {"PyTorch": "torch", "TensorFlow": "tensorflow"}[library[1]]
        if ".".join(sys.modules[module].__version__.split(".")[:2]) != library[2]:
            return None
    known = re.search(r"Keras ([\d., ]+)", shown)
    if known is None or version in known[1].split(", "):
        return True
    return (
        False
        if f"Mended in Keras {version}" in text or f"Keras {version} does not" in text
        else None
    )


def test_each_program_shows_its_fault():
    if BACKEND == "tensorflow":
        pytest.importorskip("tensorflow")
    found = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(programs(BACKEND)),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    results = json.loads(found.stdout.splitlines()[-1])
    assert list(results) == list(programs(BACKEND))
    for title, result in results.items():
        assert result in ("fault", "mended"), f"{title}: {result}"
        wanted = is_to_show(title)
        if wanted is None:
            # Other versions than those of the page.
            print(f"{title}: {result}")
        else:
            assert (result == "fault") == wanted, (
                f"docs/upstream.md, {title}: {result}. If mended, remove what works "
                "around it"
            )


@pytest.mark.slow
@only_on("torch", "a fault of PyTorch's compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch crashes on Linux")
def test_the_program_that_crashes_crashes():
    ((title, program),) = programs("crash").items()
    code = subprocess.run(
        [sys.executable, "-c", program], capture_output=True
    ).returncode
    assert not is_to_show(title) or code < 0, (
        f"docs/upstream.md, {title}: mended. Remove what works around it"
    )


def test_each_workaround_that_the_page_names_exists():
    text = " ".join(PAGE.read_text().split())
    code = {
        path: path.read_text()
        for folder in ("keras_ratesnn", "recipes", "tests")
        for path in (PAGE.parents[1] / folder).rglob("*.py")
    }
    for path in re.findall(r"`((?:keras_ratesnn|recipes|tests)/[\w/.]+)`", text):
        assert (PAGE.parents[1] / path).exists(), path
    for name in re.findall(r"`(test_\w+)`", text):
        assert any(f"def {name}(" in source for source in code.values()), name

"""What docstrings, and pages for those who change the library, name is there."""

import importlib
import inspect
import pathlib
import re
import runpy

import pytest

from keras_ratesnn._core import docstrings

ROOT = pathlib.Path(__file__).parents[2]
TABLES = runpy.run_path(str(ROOT / "docs" / "mkdocs" / "api_tables.py"))
ARGS = re.compile(r"^Args:\n((?: .*\n?)*)", re.MULTILINE)
ENTRY = re.compile(r"^    (\S.*?): \S", re.MULTILINE)
STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


@pytest.mark.parametrize("module", TABLES["pages"]())
def test_help_has_an_entry_for_each_argument_of_what_is_public(module):
    for name, value in TABLES["public"](importlib.import_module(module)):
        section = ARGS.search(inspect.getdoc(value))
        parameters = inspect.signature(value).parameters.values()
        assert (ENTRY.findall(section[1]) if section else []) == [
            STARS.get(each.kind, "") + each.name for each in parameters
        ], name


def described(size=1, name=None):
    """Described.

    Args:
        size: Integer, in
            steps. Defaults to `1`.
        name: String. Defaults to `None`.
    """


def short(size=2, *, more, **kwargs):
    """Short.

    Args: as in `described`, but
        **kwargs: None.
        size: Defaults to `2`.
        more: Integer.

    Returns:
        Nothing.
    """


def dropped():
    pass


def test_arguments_that_are_described_elsewhere_are_written_out():
    docstrings.write_out(globals())
    assert inspect.getdoc(short) == (
        "Short.\n\nArgs:\n"
        "    size: Integer, in\n        steps.\n        Defaults to `2`.\n"
        "    more: Integer.\n    **kwargs: None.\n\nReturns:\n    Nothing."
    )
    assert dropped.__doc__ is None


PAGES = ["CONTRIBUTING.md", "docs/architecture.md", "docs/extending.md"]
PAGES.append("docs/upstream.md")
BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
IN_FILE = re.compile(r"((?:`\w+`(?:,| and)? )*)(in )?`([\w./]+\.py)`")
ELSEWHERE = {"Equalization", "RandomSharpness", "TF_ENABLE_ONEDNN_OPTS"}
"""Names of other libraries that the repository does not use."""


@pytest.fixture(scope="module")
def files():
    """The texts of files of code, and of the blocks of code of the pages, by their
    paths."""
    rooms = ("keras_ratesnn", "recipes", "tests", "docs")
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    paths += [*ROOT.glob("*.py"), *ROOT.glob("*.toml"), *ROOT.glob("*.yml")]
    paths += [*ROOT.glob(".ci/*"), *ROOT.glob(".github/*/*.yml")]
    paths.remove(pathlib.Path(__file__))
    code = {
        f"/{path.relative_to(ROOT)}": path.read_text()
        for path in paths
        if path.is_file()
    }
    blocks = (BLOCK.findall((ROOT / page).read_text()) for page in PAGES)
    return code | {
        page: "".join(found) for page, found in zip(PAGES, blocks, strict=True)
    }


@pytest.mark.parametrize("page", PAGES)
def test_names_of_code_on_pages_for_developers_exist(page, files):
    words = (re.findall(r"\w+", path + text) for path, text in files.items())
    text = " ".join(BLOCK.sub("", (ROOT / page).read_text()).split())
    spans = " ".join(re.findall(r"`([^`]+)`", text))
    assert set(re.findall(r"[A-Za-z_]\w*", spans)) - ELSEWHERE.union(*words) == set()
    for names, is_in, path in IN_FILE.findall(text):
        code = "".join(files[name] for name in files if name.endswith(f"/{path}"))
        assert code, path
        here = set(re.findall(r"\w+", names)) - {"and"} if is_in else set()
        assert here - set(re.findall(r"\w+", code)) == set(), path

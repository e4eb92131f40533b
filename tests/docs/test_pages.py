"""The pages of the documentation: their links lead somewhere, and the site shows all of
them."""

import hashlib
import json
import math
import pathlib
import re
import runpy
import tomllib

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_ratesnn
from recipes.data import digits

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    str(path.relative_to(ROOT))
    for path in sorted(
        [
            *ROOT.glob("*.md"),
            ROOT / "recipes" / "README.md",
            *(ROOT / "docs").rglob("*.md"),
        ]
    )
]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHIM = "e8e412dbcfea9b7e31b5ffa288d7b6035915e714c542f4176a0cdbe262fc9609"
"""Of shim/index.js in iframe-worker 1.0.4."""
SPLIT = (
    "train_test_split(\n    images, labels, test_size=360, stratify=labels, "
    "random_state=0\n)\n"
)
HEADING = re.compile(r"^#+ (.*)", re.MULTILINE)


def anchors_of(page):
    """The anchors of the headings of a page, as MkDocs and GitHub make them."""
    without_code = re.sub(
        r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    headings = [
        re.sub(r"[^\w\s-]", "", heading).strip().lower()
        for heading in HEADING.findall(without_code)
    ]
    return {re.sub(r"[-\s]+", "-", heading) for heading in headings}


def test_code_of_another_project_is_unchanged_and_has_its_notice():
    """Minified code is of others: ours has short lines."""
    code = [
        path
        for suffix in ("js", "css")
        for path in (ROOT / "docs").rglob(f"*.{suffix}")
    ]
    (path,) = [
        path for path in code if max(map(len, path.read_text().splitlines())) > 128
    ]
    notice, _, program = path.read_text().partition("*/\n")
    for said in (
        "/*!",
        "iframe-worker 1.0.4",
        "Copyright (c) 2020-2022 Martin Donath",
        "Permission is hereby granted",
        "AS IS",
    ):
        assert said in notice
    assert hashlib.sha256(program.encode()).hexdigest() == SHIM, (
        f"{path} is another version: name it in the notice"
    )
    assert path.name in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    path = ROOT / page
    for link in LINK.findall(CODE.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{link}: there is no such file"
        assert found.is_relative_to(ROOT), f"{link}: outside of the repository"
        assert not anchor or anchor in anchors_of(found), (
            f"{link}: there is no such heading"
        )


WIDTH = 88
WIDTH_OF_BLOCK = {
    **dict.fromkeys(("python", "py", "sh", "c"), 80),
    **dict.fromkeys(("text", "bibtex"), 128),
    "bash": math.inf,
}
"""Of blocks, by their mark: readers copy code, `text` and `bibtex` are what programs
write, and bash is for the commands of the README, a line each for `.ci/run`."""


def wide_lines(path):
    """The lines of a page that are too wide. Tables, images, comments and single words
    cannot be cut."""
    mark = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            mark = line[3:].partition(" ")[0] if mark is None else None
        width = WIDTH_OF_BLOCK.get(mark, WIDTH)
        is_whole = line.startswith(("|", "![", "<!--")) or len(line.split()) == 1
        if len(line) > width and not (mark is None and is_whole):
            yield f"{path}:{number}: {len(line)} characters instead of at most {width}"


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_not_too_wide(page):
    assert list(wide_lines(ROOT / page)) == []


def test_pages_test_the_pretrained_digits_on_images_it_was_not_trained_on():
    texts = [(ROOT / page).read_text() for page in PAGES]
    testing = [
        text
        for text in texts
        if 'load_pretrained("digits")' in text and "load_digits(" in text
    ]
    assert len(testing) >= 4
    assert all(SPLIT in text for text in testing)
    images, labels = load_digits(return_X_y=True)
    split, data = (
        eval(
            SPLIT,
            {"train_test_split": train_test_split, "images": images, "labels": labels},
        ),
        digits.load(),
    )
    for ours, theirs in zip(
        split,
        (data.train_images, data.test_images, data.train_labels, data.test_labels),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs.reshape(ours.shape))


def test_the_accuracy_in_the_readme_is_the_test_accuracy_of_the_card():
    block = re.search(
        r"^```python\n(.*?)^```",
        (ROOT / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )[1]
    claimed = float(
        re.search(r'^print\("accuracy", .*# (0\.\d+)$', block, re.MULTILINE)[1]
    )
    card, names = keras_ratesnn.models.list_pretrained()["digits"], {}
    assert claimed == pytest.approx(card.test_accuracy, abs=1e-6)
    exec(compile(block, "README.md", "exec"), names)
    # Sums in another order may change the class of an image.
    assert (names["predicted"] == names["test_labels"]).mean() == pytest.approx(
        claimed, abs=1.001 / card.test_images
    )


def test_the_readme_is_short_and_names_the_limits_on_its_first_screen():
    text = (ROOT / "README.md").read_text()
    # Of a table few rows are read.
    assert len(re.sub(r"^\|.*", "", text, flags=re.MULTILINE).split()) <= 780
    assert len(LINK.findall(text)) <= 22
    assert "](docs/limits.md)" in text.partition("\n```")[0]


def test_the_citation_names_the_package_its_version_and_the_paper_of_the_docs():
    fields, _, paper = (
        (ROOT / "CITATION.cff").read_text().partition("preferred-citation:\n")
    )
    values = dict(re.findall(r"^([\w-]+): (.+)$", fields, re.MULTILINE))
    assert (
        values["title"]
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    )
    assert values["version"] == keras_ratesnn.__version__
    cited = (ROOT / "docs" / "citing.md").read_text()
    assert (
        re.search(r"^  title: (.+)$", paper, re.MULTILINE)[1]
        == re.search(r"title += \{(.+)\},", cited)[1]
    )
    names = re.findall(r"- family-names: (\w+)\n +given-names: (\w+)\n", paper)
    assert (
        " and ".join(map(", ".join, names))
        == re.search(r"author += \{(.+)\},", cited)[1]
    )


def test_the_changelog_begins_with_the_version_and_a_date_once_it_is_released():
    version, state = re.search(
        r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    ).groups()
    is_released = re.fullmatch(r"\d{4}-\d\d-\d\d", state) is not None
    assert is_released or state == "unreleased"
    assert keras_ratesnn.__version__ == (version if is_released else f"{version}.dev0")


@pytest.fixture
def hook(monkeypatch):
    """What the site makes of pages, without MkDocs."""
    folder = ROOT / "docs" / "mkdocs"
    monkeypatch.syspath_prepend(folder)
    return runpy.run_path(str(folder / "repository_pages.py"))


def test_the_site_has_a_title_for_each_mark_of_a_block_of_code(hook):
    marks = {
        mark
        for page in PAGES
        for mark in re.findall(
            r"^```python (\w+)$", (ROOT / page).read_text(), re.MULTILINE
        )
    }
    assert marks <= set(hook["TITLES"])


def test_a_program_can_read_all_pages_from_llms_txt(hook):
    text = (ROOT / "docs" / "llms.txt").read_text()
    assert text.startswith("# keras_ratesnn\n\n> ")
    assert "\nDo not use it\n" in text
    # tests/docs/test_doctests.py runs it.
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len([line for line in block.splitlines() if line]) <= 10

    navigation = [
        {"Home": "index.md"},
        {"API": ["api/index.md", {"layers": [{"neurons": "api/layers/neurons.md"}]}]},
        {"Method": "method.md"},
    ]
    texts = {"api/index.md": "# API reference\n\nA page for each module."}

    def lines(address):
        links = hook["links_to_pages"](navigation, texts, address)
        return [line for line in "".join(links).splitlines() if line]

    assert lines("") == [
        "## Pages",
        "- [Home](index.md)",
        "- [Method](method.md)",
        "## API",
        "- [API reference](api/index.md)",
        "## API: layers",
        "- [neurons](api/layers/neurons.md)",
    ]
    address = "https://example.org/site/"
    assert f"- [neurons]({address}api/layers/neurons.md)" in lines(address)


def test_every_page_and_every_image_of_docs_is_shown():
    docs = ROOT / "docs"
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    shown = set(re.findall(r"^ +- (?:.*: )?(\S+\.md)$", nav, re.MULTILINE))
    # The other pages of the site: docs/mkdocs/repository_pages.py.
    examples = {f"examples/{path.stem}.md" for path in docs.glob("examples/*.py")}
    elsewhere = {"recipes.md", "contributing.md", "changelog.md"} | examples
    assert examples <= shown
    assert shown - elsewhere == {
        str(path.relative_to(docs)) for path in docs.rglob("*.md")
    }
    text = "".join((ROOT / page).read_text() for page in PAGES)
    images = [*docs.rglob("*.png"), *docs.rglob("*.gif")]
    assert [
        path.name for path in images if str(path.relative_to(docs)) not in text
    ] == []


def test_the_devcontainer_installs_what_the_test_command_of_the_readme_does():
    commands = re.findall(
        r"^```bash\n(.*)\n```", (ROOT / "README.md").read_text(), re.M
    )
    install, *_ = commands[-1].split(" && ")
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"].startswith(install)
    backend = container["containerEnv"]["KERAS_BACKEND"]
    assert f"KERAS_BACKEND={backend} python -m pytest" in commands[-1]

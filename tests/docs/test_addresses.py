"""What the site, notebooks and pages on hubs say without an address of the repository,
and with a made-up one in pyproject.toml."""

import doctest
import importlib
import pathlib

import pytest

from recipes import addresses

pytestmark = pytest.mark.runs_once

ROOT = pathlib.Path(__file__).parents[2]
REPOSITORY = "https://github.com/example/name"
TEXT = "# Title\n\n[A page](../guide.md#a), [a file](../../pyproject.toml).\n"


@pytest.fixture
def imported(monkeypatch):
    """Imports a script of the site, which does without the package that builds it."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "mkdocs")
    return importlib.import_module


@pytest.mark.parametrize("repository", ["", REPOSITORY])
def test_the_address_is_read_from_the_table_of_the_build(
    repository, tmp_path, monkeypatch
):
    text = (ROOT / "pyproject.toml").read_text()
    begin, end = text.split(f'repository = "{addresses.repository()}"')
    (tmp_path / "pyproject.toml").write_text(f'{begin}repository = "{repository}"{end}')
    monkeypatch.setattr(addresses, "ROOT", tmp_path)
    assert addresses.repository() == repository


def test_other_addresses_follow_from_it():
    assert doctest.testmod(addresses).failed == 0
    # Elsewhere nothing is known of a site.
    assert addresses.site("https://example.org/owner/name") == ""
    assert addresses.colab("https://example.org/owner/name", "a.ipynb") == ""


def test_links_of_the_site_to_files_are_text_or_lead_to_the_repository(imported):
    pages = imported("repository_pages")
    page = "tutorials/neuron.md"
    assert pages.with_links_of_site(TEXT, page, "") == (
        "# Title\n\n[A page](../guide.md#a), a file.\n"
    )
    assert pages.with_links_of_site(TEXT, page, REPOSITORY) == (
        "# Title\n\n[A page](../guide.md#a), "
        f"[a file]({REPOSITORY}/blob/HEAD/pyproject.toml).\n"
    )

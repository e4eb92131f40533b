"""What the site, notebooks and pages on hubs say without an address of the repository,
and with a made-up one in pyproject.toml."""

import doctest
import importlib
import pathlib

import pytest

from recipes import addresses

ROOT = pathlib.Path(__file__).parents[2]
REPOSITORY = "https://github.com/example/name"
SITE = "https://example.github.io/name/"
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


def test_a_tutorial_has_a_button_for_colab_where_there_is_a_repository(imported):
    with_notebook = imported("repository_pages").with_notebook
    without = with_notebook(TEXT, "tutorials/neuron.md", "")
    assert "(neuron.ipynb){ download }" in without
    assert "Colab" not in without
    colab = addresses.colab(REPOSITORY, "tutorials/neuron.ipynb")
    assert f"[Open in Colab]({colab})" in with_notebook(
        TEXT, "tutorials/neuron.md", REPOSITORY
    )


def test_the_first_cell_of_a_notebook_installs_from_a_clone(imported):
    first_cell = imported("tutorials").first_cell
    here, elsewhere = (first_cell(TEXT, address) for address in ("", REPOSITORY))
    install = '%pip install -q -e ".[torch,recipes,plots,export]"\n'
    assert here.startswith(f"# In a clone of the repository:\n{install}")
    assert elsewhere.startswith(f"!git clone -q --depth 1 {REPOSITORY} keras_ratesnn\n")
    assert install in elsewhere


def test_links_of_a_notebook_are_relative_or_lead_to_the_site(imported):
    with_links = imported("tutorials").with_links_of_notebooks
    text = "[A page](../guide.md#a), ![An image](../images/a.png)"
    assert with_links(text, "") == (
        "[A page](../guide.html#a), ![An image](../images/a.png)"
    )
    assert with_links(text, SITE) == (
        f"[A page]({SITE}guide.html#a), ![An image]({SITE}images/a.png)"
    )

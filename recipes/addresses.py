"""Addresses of the repository and of what is made from it.

pyproject.toml has the one of the repository, in the table of the build's hook. All
others follow from it, for a repository on GitHub whose site is in the branch gh-pages.
While it is empty, so are they.
"""

import pathlib
import tomllib
import urllib.parse

ROOT = pathlib.Path(__file__).parents[1]


def repository():
    """The address of the repository, without a slash at its end."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return tool["hatch"]["metadata"]["hooks"]["custom"]["repository"]


def site(repository):
    """The address of the site, with a slash at its end; empty if there is none.

    >>> site("https://github.com/owner/name")
    'https://owner.github.io/name/'
    >>> site("")
    ''
    """
    url = urllib.parse.urlsplit(repository)
    if url.netloc != "github.com":
        return ""
    owner, name = url.path.strip("/").split("/")
    return f"https://{owner}.github.io/{name}/"


def colab(repository, notebook):
    """The address at which Colab opens a notebook of the site; empty if there is none.

    >>> colab("https://github.com/owner/name", "a.ipynb")
    'https://colab.research.google.com/github/owner/name/blob/gh-pages/a.ipynb'
    """
    if not site(repository):
        return ""
    path = urllib.parse.urlsplit(repository).path
    return f"https://colab.research.google.com/github{path}/blob/gh-pages/{notebook}"

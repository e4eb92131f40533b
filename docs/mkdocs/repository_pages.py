"""Hook of MkDocs: adds pages that are no Markdown in docs/, and makes links, blocks of
code and API pages as on the site.

For readers that are programs, the site has the Markdown of each page beside it, and
`llms.txt`: docs/llms.txt, and links to all pages.
"""

import pathlib
import posixpath
import re
import urllib.parse

import griffe
from tutorials import page_as_notebook, page_of_example

from recipes import addresses

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = {
    "recipes/README.md": "recipes.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/examples/spiking_digits.py": "examples/spiking_digits.md",
}
"""From paths in the repository to paths on the site. What is Python has the form of
keras.io's examples."""

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
ELSEWHERE = re.compile(r"[a-z]+:")


def on_config(config):
    """The addresses of the site and of the repository, as far as they are known. The
    theme's `repo_url` would load numbers of it from the network."""
    repository = addresses.repository()
    config.site_url = addresses.site(repository) or None
    if repository:
        link = {"icon": "fontawesome/brands/git-alt", "link": repository}
        config.extra["social"] = [link | {"name": "Repository"}]
    return config


def on_files(files, config):
    # Tests read this file where there is no MkDocs.
    from mkdocs.structure.files import File

    repository = addresses.repository()
    for source, page in PAGES.items():
        text = (ROOT / source).read_text()
        if source.endswith(".py"):
            text = page_of_example(text)
        files.append(File.generated(config, page, content=text))
    for path in (ROOT / "docs" / "tutorials").glob("*.md"):
        page = f"tutorials/{path.name}"
        text = with_links_of_site(path.read_text(), page, repository)
        notebook = page_as_notebook(text, repository)
        address = f"tutorials/{path.stem}.ipynb"
        files.append(File.generated(config, address, content=notebook))
    return files


TITLES = {
    "tensorflow": "On TensorFlow",
    "jax": "On JAX",
    "torch": "On PyTorch",
    "crash": "On PyTorch, ends in a crash",
    "neurobench": "With NeuroBench",
    "kerashub": "With KerasHub",
}
"""Of blocks of code, by the word after ```python."""

ENTRY = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
"""A row of the table of an API page."""

MARKDOWN = {}
"""The texts of the pages beside them, by their paths."""


def on_page_markdown(markdown, page, **kwargs):
    name = page.file.src_uri
    repository = addresses.repository()
    MARKDOWN[name] = with_links_of_site(markdown, name, repository)
    if name.startswith("tutorials/"):
        markdown = with_notebook(markdown, name, repository)
    if name.startswith("api/") and name != "api/index.md":
        markdown = with_entries(markdown)
    return with_links_of_site(with_titles_of_backends(markdown), name, repository)


def with_notebook(markdown, page, repository):
    """The text of a tutorial, with links to its notebook below the title."""
    title, text = markdown.split("\n", 1)
    notebook = page.removesuffix(".md") + ".ipynb"
    links = f"[This page as a notebook]({posixpath.basename(notebook)}){{ download }}"
    if colab := addresses.colab(repository, notebook):
        links += f" [Open in Colab]({colab}){{ .md-button }}"
    return f"{title}\n\n{links}\n{text}"


def on_post_build(config):
    site = pathlib.Path(config.site_dir)
    extensions = griffe.load_extensions(ROOT / "docs" / "mkdocs" / "docstrings.py")
    library = griffe.load("keras_ratesnn", search_paths=[ROOT], extensions=extensions)
    for name, text in MARKDOWN.items():
        if name.startswith("api/"):
            text += "".join(docstrings(text, library))
        (site / name).write_text(text)
    links = links_to_pages(config.nav, MARKDOWN, config.site_url or "")
    with (site / "llms.txt").open("a") as file:
        file.writelines(links)


def links_to_pages(navigation, texts, address, section=None):
    """Yields the lines of llms.txt about pages: a heading for each section, and the
    link to each page.

    Args:
        navigation: List, `nav` of mkdocs.yml.
        texts: Dict from the paths of pages to their Markdown, for the titles of pages
            that the navigation gives none.
        address: String, the address of the site; empty for relative links.
        section: String, the heading; `None` for pages without one.
    """
    titled = [
        entry
        if isinstance(entry, dict)
        else {texts[entry].partition("\n")[0].removeprefix("# "): entry}
        for entry in navigation
    ]
    pages = {title: place for entry in titled for title, place in entry.items()}
    yield f"\n## {section or 'Pages'}\n\n"
    for title, place in pages.items():
        if isinstance(place, str):
            yield f"- [{title}]({urllib.parse.urljoin(address, place)})\n"
    for title, place in pages.items():
        if not isinstance(place, str):
            heading = f"{section}: {title}" if section else title
            yield from links_to_pages(place, texts, address, heading)


def docstrings(markdown, library):
    """Yields an entry for each name in the table of an API page, as on the site: how it
    is called, its docstring, and those of its methods."""
    for name in ENTRY.findall(markdown):
        entry = library[f"{module_of(markdown)}.{name}".removeprefix("keras_ratesnn.")]
        yield f"\n## {name}\n"
        yield from call_and_docstring(entry)
        methods = entry.functions if entry.is_class else {}
        for method, function in methods.items():
            if function.docstring and not method.startswith("_"):
                yield f"\n### {name}.{method}\n"
                yield from call_and_docstring(function)


def call_and_docstring(entry):
    signature = entry.signature()
    if signature:
        yield f"\n```python\n{signature}\n```\n"
    yield f"\n{entry.docstring.value}\n"


def module_of(markdown):
    """The module of an API page, which is its title, or the beginning of it."""
    return markdown.partition("\n")[0].removeprefix("# ").partition(":")[0]


def with_entries(markdown):
    """The text of an API page, whose table leads to entries below it, which
    mkdocstrings makes of docstrings."""
    module = module_of(markdown)
    names = ENTRY.findall(markdown)
    linked = ENTRY.sub(
        lambda match: f"| [`{match[1]}`](#{module}.{match[1]}) |", markdown
    )
    options = {
        "show_root_heading": "false",
        "show_root_toc_entry": "false",
        "members": f"[{', '.join(names)}]",
    }
    lines = (f"      {key}: {value}\n" for key, value in options.items())
    return f"{linked}\n::: {module}\n    options:\n{''.join(lines)}"


def with_titles_of_backends(markdown):
    """The text of a page, in which a block of code for one backend, ```python torch,
    has its name as a title."""
    return re.sub(
        r"^```python (\w+)$",
        lambda match: f'```python title="{TITLES[match[1]]}"',
        markdown,
        flags=re.MULTILINE,
    )


def with_links_of_site(markdown, page, repository):
    """The text of a page, with links between pages of the site, which have titles where
    the repository has names of files.

    Links to other files lead to the repository; while its address is not known, they
    become plain text.
    """
    source = next(
        (path for path, name in PAGES.items() if name == page),
        posixpath.join("docs", page),
    )

    def replace(match):
        text, target, anchor = match[1], match[2], match[3] or ""
        if ELSEWHERE.match(target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in PAGES:
            place = PAGES[path]
        elif path.startswith("docs/"):
            place = path.removeprefix("docs/")
        elif (ROOT / path).exists():
            absolute = f"{repository}/blob/HEAD/{path}{anchor}"
            return f"[{text}]({absolute})" if repository else text
        else:
            return match[0]
        if text.endswith(".md"):
            text = (ROOT / path).read_text().partition("\n")[0].removeprefix("# ")
        relative = posixpath.relpath(place, posixpath.dirname(page) or ".")
        return f"[{text}]({relative}{anchor})"

    return LINK.sub(replace, markdown)

"""Checks a built site: `check_site.py site`.

Links lead to files and anchors, nothing is loaded from the network, and no block of
code is left as Markdown. Each page has its Markdown beside it, and llms.txt names it.
"""

import functools
import html.parser
import pathlib
import re
import sys
import urllib.parse

LOADED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
}
"""Tags of what a browser fetches when it opens a page."""

CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)")
"""In Markdown."""


class Page(html.parser.HTMLParser):
    """The anchors of a page, what it links to or loads, pairs of tag and address, and
    whether it shows marks of code."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.addresses, self.shows_marks = set(), [], False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        if attributes.get("rel") == "canonical":
            # The page's own address, which is not loaded.
            return
        address = attributes.get("href" if tag == "a" else LOADED.get(tag, ""))
        if address:
            self.addresses.append((tag, address))

    def handle_data(self, data):
        self.shows_marks |= "```" in data


def problems_of_markdown(site):
    """Yields a line for each link in Markdown that leads to no file, and each page that
    has no Markdown or is not in llms.txt."""
    for path in sorted([site / "llms.txt", *site.rglob("*.md")]):
        for address in LINK.findall(CODE.sub("", path.read_text())):
            is_elsewhere = urllib.parse.urlsplit(address).scheme
            if not is_elsewhere and not (path.parent / address).is_file():
                yield f"{path.relative_to(site)}: {address} leads to no file"
    listed = (site / "llms.txt").read_text()
    for path in sorted(site.rglob("*.html")):
        page = path.relative_to(site).with_suffix(".md")
        if page.name != "404.md" and not (site / page).is_file():
            yield f"{page} is not beside its page"
        elif page.name != "404.md" and f"{page})" not in listed:
            yield f"{page} is not in llms.txt"


def problems(site):
    """Yields a line for each link that leads nowhere, thing that is loaded from the
    network, and page with marks of code."""
    page_at = functools.cache(Page)
    for path in sorted(site.rglob("*.html")):
        # It is shown in place of any missing page, so a server must find its links from
        # the root.
        if path.name == "404.html":
            continue
        if page_at(path).shows_marks:
            yield f"{path.relative_to(site)}: a block of code is left as Markdown"
        for tag, address in page_at(path).addresses:
            url = urllib.parse.urlsplit(address)
            if url.scheme or url.netloc:
                if tag != "a":
                    yield f"{path.relative_to(site)}: loads {address}"
                continue
            target = (
                (path.parent / urllib.parse.unquote(url.path)).resolve()
                if url.path
                else path
            )
            if not target.is_file():
                yield f"{path.relative_to(site)}: {address} leads to no file"
            elif (
                url.fragment
                and target.suffix == ".html"
                and urllib.parse.unquote(url.fragment) not in page_at(target).anchors
            ):
                yield f"{path.relative_to(site)}: {address} leads to no anchor"


if __name__ == "__main__":
    site = pathlib.Path(sys.argv[1]).resolve()
    found = [*problems(site), *problems_of_markdown(site)]
    print(
        "\n".join(found)
        or "The links of the site are right, and it loads nothing from the network."
    )
    sys.exit(bool(found))

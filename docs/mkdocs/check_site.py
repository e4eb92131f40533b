"""Checks a built site: links lead to files and anchors, and nothing is loaded from the network: `check_site.py site`."""

import functools
import html.parser
import pathlib
import sys
import urllib.parse

LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""Tags of what a browser fetches when it opens a page."""


class Page(html.parser.HTMLParser):
    """The anchors of a page, and what it links to or loads: pairs of tag and address."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.addresses = set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        address = attributes.get("href" if tag == "a" else LOADED.get(tag, ""))
        if address:
            self.addresses.append((tag, address))


def problems(site):
    """Yields a line for each link that leads nowhere, and for each thing that is loaded from the network."""
    page_at = functools.cache(Page)
    for path in sorted(site.rglob("*.html")):
        # It is shown in place of any missing page, so a server must find its links from the root.
        if path.name == "404.html":
            continue
        for tag, address in page_at(path).addresses:
            url = urllib.parse.urlsplit(address)
            if url.scheme or url.netloc:
                if tag != "a":
                    yield f"{path.relative_to(site)}: loads {address}"
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            if not target.is_file():
                yield f"{path.relative_to(site)}: {address} leads to no file"
            elif (
                url.fragment and target.suffix == ".html" and urllib.parse.unquote(url.fragment) not in page_at(target).anchors
            ):
                yield f"{path.relative_to(site)}: {address} leads to no anchor"


if __name__ == "__main__":
    found = list(problems(pathlib.Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "The links of the site are right, and it loads nothing from the network.")
    sys.exit(bool(found))

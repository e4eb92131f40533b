"""What the package's page on an index shows: the README, with links that work there,
and the address of the repository."""

import pathlib
import re
import runpy

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(
    r"```.*?```|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", re.DOTALL
)


class PageOnAnIndex(MetadataHookInterface):
    """Sets the fields `readme` and `urls`."""

    def update(self, metadata):
        repository = self.config["repository"]
        readme = (pathlib.Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": page(readme, repository),
        }
        if repository:
            metadata["urls"] = {
                "Repository": repository,
                "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
            }
            # Nothing is importable while a package is built.
            addresses = runpy.run_path(f"{self.root}/recipes/addresses.py")
            if site := addresses["site"](repository):
                metadata["urls"]["Documentation"] = site


def page(readme, repository):
    """The README, with absolute links; where the address of the repository is not
    known, without those to its files.

    Args:
        readme: String, Markdown.
        repository: String, an address without a slash at its end, as of GitHub; empty
            if it is not known.
    """

    def absolute(link):
        text, target, is_image = link["text"], link["target"], bool(link["image"])
        if target is None or ":" in target:
            return link[0]
        if not repository:
            return "" if is_image else text
        view = "raw" if is_image else "blob"
        return f"{link['image']}[{text}]({repository}/{view}/HEAD/{target})"

    return _LINK.sub(absolute, readme)

"""Finds lines of Markdown that are too wide: `check_width.py PAGE ...`. Tables, images, comments and commands cannot be cut."""

import pathlib
import re
import sys

WIDTH = 128


def wide_lines(path):
    """Yields a line of text for each line of the page that is too wide."""
    text = re.sub(
        r"(?<=^```)(?:ba)?sh\n.*?(?=^```)", lambda match: "\n" * match[0].count("\n"), path.read_text(), flags=re.M | re.S
    )
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > WIDTH and not line.startswith(("|", "![", "<!--")):
            yield f"{path}:{number}: {len(line)} characters instead of at most {WIDTH}"


if __name__ == "__main__":
    found = [line for page in sys.argv[1:] for line in wide_lines(pathlib.Path(page))]
    print("\n".join(found))
    sys.exit(bool(found))

"""Finds lines of Markdown that are too wide: `check_width.py PAGE ...`. Tables, images,
comments and single words cannot be cut."""

import math
import pathlib
import sys

WIDTH = 88

WIDTH_OF_BLOCK = {
    **dict.fromkeys(("python", "py", "sh", "c"), 80),
    **dict.fromkeys(("text", "bibtex"), 128),
    "bash": math.inf,
}
"""Of blocks, by their mark: readers copy code, `text` and `bibtex` are what programs
write, and bash is for the commands of the README, a line each for `.ci/run`."""


def wide_lines(path):
    """Yields a line of text for each line of the page that is too wide."""
    mark = None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            mark = line[3:].partition(" ")[0] if mark is None else None
        width = WIDTH_OF_BLOCK.get(mark, WIDTH)
        is_whole = line.startswith(("|", "![", "<!--")) or len(line.split()) == 1
        if len(line) > width and not (mark is None and is_whole):
            yield f"{path}:{number}: {len(line)} characters instead of at most {width}"


if __name__ == "__main__":
    found = [line for page in sys.argv[1:] for line in wide_lines(pathlib.Path(page))]
    print("\n".join(found))
    sys.exit(bool(found))

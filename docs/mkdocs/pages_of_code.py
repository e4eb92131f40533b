"""Pages with code: those of the examples, which are Python files in the form of
keras.io's, and blocks of tutorials."""

import re

BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE
)
"""A block of Python of a tutorial, and what it has printed."""


def page_of_example(source):
    """The Markdown of an example: strings on lines of their own are text, the first one
    is the head, and the rest is code.

    Args:
        source: String, the content of the file.
    """
    _, head, *parts = re.split(r'^"""\n', source, flags=re.MULTILINE)
    facts = dict(line.split(": ", 1) for line in head.splitlines())
    blocks = [
        part if index % 2 else f"```python\n{part.strip()}\n```\n"
        for index, part in enumerate(parts)
        if part.strip()
    ]
    about = (
        f"*{facts['Description']}*\n\nBy {facts['Author']}, {facts['Date created']}\n"
    )
    return "\n".join([f"# {facts['Title']}\n", about, *blocks])

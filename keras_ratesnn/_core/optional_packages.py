"""The extras of this package, which install what only a part of it needs."""


def how_to_install(extra: str) -> str:
    """The command that installs an extra, for error messages. The package is on no index, so it takes a clone."""
    return f'python -m pip install -e ".[{extra}]" in a clone of the repository'

"""The extras of this package, which install what only a part of it needs."""

import importlib
from typing import Any


def how_to_install(extra: str) -> str:
    """The command that installs an extra, for error messages. The package is on no index, so it takes a clone."""
    return f'python -m pip install -e ".[{extra}]" in a clone of the repository'


def imported(name: str, user: str, extra: str) -> Any:
    """Imports a package of an extra, when it is needed.

    Args:
        name: String, the name of the package.
        user: String, what needs it: a function or an argument.
        extra: String, the name of the extra.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`{user}` needs the package {name}, which is not installed. It comes with the extra `{extra}`: "
            f"{how_to_install(extra)}."
        ) from error

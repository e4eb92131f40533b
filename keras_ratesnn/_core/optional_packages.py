"""The extras of this package, which install what only a part of it needs."""

import importlib
import importlib.metadata
import re
from typing import Any


def how_to_install(extra: str) -> str:
    """The command that installs the packages of an extra, for error messages.

    It names the packages as the metadata of the installed distribution has them, which
    works for a wheel and in a clone.
    """
    try:
        requirements = importlib.metadata.requires("keras-ratesnn") or []
    except importlib.metadata.PackageNotFoundError:
        # Python has found a checkout on its path.
        requirements = []
    pattern = re.compile(rf"""(.+?)\s*;\s*extra == ['"]{extra}['"]""")
    packages = [
        match[1]
        for requirement in requirements
        if (match := pattern.fullmatch(requirement))
    ]
    quoted = " ".join(
        f'"{requirement}"' for requirement in packages or [f"keras-ratesnn[{extra}]"]
    )
    return f"python -m pip install {quoted}"


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
            f"`{user}` needs the package {name}, which is not installed. It comes with "
            f"the extra `{extra}`: {how_to_install(extra)}."
        ) from error

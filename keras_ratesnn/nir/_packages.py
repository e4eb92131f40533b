"""The packages of the extra `nir`, imported when they are needed."""

import importlib
from typing import Any

from keras_ratesnn._core import optional_packages


def package(name: str, function: str) -> Any:
    """Imports a package of the extra.

    Args:
        name: String, `"nir"` or `"h5py"`.
        function: String, the name of the function that needs it.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"`{function}` needs the package {name}, which is not installed. It comes with the extra `nir`: "
            f"{optional_packages.how_to_install('nir')}."
        ) from error

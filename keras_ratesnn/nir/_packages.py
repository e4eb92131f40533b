"""The packages of the extra `nir`, imported when they are needed."""

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
    return optional_packages.imported(name, function, "nir")

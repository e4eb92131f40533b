"""Imports Keras before all else, to say what to do if its backend is not installed."""

import difflib
import importlib.util
import os

BACKENDS = ("tensorflow", "jax", "torch")
"""The names of the backends that have a package in `_core/backend/`."""


def _remedy(missing: str) -> str:
    installed = [
        name for name in BACKENDS if name != missing and importlib.util.find_spec(name)
    ]
    if not installed:
        return (
            f"Install it, python -m pip install {missing}, or another of "
            f"{', '.join(BACKENDS)}, and set the variable to that."
        )
    return (
        "Set the variable to what is installed before Python starts: export "
        f"KERAS_BACKEND={installed[0]}."
    )


try:
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in BACKENDS:
        raise
    raise ImportError(
        f"Keras runs on {missing} here, which is not installed. Received: "
        f"KERAS_BACKEND={os.environ.get('KERAS_BACKEND')!r}; without this environment "
        "variable Keras runs on what its keras.json says, or on tensorflow. "
        f"{_remedy(missing)}"
    ) from error
except ValueError as error:
    name = os.environ.get("KERAS_BACKEND", "")
    (near, *_) = difflib.get_close_matches(name.lower(), BACKENDS, 1) or BACKENDS
    raise ImportError(
        f"Keras has no such backend. Received: KERAS_BACKEND={name!r}. Use {near!r}: "
        f"export KERAS_BACKEND={near} before Python starts. The backends are "
        f"{', '.join(BACKENDS)}."
    ) from error

"""The versions of Keras that the library fits."""

import warnings

NEWEST_TESTED = (3, 15)
"""The newest Keras with which the suite has passed: major and minor version."""


def warn_if_untested(version):
    """Warns if a version of Keras, a string, is newer than any that was tested: what is
    private may differ there."""
    major, minor = (int(number) for number in version.split(".")[:2])
    if (major, minor) > NEWEST_TESTED:
        warnings.warn(
            "keras_ratesnn reads parts of Keras that may change with every version, "
            f"and Keras {version} is newer than the newest that was tested, "
            f"{_dotted(NEWEST_TESTED)}. {REMEDY}",
            stacklevel=2,
        )


def _dotted(version):
    return ".".join(map(str, version))


REMEDY = (
    "Install an older one, pip install "
    f'"keras<{_dotted((NEWEST_TESTED[0], NEWEST_TESTED[1] + 1))}", or a newer '
    "keras-ratesnn. "
    "In a checkout, python -m pytest tests/core/test_keras_internals.py says which "
    "part has changed."
)

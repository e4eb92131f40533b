"""Training methods by their names."""

from keras_ratesnn._core import registry
from keras_ratesnn._core.annotations import Config
from keras_ratesnn.gradients.bptt import BPTT
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.ottt import OTTT
from keras_ratesnn.gradients.rate import Rate
from keras_ratesnn.gradients.sltt import SLTT

BY_NAME = {"rate": Rate, "bptt": BPTT, "sltt": SLTT, "ottt": OTTT}

_OTHER_NAMES = {
    "stbp": "'bptt'",
    "surrogate": "'bptt'",
    "rate-2": "keras_ratesnn.gradients.Rate(windows=2)",
}
"""Names that the methods have elsewhere, or might have here."""


def get(identifier: str | GradientMethod | Config) -> GradientMethod:
    """Returns the training method for `identifier`.

    >>> get("rate")
    Rate(windows=1, last_step_statistics=False)

    Args:
        identifier: `"rate"`, `"bptt"`, `"sltt"`, `"ottt"`, a `GradientMethod` or a
            serialised one.

    Returns:
        A `GradientMethod`.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is none of these.
    """
    return registry.resolve(
        "gradient", identifier, GradientMethod, BY_NAME, _OTHER_NAMES
    )

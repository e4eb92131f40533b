"""Checks of the models that users pass to functions."""

from typing import Any

from keras_ratesnn._core import checks
from keras_ratesnn.spiking_model import SpikingModel


def checked_model(model: Any) -> SpikingModel:
    """The model; raises TypeError if it is not a `SpikingModel`."""
    return checks.instance(
        "model",
        model,
        SpikingModel,
        advice=(
            "Wrap a network with neurons in SpikingModel(network, timesteps=4), or convert one without neurons with spikify."
        ),
    )

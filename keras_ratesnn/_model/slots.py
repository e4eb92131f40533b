"""Networks whose time steps are the slots of longer steps, see `keras_ratesnn.unroll`: what they cannot do."""

from typing import Any

import keras

from keras_ratesnn import _graph

_REMEDY = "Use the model that was unrolled, whose outputs are the same."


def check_multi_step(network: keras.Model, argument: str, value: Any) -> None:
    """Raises ValueError if a network has slots and cannot run one time step at a time.

    Args:
        network: A Functional model, see `keras_ratesnn._graph.as_graph`.
        argument: String, the argument or method that asks for it.
        value: What it was given.
    """
    if _graph.slots_of(network) > 1:
        raise ValueError(
            f"`{argument}` must not run an unrolled network one time step at a time: a layer needs all "
            f"{_graph.slots_of(network)} slots of the layer before it. Received: {value}. {_REMEDY}"
        )


def check_trainable(network: keras.Model) -> None:
    """Raises ValueError if a network has slots: its neurons have no gradient."""
    if _graph.slots_of(network) > 1:
        raise ValueError(
            "An unrolled model cannot be trained: its neurons have no gradient. Received: network "
            f"{network.name!r} with {_graph.slots_of(network)} slots in a step. Train the model first, then unroll it."
        )

"""The argument `weights` of the networks: the name of a pretrained network, or a
file."""

import os
import pathlib

import keras

from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn.models.pretrained import _files
from keras_ratesnn.models.pretrained._transfer import copy_weights
from keras_ratesnn.spiking_model import SpikingModel

HEAD = "classifier"
TOP = (
    HEAD,
    "hidden",
    "hidden_neuron",
    "hidden1",
    "hidden1_neuron",
    "hidden2",
    "hidden2_neuron",
)
"""Names of the layers that are missing in a network with `include_top=False`."""

LAMBDA_ADVICE = (
    "Replace the Lambda layer by a custom class, registered with "
    "keras.saving.register_keras_serializable, and save again; or, if you trust the "
    "file, call keras.config.enable_unsafe_deserialization() first."
)


def with_weights(model, weights, architecture):
    """Loads the requested weights into a model and returns it.

    A weights-only file, `.weights.h5`, is not supported: it cannot distinguish a SEW
    ResNet from a PreAct ResNet, whose weights have the same names and shapes.

    Args:
        model: A new `SpikingModel`, created by a function of `keras_ratesnn.models`.
        weights: What the user passed: `None`, the name of a pretrained network, or the
            path of a file.
        architecture: String, the name of that function.

    Raises:
        TypeError: If `weights` has the wrong type.
        ValueError: If the name is unknown, or the weights are damaged or belong to
            another network.
        OSError: If the file does not exist or cannot be downloaded.
    """
    if weights is None:
        return model
    if not isinstance(weights, (str, os.PathLike)):
        raise checks.wrong_type(
            "weights",
            "None, the name of a pretrained network or the path of a file",
            weights,
        )
    origin = f"weights={os.fspath(weights)!r}"
    if os.fspath(weights).endswith(".keras"):
        file = pathlib.Path(weights)
        advice = "Build the network with the arguments of the saved network."
    else:
        card = _card(os.fspath(weights), architecture)
        file = _files.weights_file(card)
        advice = f"Build the network as described on its card, {card.network}."
    copy_weights(
        _saved_network(file, origin),
        model.network,
        HEAD,
        origin,
        advice,
        stacklevel=5,
        optional=TOP,
    )
    return model


def _card(name, architecture):
    """The card with this name, if it has this architecture."""
    card = _files.card(name) if name in _files.names() else None
    if card is not None and card.architecture == architecture:
        return card
    fitting = [
        candidate
        for candidate in _files.names()
        if _files.card(candidate).architecture == architecture
    ]
    wrong = (
        "there is no such network"
        if card is None
        else f"that is a {card.architecture}: load_pretrained({name!r}) loads it"
    )
    raise ValueError(
        f"`weights` must be None, the name of a pretrained {architecture} "
        f"({', '.join(fitting) or 'none'}), or a path that ends in .keras. Received: "
        f"weights={name!r}, and {wrong}."
    )


def _saved_network(file, origin):
    """The network inside a saved model."""
    if not file.is_file():
        raise FileNotFoundError(
            f"`weights` must be the path of a file. Received: {origin}, which does not "
            "exist."
        )
    try:
        saved = keras.saving.load_model(file, compile=False)
    # The error for a damaged archive depends on where it is damaged.
    except Exception as error:
        reason = " ".join(str(error).split())
        advice = (
            LAMBDA_ADVICE
            if "Lambda" in reason
            else "Save it again with SpikingModel.save."
        )
        raise ValueError(
            f"{origin} cannot be loaded as a Keras model ({type(error).__name__}: "
            f"{reason}). {advice}"
        ) from error
    if not isinstance(saved, SpikingModel):
        raise ValueError(
            f"`weights` must be those of a SpikingModel. Received: {origin}, a "
            f"{type(saved).__name__}."
        )
    return inner_network(saved.network)


def inner_network(network):
    """The network of a function of `keras_ratesnn.models` inside another one, which may
    contain preprocessing; or itself."""
    nested = [
        layer
        for layer in network.layers
        if keras_internals.is_graph(layer) and layer.name == "network"
    ]
    return nested[0] if nested else network

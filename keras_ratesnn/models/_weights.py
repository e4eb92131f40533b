"""The argument `weights` of the networks: a pretrained network by its name, or a file."""

import os
import pathlib

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn.models.pretrained import _files
from keras_ratesnn.models.pretrained._transfer import copy_weights
from keras_ratesnn.spiking_model import SpikingModel

HEAD = "classifier"
TOP = (HEAD, "hidden", "hidden_neuron")
"""Names of the layers that a network with `include_top=False` lacks."""

LAMBDA_ADVICE = (
    "Replace the Lambda layer by a class of your own, registered by keras.saving.register_keras_serializable, and save anew; "
    "or, if you trust the file, call keras.config.enable_unsafe_deserialization() before."
)


def with_weights(model, weights, architecture):
    """The model with the weights that the user asked for.

    A file of weights alone, `.weights.h5`, is not read: it does not tell a SEW ResNet from a PreAct ResNet, whose weights have
    the same names and shapes.

    Args:
        model: The `SpikingModel`, new, of a function of `keras_ratesnn.models`.
        weights: What the user passed: `None`, the name of a pretrained network, or the path of a file.
        architecture: String, the name of that function.

    Raises:
        TypeError: If `weights` is of another type.
        ValueError: If the name is unknown, or the weights are another network's or damaged.
        OSError: If the file is not there, or cannot be downloaded.
    """
    if weights is None:
        return model
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            "`weights` must be None, the name of a pretrained network or the path of a file. Received: "
            f"weights={weights!r} of type {type(weights).__name__}."
        )
    origin = f"weights={os.fspath(weights)!r}"
    if os.fspath(weights).endswith(".keras"):
        file, advice = pathlib.Path(weights), "Build the network with the arguments of the one that was saved."
    else:
        card = _card(os.fspath(weights), architecture)
        file, advice = _files.weights_file(card), f"Build the network as its card has it, {card.network}."
    copy_weights(_saved_network(file, origin), model.network, HEAD, origin, advice, optional=TOP)
    return model


def _card(name, architecture):
    """The card of that name, if it is of that architecture."""
    card = _files.card(name) if name in _files.names() else None
    if card is not None and card.architecture == architecture:
        return card
    fitting = [other for other in _files.names() if _files.card(other).architecture == architecture]
    wrong = (
        "no network is called that" if card is None else f"that is a {card.architecture}: load_pretrained({name!r}) loads it"
    )
    raise ValueError(
        f"`weights` must be None, the name of a pretrained {architecture} ({', '.join(fitting) or 'none'}), or a path that "
        f"ends in .keras. Received: weights={name!r}, and {wrong}."
    )


def _saved_network(file, origin):
    """The network of a function of `keras_ratesnn.models` in a saved model, which may have preprocessing before it."""
    if not file.is_file():
        raise FileNotFoundError(f"`weights` must be the path of a file. Received: {origin}, where there is none.")
    try:
        saved = keras.saving.load_model(file, compile=False)
    # What a damaged archive raises depends on where it is damaged.
    except Exception as error:
        reason = " ".join(str(error).split())
        advice = LAMBDA_ADVICE if "Lambda" in reason else "Save it anew by SpikingModel.save."
        raise ValueError(f"{origin} cannot be loaded as a Keras model ({type(error).__name__}: {reason}). {advice}") from error
    if not isinstance(saved, SpikingModel):
        raise ValueError(f"`weights` must be those of a SpikingModel. Received: {origin}, a {type(saved).__name__}.")
    nested = [layer for layer in saved.network.layers if keras_internals.is_graph(layer) and layer.name == "network"]
    return nested[0] if nested else saved.network

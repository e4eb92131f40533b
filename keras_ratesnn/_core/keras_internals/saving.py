"""How Keras saves, exports and reads models."""

from keras_ratesnn._core import tree
from keras_ratesnn._core.contexts import replaced
from keras_ratesnn._core.keras_internals.imported import SafeModeScope

LAYERS_OF_A_GRAPH = "_operations"
"""The attribute with the layers of a model's graph, which Keras also saves under this
name."""


def portable(config):
    """Makes a saved compile config portable between backends: on PyTorch it refers to
    Keras' PyTorch optimizers.

    See docs/upstream.md, a saved optimizer.
    """

    def portable_part(part):
        is_torch = str(part.get("module")).startswith(
            "keras.src.backend.torch.optimizers"
        )
        return {**part, "module": "keras.optimizers"} if is_torch else part

    return tree.map_dicts(portable_part, config)


def without_code():
    """A context in which Keras deserializes no code, also where the user has allowed it
    for all files."""
    return SafeModeScope(True)


def naming_inputs(signature):
    """A context in which inputs of OpenVINO's files have the names of a signature: on
    PyTorch Keras reads those of tensors."""
    from keras.src.export import openvino

    named = openvino.set_names
    return replaced(openvino, "set_names", lambda model, _: named(model, signature))

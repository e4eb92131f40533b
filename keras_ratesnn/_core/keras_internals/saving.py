"""What Keras saves of models, and how it reads that."""

from keras_ratesnn._core.keras_internals.imported import SafeModeScope

LAYERS_OF_A_GRAPH = "_operations"
"""The attribute with the layers of a model's graph, which Keras also saves under this name."""


def portable(config):
    """Makes a saved compile config portable between backends: on PyTorch it refers to Keras' PyTorch optimizers.

    See docs/upstream.md, a saved optimizer.
    """
    if isinstance(config, dict):
        config = {key: portable(value) for key, value in config.items()}
        if str(config.get("module")).startswith("keras.src.backend.torch.optimizers"):
            config["module"] = "keras.optimizers"
    elif isinstance(config, (list, tuple)):
        config = type(config)(portable(value) for value in config)
    return config


def without_code():
    """A context in which Keras deserializes no code, also where the user has allowed it for all files."""
    return SafeModeScope(True)

"""Ordinary Keras models whose calls are recorded."""

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend import engine


def record_calls(model: keras.Model) -> None:
    """Turns on for an ordinary Keras model on PyTorch what a `SpikingModel` does there:
    its calls are recorded and replayed.

    After 32 calls of a kind, `fit`, `evaluate`, `predict` and `train_on_batch` replay
    the operations of the forward pass and of its derivative, without the Python code of
    layers. The results are the same. JAX and TensorFlow compile a step anyway: there
    nothing changes.

    A model that is loaded from a file, copied or given other layers is not recorded
    until it is passed again.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    ... )
    >>> keras_ratesnn.record_calls(model)
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.random.rand(64, 4), np.random.rand(64, 2), verbose=0)

    Args:
        model: A Functional or Sequential Keras model.

    Raises:
        TypeError: If `model` is neither Functional nor Sequential.
        ValueError: If it is a Sequential without an input shape.
    """
    if not keras_internals.is_graph(model):
        raise TypeError(
            "`model` must be a Functional or Sequential Keras model. Received: "
            f"model={model!r} of type {type(model).__name__}. A SpikingModel records "
            "its calls anyway; of a model with a `call` of its own, pass the "
            "Functional models in it."
        )
    if keras_internals.functional_of(model) is None:
        raise ValueError(
            f"`model` must know its input shape. Received: model={model!r}, a "
            "Sequential that is not built. Start it with keras.Input(shape)."
        )
    engine.record_calls(model)

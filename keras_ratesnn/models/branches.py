"""Branches on the firing rates of inner layers, for self-distillation."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.layers import TimeMean
from keras_ratesnn.models._blocks import batch_normalization, channel_axis, sides
from keras_ratesnn.spiking_model import SpikingModel, checked_model

MOST_BLOCKS = 3
"""How often a branch halves its images at most."""

SMALLEST_SIDE = 4
"""A branch does not halve images whose shorter side is no longer than this. Sides of
open length count as longer."""


def add_branches(
    model: SpikingModel, layer_names: Sequence[str], *, name: str | None = None
) -> SpikingModel:
    """Adds a classifier to the firing rates of each of some inner layers, for
    self-distillation.

    A branch is a light ordinary network that runs once, on rates, whatever T:
    depthwise-separable convolutions that halve the image, with a shortcut, batch
    normalisation and ReLU, then pooling and a dense layer. Compile the new model with
    `keras_ratesnn.losses.SelfDistillation` and `keras_ratesnn.metrics.HeadAccuracy`. It
    shares its layers with `model`, which is therefore the trained network without
    branches.

    Example:

    >>> inputs = keras.Input((8, 8, 1))
    >>> x = keras_ratesnn.layers.LIF(name="stage1")(
    ...     keras.layers.Conv2D(4, 3, padding="same")(inputs)
    ... )
    >>> x = keras_ratesnn.layers.LIF(name="stage2")(
    ...     keras.layers.Conv2D(8, 3, strides=2, padding="same")(x)
    ... )
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=2)
    >>> branched = add_branches(model, ["stage1"])
    >>> branched.compile(
    ...     "sgd",
    ...     keras_ratesnn.losses.SelfDistillation(),
    ...     metrics=[keras_ratesnn.metrics.HeadAccuracy()],
    ... )
    >>> history = branched.fit(np.ones((4, 8, 8, 1)), np.zeros(4), verbose=0)
    >>> branched.output_shape, model.predict(np.ones((1, 8, 8, 1)), verbose=0).shape
    ((None, 2, 3), (1, 3))

    Args:
        model: A `SpikingModel` with one output, logits `(batch, classes)`.
        layer_names: List of strings, the names of inner layers, most often of neurons
            at the end of a stage. Their outputs are images in Keras' image data format,
            sequences `(batch, steps, features)`, or vectors. The network calls each of
            them once. A nested model is one layer; those inside of it cannot be named.
        name: String, the name of the new model. Defaults to `None`, that of `model` and
            `"_branched"`.

    Returns:
        A `SpikingModel` with the settings of `model`. Its outputs are `(batch, heads,
        classes)`: the logits of the branches, and then those of the network itself.

    Raises:
        TypeError: If `model` is not a `SpikingModel`.
        ValueError: If it has another output, `layer_names` is not a list of different
            names, or the network has no such layer, calls it several times or gets
            several outputs from it.

    Source: Zhao, Yu et al., NeurIPS 2025, arXiv 2510.06254.
    """
    checked_model(model)
    network = _graph.as_graph(model.network)
    names = list(layer_names) if isinstance(layer_names, (list, tuple)) else []
    if len(network.outputs) != 1 or len(network.outputs[0].shape) != 2:
        shapes = [tuple(output.shape) for output in network.outputs]
        raise ValueError(
            "`model` must have one output, logits (batch, classes). Received: outputs "
            f"of shapes {shapes}."
        )
    known = {layer.name for layer in network.layers}
    if (
        not names
        or len(set(map(repr, names))) < len(names)
        or not all(checks.is_one_of(name, known) for name in names)
    ):
        raise ValueError(
            "`layer_names` must be a list of names of layers of the network, each "
            f"once. Received: layer_names={layer_names!r}. The layers are "
            f"{[layer.name for layer in network.layers]}."
        )
    (logits,) = network.outputs
    heads = [
        _branch(_output(network, name), logits.shape[-1], f"branch_{name}")
        for name in names
    ]
    outputs = ops.stack([*heads, TimeMean(name="branch_last")(logits)], axis=1)
    return SpikingModel(
        keras.Model(
            keras_internals.inputs_structure(network),
            outputs,
            name=f"{network.name}_branched",
        ),
        model.timesteps,
        model.gradient,
        model.step_mode,
        mask_value=model.mask_value,
        name=f"{model.name}_branched" if name is None else name,
        dtype=model.dtype_policy,
    )


def _output(network: keras.Model, name: str) -> Tensor:
    """The output of a layer where the network calls it."""
    output = _graph.output_of(network, name, "layer_names")
    if not isinstance(output, keras.KerasTensor):
        raise ValueError(
            f"`layer_names` must name layers with one output. Received: {name!r}, "
            f"whose output is {output}."
        )
    return output


def _branch(x: Tensor, classes: int, name: str) -> Tensor:
    """The logits of a branch on the firing rates of a signal."""
    x = TimeMean(name=f"{name}_rate")(x)
    if len(x.shape) == 4:
        for number in range(1, MOST_BLOCKS + 1):
            if all(side is None or side > SMALLEST_SIDE for side in sides(x)):
                x = _block(x, f"{name}_block{number}")
        x = layers.GlobalAveragePooling2D(name=f"{name}_pooling")(x)
    elif len(x.shape) == 3:
        x = layers.GlobalAveragePooling1D(
            data_format="channels_last", name=f"{name}_pooling"
        )(x)
    return layers.Dense(classes, name=f"{name}_logits")(x)


def _block(x: Tensor, name: str) -> Tensor:
    """Two depthwise-separable convolutions, of which the first halves the image, and a
    shortcut."""
    filters = x.shape[channel_axis()]
    y = layers.SeparableConv2D(
        filters,
        3,
        strides=2,
        padding="same",
        use_bias=False,
        name=f"{name}_convolution1",
    )(x)
    y = layers.ReLU(name=f"{name}_relu1")(
        batch_normalization(y, f"{name}_normalization1")
    )
    y = layers.SeparableConv2D(
        filters, 3, padding="same", use_bias=False, name=f"{name}_convolution2"
    )(y)
    y = batch_normalization(y, f"{name}_normalization2")
    x = layers.Conv2D(
        filters, 1, strides=2, padding="same", use_bias=False, name=f"{name}_shortcut"
    )(x)
    x = batch_normalization(x, f"{name}_shortcut_normalization")
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))

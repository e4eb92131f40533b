"""The tables of Keras' own layers, and of the nodes that functions of `keras.ops` and
`keras.activations` make in a graph."""

import dataclasses
import functools
import re
from typing import Any

import keras

from keras_ratesnn._core import keras_internals, normalization
from keras_ratesnn.layer_kinds import synapses
from keras_ratesnn.layer_kinds.kind import BatchStatistics, LayerKind

_SUMS = {"Add", "Concatenate", "Negative", "Stack", "Subtract"}
_MOVING = {
    "Add",
    "BroadcastTo",
    "Cast",
    "Divide",
    "ExpandDims",
    "GetItem",
    "Moveaxis",
    "Multiply",
    "Negative",
    "Repeat",
    "Reshape",
    "Squeeze",
    "Subtract",
    "Tile",
    "Transpose",
    "TrueDivide",
}
_LINEAR_IN_EACH = {
    "AveragePool",
    "Dot",
    "Einsum",
    "Flip",
    "Matmul",
    "Mean",
    "Multiply",
    "Pad",
    "Roll",
    "Split",
    "Sum",
    "Swapaxes",
    "Tensordot",
}
_LARGEST = {"Max", "MaxPool"}
_ACTIVATIONS = {
    "Celu",
    "Elu",
    "Gelu",
    "HardShrink",
    "HardSigmoid",
    "HardSilu",
    "HardTanh",
    "LeakyRelu",
    "LogSigmoid",
    "LogSoftmax",
    "ReLU",
    "Relu",
    "Relu6",
    "Selu",
    "Sigmoid",
    "Silu",
    "SoftShrink",
    "Softmax",
    "Softplus",
    "Softsign",
    "SparsePlus",
    "SparseSigmoid",
    "Sparsemax",
    "Squareplus",
    "Tanh",
    "TanhShrink",
    "Threshold",
}


@functools.cache
def table() -> dict[type, LayerKind]:
    """Dict of the classes of Keras' own layers to their `LayerKind`; made once Keras is
    needed."""
    layers = keras.layers
    affine = functools.partial(LayerKind, affine=True, function_of_tensors=True)
    free = affine(parameter_free=True)
    synapses_of_convolution: Any = {
        "multiply_adds": synapses.convolution_multiply_adds,
        "fan_out": synapses.convolution_fan_out,
    }
    last_axis: Any = {"output_factors": lambda layer: ("kernel", (-1,))}
    convolution = functools.partial(affine, **synapses_of_convolution, **last_axis)
    # The outputs of an input channel are neighbours.
    neighbours: Any = {
        "output_factors": lambda layer: ("kernel", tuple(layer.kernel.shape[-2:]))
    }
    depthwise = functools.partial(affine, **synapses_of_convolution, **neighbours)
    transposed = affine(
        multiply_adds=synapses.transposed_multiply_adds,
        fan_out=synapses.transposed_fan_out,
        # The last axis of the kernel is that of the inputs.
        output_factors=lambda layer: ("kernel", (-1, 1)),
    )
    pointwise: Any = {"output_factors": lambda layer: ("pointwise_kernel", (-1,))}
    separable = functools.partial(
        affine, multiply_adds=synapses.separable_multiply_adds, **pointwise
    )
    largest = LayerKind(function_of_tensors=True, any_layout=True, keeps_order=True)
    by_batch = BatchStatistics(
        normalization.normalize,
        normalization.normalize_rate,
        scale_and_shift=normalization.scale_and_shift,
    )
    kinds = {
        layers.BatchNormalization: LayerKind(affine=True, normalization=by_batch),
        layers.Dense: affine(multiply_adds=synapses.dense_multiply_adds, **last_axis),
        layers.EinsumDense: affine(multiply_adds=synapses.einsum_multiply_adds),
        layers.Conv1D: convolution(),
        **dict.fromkeys((layers.Conv2D, layers.Conv3D), convolution(any_layout=True)),
        layers.DepthwiseConv1D: depthwise(),
        layers.DepthwiseConv2D: depthwise(any_layout=True),
        **dict.fromkeys(
            (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
            transposed,
        ),
        layers.SeparableConv1D: separable(),
        layers.SeparableConv2D: separable(any_layout=True),
        **dict.fromkeys((layers.MaxPooling2D, layers.MaxPooling3D), largest),
        layers.Multiply: LayerKind(multilinear=True),
        **dict.fromkeys(
            (layers.AveragePooling2D, layers.AveragePooling3D),
            dataclasses.replace(free, any_layout=True),
        ),
    }
    for name in ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"):
        kinds[getattr(layers, name)] = LayerKind(random_mask=True, moves=True)
    kinds[layers.GaussianDropout] = LayerKind(random_mask=True)
    for name in (
        *(
            "AveragePooling1D",
            "GlobalAveragePooling1D",
            "GlobalAveragePooling2D",
            "GlobalAveragePooling3D",
        ),
        *(
            "ZeroPadding1D",
            "ZeroPadding2D",
            "ZeroPadding3D",
            "Cropping1D",
            "Cropping2D",
            "Cropping3D",
        ),
        *(
            "UpSampling1D",
            "UpSampling2D",
            "UpSampling3D",
            "Add",
            "Subtract",
            "Average",
            "Concatenate",
        ),
    ):
        kinds[getattr(layers, name)] = free
    for name in (
        "ActivityRegularization",
        "Flatten",
        "Identity",
        "Permute",
        "RepeatVector",
        "Rescaling",
        "Reshape",
    ):
        kinds[getattr(layers, name)] = dataclasses.replace(free, moves=True)
    for name in (
        "MaxPooling1D",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "GlobalMaxPooling3D",
    ):
        kinds[getattr(layers, name)] = LayerKind(keeps_order=True)
    activations = {
        "ReLU": "relu",
        "LeakyReLU": "leaky_relu",
        "PReLU": "prelu",
        "ELU": "elu",
        "Softmax": "softmax",
    }
    for name, function in (*activations.items(), ("Activation", "activation")):
        kinds[getattr(layers, name)] = LayerKind(activation=function, moves=True)
    return kinds


def fixed_scale(operation: keras.Operation) -> Any:
    """The number or numbers by which an operation without weights multiplies its input;
    `None` for any other operation."""
    return operation.scale if isinstance(operation, keras.layers.Rescaling) else None


def kind_of_node(operation_class: type) -> LayerKind | None:
    """The kind of a graph node of a function of `keras.ops` or `keras.activations`;
    `None` for any other class."""
    name = keras_internals.name_of_node(operation_class)
    if name in _ACTIVATIONS:
        return LayerKind(activation=_snake_case(name), moves=True)
    if name in _LARGEST:
        return LayerKind(keeps_order=True)
    if name not in _MOVING | _SUMS | _LINEAR_IN_EACH:
        return None
    # `x + y` is equivalent to layers.Add(), and ops.concatenate to
    # layers.Concatenate().
    is_sum = name in _SUMS
    return LayerKind(
        affine=is_sum,
        parameter_free=is_sum,
        moves=name in _MOVING,
        multilinear=name in _LINEAR_IN_EACH,
        sums=name == "Sum",
        products=(-2, -1) if name == "Matmul" else None,
    )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name.replace("ReLU", "Relu")).lower()

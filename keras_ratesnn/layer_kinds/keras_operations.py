"""The tables of nodes that functions of `keras.ops` and `keras.activations` make in a graph."""

import re

from keras_ratesnn._core import keras_internals
from keras_ratesnn.layer_kinds.kind import LayerKind

_SUMS = {"Add", "Concatenate", "Negative", "Stack", "Subtract"}
_MOVING = {
    *("Add", "BroadcastTo", "Cast", "Divide", "ExpandDims", "GetItem", "Moveaxis", "Multiply", "Negative", "Repeat", "Reshape"),
    *("Squeeze", "Subtract", "Tile", "Transpose", "TrueDivide"),
}
_LINEAR_IN_EACH = {
    *("AveragePool", "Dot", "Einsum", "Flip", "Matmul", "Mean", "Multiply", "Pad", "Roll", "Split", "Sum", "Swapaxes"),
    "Tensordot",
}
_LARGEST = {"Max", "MaxPool"}
_ACTIVATIONS = {
    *("Celu", "Elu", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "LogSigmoid", "LogSoftmax"),
    *("ReLU", "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink", "Softmax", "Softplus", "Softsign", "SparsePlus"),
    *("SparseSigmoid", "Sparsemax", "Squareplus", "Tanh", "TanhShrink", "Threshold"),
}


def kind_of_node(operation_class: type) -> LayerKind | None:
    """The kind of a graph node of a function of `keras.ops` or `keras.activations`; `None` for any other class."""
    name = keras_internals.name_of_node(operation_class)
    if name in _ACTIVATIONS:
        return LayerKind(activation=_snake_case(name), moves=True)
    if name in _LARGEST:
        return LayerKind(keeps_order=True)
    if name not in _MOVING | _SUMS | _LINEAR_IN_EACH:
        return None
    # `x + y` is equivalent to layers.Add(), and ops.concatenate to layers.Concatenate().
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

"""The texts of single operations in C++."""

import functools
import math
from typing import Any

import torch

from keras_ratesnn._core.backend.torch.normalization import HALF

_aten = torch.ops.aten

_TYPES = {torch.float32: "float", torch.float64: "double", torch.bool: "int32_t"}
"""The types in C++. Booleans are as wide as the numbers beside them: loops with others
are not vectorised."""


def stored(dtype):
    """The dtype of the tensors that a program reads and writes."""
    return torch.float32 if dtype in HALF else dtype


def type_text(dtype):
    """The type of a dtype in C++."""
    if stored(dtype) not in _TYPES:
        raise ValueError(f"there are tensors of {dtype}")
    return _TYPES[stored(dtype)]


def literal(number, kind):
    """The text of a number, of a type in C++."""
    if math.isfinite(number):
        return f"static_cast<{kind}>({float(number).hex()})"
    if math.isnan(number):
        return "NAN"
    return "INFINITY" if number > 0 else "-INFINITY"


def _sum(x, y, alpha=None):
    return f"{x} + {y}" if alpha is None else f"multiply_add({y}, {alpha}, {x})"


def _difference(x, y, alpha=None):
    return f"{x} - {y}" if alpha is None else f"multiply_add({y}, -{alpha}, {x})"


def _clamped(x, low=None, high=None):
    # NaN stays NaN.
    x = x if low is None else f"({x} < {low} ? {low} : {x})"
    return x if high is None else f"({x} > {high} ? {high} : {x})"


def _sum_with_product(x, y, z, value=None):
    product = f"{y} * {z}" if value is None else f"{value} * {y} * {z}"
    return f"{x} + {product}"


_ARITHMETIC: dict[str, Any] = {
    "add": _sum,
    "sub": _difference,
    "rsub": lambda x, y, alpha=None: _difference(y, x, alpha),
    "mul": "{} * {}".format,
    "div": "{} / {}".format,
    "neg": "-{}".format,
    "abs": "std::abs({})".format,
    "reciprocal": "1 / {}".format,
    "round": "std::nearbyint({})".format,
    "exp": "exponential({})".format,
    "sigmoid": "1 / (1 + exponential(-{}))".format,
    "sigmoid_backward": "{0} * (1 - {1}) * {1}".format,
    "tanh": "std::tanh({})".format,
    "tanh_backward": "{0} * (1 - {1} * {1})".format,
    "sqrt": "std::sqrt({})".format,
    "relu": lambda x: _clamped(x, 0),
    "clamp": _clamped,
    "addcmul": _sum_with_product,
    "_to_copy": "{}".format,
}
"""The texts of operations on numbers of the type of their result, by their names."""

_COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "eq": "==", "ne": "!="}
_LOGIC = {
    "logical_and": "&",
    "bitwise_and": "&",
    "logical_or": "|",
    "bitwise_or": "|",
}


def operation_text(node, operand):
    """The text of an operation.

    Args:
        node: A node of a graph.
        operand: Function `(argument, kind)` that returns the text of an argument,
            converted to a type in C++.

    Raises:
        ValueError: If there is no text for it.
    """
    target, kind = node.target, type_text(node.meta["val"].dtype)
    name = str(target).split(".")[1]
    if name in _COMPARISONS:
        compared = _compared_type(node)
        left, right = (operand(argument, compared) for argument in node.args)
        return f"{left} {_COMPARISONS[name]} {right}"
    if name in _LOGIC:
        left, right = (operand(argument, "int32_t") for argument in node.args)
        return f"{left} {_LOGIC[name]} {right}"
    if name in ("logical_not", "bitwise_not"):
        return f"1 - {operand(node.args[0], kind)}"
    if target is _aten.where.self:
        condition, *choices = node.args
        value, otherwise = (operand(argument, kind) for argument in choices)
        return f"choose({operand(condition, 'int32_t')}, {value}, {otherwise})"
    if target is _aten.pow.Tensor_Scalar and node.args[1] in (1, 2, 3):
        return " * ".join([operand(node.args[0], kind)] * int(node.args[1]))
    rounds_otherwise = node.kwargs.get("decimals") or node.kwargs.get("rounding_mode")
    if name not in _ARITHMETIC or kind == "int32_t" or rounds_otherwise:
        raise ValueError(f"it has the operation {target}")
    arguments = [
        None if argument is None else operand(argument, kind) for argument in node.args
    ]
    factors = {
        key: operand(node.kwargs[key], kind)
        for key in ("alpha", "value")
        if key in node.kwargs
    }
    return _ARITHMETIC[name](*arguments, **factors)


def _compared_type(node):
    dtypes = [argument.meta["val"].dtype for argument in node.all_input_nodes]
    dtype = functools.reduce(torch.promote_types, dtypes)
    if dtype in HALF:
        raise ValueError(
            f"{node.target} compares in {dtype}, to which numbers are rounded"
        )
    return type_text(dtype)

"""Lists, tuples and dicts of tensors, nested in any way.

`keras.tree` does the same, on PyTorch by slow Python code, which takes longer than many an operation on a GPU.
"""

from keras import ops

from keras_ratesnn._core import time_axis


def flatten(structure):
    """The leaves of a structure, in order: whatever is not a list, tuple or dict."""
    if isinstance(structure, dict):
        structure = structure.values()
    elif not isinstance(structure, (list, tuple)):
        return [structure]
    return [leaf for part in structure for leaf in flatten(part)]


def map_leaves(function, structure, *others):
    """`function(leaf, *leaves of others)` in the place of every leaf of `structure`; the others are of the same structure."""
    if isinstance(structure, dict):
        return {name: map_leaves(function, part, *(other[name] for other in others)) for name, part in structure.items()}
    if not isinstance(structure, (list, tuple)):
        return function(structure, *others)
    parts = [map_leaves(function, *together) for together in zip(structure, *others, strict=True)]
    if hasattr(structure, "_fields"):
        return type(structure)(*parts)
    return parts if isinstance(structure, list) else tuple(parts)


def is_float(leaf):
    """Whether a leaf is a floating-point number or tensor, which has a derivative."""
    return time_axis.is_float(leaf.dtype) if ops.is_tensor(leaf) else isinstance(leaf, float)

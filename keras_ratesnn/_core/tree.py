"""Lists, tuples and dicts of tensors, nested in any way.

`keras.tree` does the same, but on PyTorch it takes longer than many operations on a
GPU.
"""

from keras import ops

from keras_ratesnn._core import time_axis


def flatten(structure):
    """The leaves of a structure, in order: everything that is not a list, tuple or
    dict."""
    if isinstance(structure, dict):
        structure = structure.values()
    elif not isinstance(structure, (list, tuple)):
        return [structure]
    return [leaf for part in structure for leaf in flatten(part)]


def map_leaves(function, structure, *aligned):
    """Replaces every leaf of `structure` by `function(leaf, *leaves of aligned)`;
    `aligned` have the same structure."""
    if isinstance(structure, dict):
        return {
            name: map_leaves(function, part, *(parts[name] for parts in aligned))
            for name, part in structure.items()
        }
    if not isinstance(structure, (list, tuple)):
        return function(structure, *aligned)
    parts = [
        map_leaves(function, *part_and_aligned)
        for part_and_aligned in zip(structure, *aligned, strict=True)
    ]
    if hasattr(structure, "_fields"):
        return type(structure)(*parts)
    return parts if isinstance(structure, list) else tuple(parts)


def filled(structure, leaves, is_hole=lambda leaf: True):
    """Puts `leaves`, in order, in place of those of the structure that are holes. An
    iterator keeps what is not needed."""
    remaining = iter(leaves)
    return map_leaves(
        lambda leaf: next(remaining) if is_hole(leaf) else leaf, structure
    )


def map_dicts(function, structure):
    """Replaces every dict in lists, tuples and dicts, innermost first, by `function` of
    it."""
    if isinstance(structure, dict):
        return function(
            {name: map_dicts(function, part) for name, part in structure.items()}
        )
    if isinstance(structure, (list, tuple)):
        return type(structure)(map_dicts(function, part) for part in structure)
    return structure


def is_float(leaf):
    """Whether a leaf is a floating-point number or tensor, and so has a derivative."""
    return (
        time_axis.is_float(leaf.dtype)
        if ops.is_tensor(leaf)
        else isinstance(leaf, float)
    )


def is_absent(structure):
    """Whether a structure is nothing: `None`, or `()`, by which compiled loops carry
    nothing."""
    return structure is None or (isinstance(structure, tuple) and not structure)

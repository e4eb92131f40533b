"""Structures of tensors."""

import itertools

import keras


def trees_that_free_tensors():
    """Replacements that let `keras.tree` on PyTorch keep no tensors that it has looked
    at, for `Replacements`. It takes less time, too.

    Keras hands PyTorch's `tree_flatten` a function that refers to the structure, and
    that keeps it in an inner function that refers to itself: the tensors stay in memory
    until Python's garbage collector comes by, hundreds of MiB in eager mode
    (docs/upstream.md, trees keep tensors).
    """
    from keras.src.tree import torchtree_impl

    if hasattr(torchtree_impl, "_traverse"):
        # Keras 3.16 does not hand it such a function.
        return []
    original = torchtree_impl._dict_to_ordered_dict

    def with_sorted_dicts(structure):
        if not torchtree_impl.is_nested(structure):
            return structure
        if type(structure) in (list, tuple):
            return type(structure)([with_sorted_dicts(part) for part in structure])
        return original(structure)

    return [(torchtree_impl, "_dict_to_ordered_dict", with_sorted_dicts)]


def first_tensor(structure):
    """The first tensor in a structure with `None`."""
    return next(leaf for leaf in keras.tree.flatten(structure) if leaf is not None)


def first_batch(data):
    """`(batch, data)`: the first batch of a compiled Keras function, or what TensorFlow
    says of all.

    Args:
        data: An iterator over batches, of tf.data or Python, or a list of batches. The
            returned one replaces it.
    """
    batch = getattr(data, "element_spec", None)
    if isinstance(data, list):
        batch = data[0]
    elif batch is None:
        batch = next(data)
        data = itertools.chain([batch], data)
    return batch, data

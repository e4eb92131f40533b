"""What a cell computes, as a function of tensors alone, for compilers of element-wise operations."""

from keras_ratesnn._core import keras_internals, tree


def of_tensors(function, cell, arguments, is_tensor):
    """`function(*arguments)` as a function of tensors: first the weights of the cell, then those among the arguments."""
    weights = cell.weights

    def called(*tensors):
        remaining = iter(tensors)
        mapping = [(weight, next(remaining)) for weight in weights]
        inside = tree.map_leaves(lambda leaf: next(remaining) if is_tensor(leaf) else leaf, arguments)
        with keras_internals.Values(mapping):
            return function(*inside)

    return called

"""The computation of a cell as a function of tensors alone, for compilers of
element-wise operations."""

from keras_ratesnn._core import keras_internals, tree


class TensorFunction:
    """`function(*arguments)` as a function of tensors: first the weights of the cell,
    then those among the arguments.

    Args:
        function: Function of structures of tensors and numbers.
        cell: A neuron cell.
        arguments: The arguments of the function.
        is_tensor: Function that tells tensors from numbers.

    Attributes:
        structure: After a call of `flat`, its outputs with `None` in the place of
            tensors.
        is_closed: Boolean, whether each call did nothing else: it read and assigned no
            other variables, assigned no weights and added no losses.
    """

    def __init__(self, function, cell, arguments, is_tensor):
        self._function = function
        self._weights = cell.weights
        self._arguments = arguments
        self._is_tensor = is_tensor
        self.structure = None
        self.is_closed = True

    def __call__(self, *tensors):
        remaining = iter(tensors)
        mapping = [(weight, next(remaining)) for weight in self._weights]
        inside = tree.filled(self._arguments, remaining, self._is_tensor)
        with keras_internals.NoticingScope(mapping) as scope:
            outputs = self._function(*inside)
        self.is_closed = self.is_closed and scope.is_closed
        return outputs

    def flat(self, *tensors):
        """The tensors among the outputs. Numbers are the same at every call."""
        outputs = self(*tensors)
        self.structure = tree.map_leaves(
            lambda leaf: None if self._is_tensor(leaf) else leaf, outputs
        )
        return [leaf for leaf in tree.flatten(outputs) if self._is_tensor(leaf)]


def description(arguments, is_tensor):
    """The structure of arguments and the numbers in it, a string, or `None` if there is
    anything else in it."""
    kinds = {type(leaf) for leaf in tree.flatten(arguments) if not is_tensor(leaf)}
    if not kinds <= {bool, int, float, type(None)}:
        return None
    return repr(
        tree.map_leaves(lambda leaf: "tensor" if is_tensor(leaf) else leaf, arguments)
    )

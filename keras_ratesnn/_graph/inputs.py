"""Structures of inputs, flattened to the order of a network's inputs or of a call's
arguments."""

import keras

from keras_ratesnn._core import keras_internals


def match_inputs(network, inputs):
    """Flattens inputs, in any structure that Keras accepts, to a list in the order of
    `network.inputs`.

    Args:
        network: A Functional model, see `as_graph`.
        inputs: Tensor, or lists and dicts of tensors. A dict is read by the keys of the
            dict of inputs that the network was made with, or by the names of its inputs
            if it was made without one; other keys are ignored.

    Raises:
        ValueError: If their number or names do not fit.
    """
    structure = keras_internals.inputs_structure(network)
    names = [keras_internals.name_of_input(tensor) for tensor in network.inputs]
    if isinstance(inputs, dict) and not isinstance(structure, dict):
        # Keras' names of inputs without a name are those of their tensors.
        numbered = {
            tensor.name: name
            for tensor, name in zip(network.inputs, names, strict=True)
        }
        flat = _parts_of(
            {numbered.get(key, key): part for key, part in inputs.items()}, names
        )
    else:
        flat = _in_order(inputs, structure)
    if len(flat) != len(names):
        many = "1 input" if len(names) == 1 else f"{len(names)} inputs"
        raise ValueError(
            f"The network has {many}, named {names}. Received: {len(flat)} tensors."
        )
    return flat


def _in_order(inputs, structure):
    """The tensors among inputs, a list in Keras' order of `structure`, the network's
    own inputs."""
    if isinstance(structure, dict):
        # In Keras' order, which sorts the keys of a dict, but not of an OrderedDict.
        names = list(
            dict.fromkeys(
                path[0] for path, _ in keras.tree.flatten_with_path(structure)
            )
        )
        if isinstance(inputs, dict):
            parts = zip(_parts_of(inputs, names), names, strict=True)
            return [
                tensor
                for part, name in parts
                for tensor in _in_order(part, structure[name])
            ]
        if isinstance(inputs, (list, tuple)) and list(structure) != names:
            raise ValueError(
                f"The network's inputs are a dict with keys {list(structure)}, which "
                f"are not sorted. Received: a {type(inputs).__name__}, whose order "
                "could be this or that of the sorted keys. Pass a dict."
            )
    elif (
        isinstance(structure, (list, tuple))
        and isinstance(inputs, (list, tuple))
        and len(inputs) == len(structure)
    ):
        return [
            tensor
            for part, wanted in zip(inputs, structure, strict=True)
            for tensor in _in_order(part, wanted)
        ]
    return keras.tree.flatten(inputs)


def _parts_of(inputs, names):
    """The parts of a dict of inputs with these names, a list."""
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ValueError(
            f"The network's inputs are named {names}. Received a dict without "
            f"{missing}: keys {sorted(inputs)}."
        )
    return [inputs[name] for name in names]


def tensors_among(args, kwargs, kind=keras.KerasTensor):
    """The tensors among the arguments of a call in Keras' order, a list.

    Args:
        args: Tuple, the positional arguments.
        kwargs: Dict, the keyword arguments.
        kind: The class of the tensors, or of what takes their place.
    """
    return [
        leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, kind)
    ]

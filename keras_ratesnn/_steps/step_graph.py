"""One time step of a network as a model whose state is explicit: states are among its
inputs and its outputs."""

import dataclasses
import functools
import re
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.names import take
from keras_ratesnn._model.streaming import one_step_of, step_of

TIME_STEP = "time_step"
"""The name of the state that counts the steps, in networks that need it."""


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or a state of the graph.

    Args:
        name: String.
        shape: Tuple, with `None` for a batch of any size.
        dtype: String.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class StepGraph(keras.Model):
    """Runs one time step of a network, in inference: from its inputs and states, by
    name, to its outputs and next states.

    Args:
        network: A Functional model.
        timesteps: Integer T, for encoders that spread an input over T steps.
        batch_size: Integer, or `None` for a batch of any size.
        named: Boolean, whether the outputs are a dict; else they are a list, in the
            order of `Interface.output_names`.

    Attributes:
        interface: `Interface`.
    """

    def __init__(
        self, network: keras.Model, timesteps: int, batch_size: int | None, named: bool
    ) -> None:
        # Keras must not cast states to half precision.
        super().__init__(dtype=network.dtype_policy, autocast=False, name=network.name)
        self.network = network
        self._timesteps = timesteps
        self._named = named
        self.interface = _interface_of(network, timesteps, batch_size)
        self.built = True

    @property
    def signature(self) -> dict[str, keras.InputSpec]:
        """The inputs and states, by name."""
        return {
            port.name: keras.InputSpec(
                shape=port.shape, dtype=port.dtype, name=port.name
            )
            for port in (*self.interface.inputs, *self.interface.states)
        }

    def call(self, inputs: dict[str, Tensor]) -> Structure:
        interface = self.interface
        tensors = [inputs[port.name] for port in interface.inputs]
        states = iter([inputs[port.name] for port in interface.states])
        t: Any = next(states) if interface.counts else 0
        carried = tree.filled(interface.carried, states)
        carried, outputs = step_of(self.network, self._timesteps, carried, tensors, t)
        results = [
            *keras.tree.flatten(outputs),
            *([t + 1] if interface.counts else []),
            *tree.flatten(carried),
        ]
        return (
            dict(zip(interface.output_names, results, strict=True))
            if self._named
            else results
        )


@dataclasses.dataclass(frozen=True)
class Interface:
    """The inputs and outputs of a graph.

    Args:
        inputs: Tuple of its inputs.
        states: Tuple of its states.
        counts: Boolean, whether steps are counted.
        carried: List of what each node carries from step to step.
        start: Dict of the states before the first step, arrays, of one sequence if the
            batch may have any size.
        output_names: Tuple of strings: the names of the outputs, followed by those of
            the next states.
    """

    inputs: tuple[Port, ...]
    states: tuple[Port, ...]
    counts: bool
    carried: list[Structure]
    start: dict[str, np.ndarray]
    output_names: tuple[str, ...]


def _interface_of(network, timesteps, batch_size):
    new_name = functools.partial(_new_name, set())
    input_names = list(map(new_name, _input_names(network)))
    rows = batch_size or 1
    running, initial, after = _first_step(network, timesteps, rows)
    # What has other sizes in a batch of another size has a batch axis.
    other = after if batch_size else _first_step(network, timesteps, rows + 1)[2]
    counts = any(
        node.handler.counts_steps or node.handler.takes_time for node in running.nodes
    )
    states, start = [], {}
    if counts:
        name = new_name(TIME_STEP)
        states.append(Port(name, (), "int32"))
        start[name] = np.zeros((), "int32")
    for node, *carried in zip(running.nodes, initial, after, other, strict=True):
        for path, first, leaf, in_other in zip(
            _paths(carried[1]), *map(tree.flatten, carried), strict=True
        ):
            name = new_name(f"{node.handler.operation.name}_{path}")
            dtype = keras.backend.standardize_dtype(leaf.dtype)
            shape = tuple(
                a if a == b else None
                for a, b in zip(leaf.shape, in_other.shape, strict=True)
            )
            states.append(Port(name, shape, dtype))
            # A cell may start with a number, which broadcasts.
            start[name] = np.broadcast_to(
                ops.convert_to_numpy(first).astype(dtype), leaf.shape
            ).copy()
    inputs = tuple(
        Port(
            name,
            (batch_size, *tensor.shape[1:]),
            keras.backend.standardize_dtype(tensor.dtype),
        )
        for name, tensor in zip(input_names, network.inputs, strict=True)
    )
    output_names = [
        *_output_names(keras_internals.outputs_structure(network)),
        *(f"next_{port.name}" for port in states),
    ]
    return Interface(
        inputs, tuple(states), counts, after, start, tuple(map(new_name, output_names))
    )


def _first_step(network, timesteps, rows):
    """`(running, initial, after)`: what each node carries before and after the first
    step of `rows` sequences of zeros."""
    for tensor in network.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                "`model` must know the shape of its inputs, and so of its states, to "
                f"be exported as one step. Received: input {tensor.name!r} of shape "
                f"{tuple(tensor.shape)}. Make the network with keras.Input(shape) "
                "without None."
            )
    zeros = [
        ops.zeros((rows, *tensor.shape[1:]), tensor.dtype) for tensor in network.inputs
    ]
    running = one_step_of(network, zeros, timesteps)
    with engine.no_gradient():
        after, _ = running.step(None, running.once(), 0)
    return running, running.carried(running.initial_states), running.carried(after)


def _new_name(given, wanted):
    """The wanted name of a tensor, or one like it, that is valid in all formats and not
    in the set of those given."""
    # TensorFlow refuses names that start with an underscore.
    return take(
        re.sub(r"\W", "_", wanted, flags=re.ASCII).lstrip("_") or "tensor", given
    )


def _input_names(network):
    """The names of a network's inputs; those that Keras made up, which differ between
    processes, become `input`."""
    return [
        "input" if re.fullmatch(r"keras_tensor(_\d+)?", tensor.name) else tensor.name
        for tensor in network.inputs
    ]


def _output_names(outputs: Structure) -> Iterable[str]:
    """The keys of a dict of outputs, in Keras' order, or `output` for each."""
    if isinstance(outputs, dict) and all(
        isinstance(output, keras.KerasTensor) for output in outputs.values()
    ):
        return [str(key) for key in sorted(outputs)]
    return ["output" for _ in keras.tree.flatten(outputs)]


def _paths(structure: Structure) -> list[str]:
    """A name for each leaf of a cell's state: its keys; a state that is one tensor is
    the membrane."""
    if not isinstance(structure, (dict, list, tuple)):
        return ["membrane"]
    parts = structure.items() if isinstance(structure, dict) else enumerate(structure)
    paths = []
    for key, part in parts:
        inside = _paths(part) if isinstance(part, (dict, list, tuple)) else [""]
        paths += [f"{key}_{path}" if path else str(key) for path in inside]
    return paths

"""All time steps of a layer of neurons, for backends that compile them as a loop."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

from keras_ratesnn._core.annotations import Structure, Tensor


@dataclasses.dataclass(frozen=True)
class TimeLoop:
    """Functions of one step, which a loop repeats, and the tensors of all steps.

    Attributes:
        cell: A neuron cell.
        key: What the functions depend on, besides the cell.
        begin: Function of the inputs of the first step that returns the state before
            it.
        steps: For each phase a function `(state, inputs, valid) -> (state, outputs)` of
            one step, as in `Backend.elementwise`; tensors, or lists.
        counts: For each phase the number of its steps.
        summarize: Function of the last state that returns what takes its place.
        inputs: List of tensors `(batch, T, ...)`, or `(batch, ...)` where they are the
            same at every step.
        same: For each input, whether it is.
        valid: Boolean tensor `(batch, T)`, false for what is padding, or `None`.
    """

    cell: Any
    key: Hashable
    begin: Callable[..., Structure]
    steps: list[Callable[..., Any]]
    counts: list[int]
    summarize: Callable[..., Structure]
    inputs: list[Tensor]
    same: list[bool]
    valid: Tensor | None

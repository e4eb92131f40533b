"""A time loop before it is traced."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class LoopOfTensors:
    """A `TimeLoop` whose functions take tensors alone, with examples of one step.

    Attributes:
        begin: Function of weights and inputs that returns the state before the first
            step.
        steps: For each phase a function of weights, state, inputs and valid rows that
            returns a structure `(state, outputs)` of tensors: one time step,
            element-wise.
        summarize: Function of weights and the last state that returns what takes its
            place, or `None`.
        weights: List of tensors that broadcast to the inputs, or vectors of numbers
            that are not those of neurons.
        state: List of tensors.
        inputs: List of tensors `(batch, ...)`.
        valid: List of one boolean tensor `(batch,)`, or empty.
        learned: For each weight, whether it wants a gradient.
        wanted: For each input, whether it wants a gradient.
        same: For each input, whether it is the same at every step.
    """

    begin: Callable[..., Any]
    steps: list[Callable[..., Any]]
    summarize: Callable[..., Any] | None
    weights: list[torch.Tensor]
    state: list[torch.Tensor]
    inputs: list[torch.Tensor]
    valid: list[torch.Tensor]
    learned: list[bool]
    wanted: list[bool]
    same: list[bool]

    @property
    def arguments(self):
        """The arguments of a step, a list."""
        return [*self.weights, *self.state, *self.inputs, *self.valid]

    @property
    def groups(self):
        """The numbers of weights, states, inputs and valid rows, a list."""
        return list(map(len, (self.weights, self.state, self.inputs, self.valid)))

    @property
    def shape(self):
        """The shape of the inputs, a tuple."""
        return self.inputs[0].shape

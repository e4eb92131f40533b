"""One call of a model, and what runs with it."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import keras

from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._graph import Call


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of a `SpikingModel`.

    Args:
        walk: Function `(signals, rule) -> signals`: runs the network's graph, from its inputs to its outputs.
        inputs: List of pairs `(tensor, has_time)` in the order of the network's inputs: `(batch, T, ...)` with
            `has_time=True`, or `(batch, ...)`.
        timesteps: Integer T.
        step_mode: `"multi"` or `"single"`; `step_mode_of(run)` makes the `StepMode` of this name.
        training: Boolean, whether layers behave as in training.
        with_gradient: Boolean, whether the outputs may be differentiated.
        return_sequences: Boolean, whether the output is that of every step instead of the time mean.
        mask: Boolean tensor `(batch, T)`, false for the steps of each sample that are padding. Defaults to `None`: all steps
            count.
        network: The Functional model that `walk` runs; it gives access to the variables.
        draws: `keras.random.SeedGenerator` of the model if the method `draws`, else `None`.
        after_means: Function like `walk`, for the part of the network that follows `layers.TimeMean`: it takes a signal for
            each output of `walk`. `None` if there is no such part.
    """

    walk: Callable
    inputs: list
    timesteps: int
    step_mode: str
    training: bool
    with_gradient: bool
    return_sequences: bool
    network: keras.Model
    draws: keras.random.SeedGenerator | None = None
    mask: Tensor | None = None
    after_means: Callable | None = None


class WalkRule(Protocol):
    """What a step mode calls of a rule, see `Rule`."""

    with_gradient: bool

    def __call__(self, call: Call) -> Structure: ...

    def output(self, tensor: Tensor) -> Tensor: ...

"""One call of a model, and what runs with it."""

import dataclasses

import keras

from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._graph import Part


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of a `SpikingModel`.

    Args:
        parts: The three parts of the network's plan: what runs at each step; the
            readouts, such as `layers.LeakyReadout`; and what follows these and
            `layers.TimeMean`, once. Each has an input for each output of the part
            before it. The last two are `None` if there are neither.
        inputs: List of pairs `(tensor, has_time)` in the order of the network's inputs:
            `(batch, T, ...)` with `has_time=True`, or `(batch, ...)`.
        timesteps: Integer T.
        step_mode: `"multi"` or `"single"`.
        network: The Functional model of the plan; it gives access to the variables.
        training: Boolean, whether layers behave as in training. Defaults to `False`.
        with_gradient: Boolean, whether the outputs may be differentiated. Defaults to
            `False`.
        return_sequences: Boolean, whether the output is that of every step instead of
            the time mean. Defaults to `False`.
        seed_generator: `keras.random.SeedGenerator` of the model if the method
            `uses_random_numbers`, else `None`.
        mask: Boolean tensor `(batch, T)`, false for the steps of each sample that are
            padding. Defaults to `None`: all steps count.
    """

    parts: tuple[Part, Part | None, Part | None]
    inputs: list
    timesteps: int
    step_mode: str
    network: keras.Model
    training: bool = False
    with_gradient: bool = False
    return_sequences: bool = False
    seed_generator: keras.random.SeedGenerator | None = None
    mask: Tensor | None = None

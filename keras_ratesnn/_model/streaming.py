"""Streaming: runs a network one time step per call, with the state that it keeps
between calls."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.network import Network
from keras_ratesnn.gradients.run import Run


def one_step_of(
    network: keras.Model, inputs: Sequence[Tensor], timesteps: int
) -> Network:
    """A network that is given the inputs of one step, `(batch, ...)`, in inference.

    Nothing is the same at every step. If a step has substeps, they see the same inputs,
    and the network runs all of them.

    Args:
        network: A Functional model.
        inputs: List of tensors, in the order of the network's inputs.
        timesteps: Integer T, for encoders that spread an input over T steps.
    """
    substeps = _graph.substeps_of(network)
    run = Run(
        parts=(_graph.whole_of(network), None, None),
        inputs=[(tensor, False) for tensor in inputs],
        timesteps=timesteps if substeps == 1 else substeps,
        step_mode="single" if substeps == 1 else "multi",
        network=network,
    )
    return Network(run, streams=True)


def step_of(
    network: keras.Model,
    timesteps: int,
    state: Structure,
    inputs: Sequence[Tensor],
    t: Any,
) -> tuple[Structure, Structure]:
    """One time step in inference: the state after it, and the outputs.

    Args:
        network: See `one_step_of`.
        timesteps: See `one_step_of`.
        state: The state that the previous step returned; `None` before the first one.
        inputs: See `one_step_of`.
        t: Integer, or integer scalar tensor: the time step.
    """
    substeps = _graph.substeps_of(network)
    with engine.no_gradient():
        running = one_step_of(network, inputs, timesteps)
        states = None if state is None else running.resumed(state)
        if substeps == 1:
            states, outputs = running.step(states, running.once(), t)
        else:
            states, outputs = running.all_steps(states, running.once())
            # They are the same in all substeps.
            outputs = tree.map_leaves(
                lambda rows: time_axis.unfold(rows, substeps)[:, 0], outputs
            )
        return running.carried(states), running.with_nan_of_membranes(states, outputs)


class Stream:
    """The state of a sequence, and the number of steps so far."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts a new sequence."""
        self.steps = 0
        self.batch: int | None = None
        self.state: Any = None

    def advance(
        self, batch: int, step: Callable[[Any, int], tuple[Any, Structure]]
    ) -> Structure:
        """The outputs of one time step.

        Args:
            batch: Integer, the number of sequences.
            step: Function `(state, t) -> (state, outputs)`; the state is `None` before
                the first step.

        Raises:
            ValueError: If the batch size differs from that of previous steps.
        """
        if self.batch not in (None, batch):
            raise ValueError(
                "The batch size must not change within a sequence. Received: inputs "
                f"for {batch} sequences, after {self.steps} steps with {self.batch}. "
                "Call reset_state() to start new sequences."
            )
        self.state, outputs = step(self.state, self.steps)
        self.batch = batch
        self.steps += 1
        return outputs

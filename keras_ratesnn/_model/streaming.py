"""Streaming: runs a network one time step per call, with the state that it keeps
between calls."""

from collections.abc import Sequence

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import backend, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.gradients.network import Network, States
from keras_ratesnn.gradients.run import Run


def one_step_of(
    network: keras.Model,
    inputs: Sequence[Tensor],
    timesteps: int,
    step_mode: str = "single",
) -> Network:
    """A network that is given the inputs of one step, `(batch, ...)`, in inference.

    Args:
        network: A Functional model.
        inputs: List of tensors, in the order of the network's inputs.
        timesteps: Integer T, for encoders that spread an input over T steps; for
            `step_mode="multi"` the slots of a step.
        step_mode: `"single"`: each call is a step, and nothing is the same at every
            step. `"multi"`: all slots of a step, which see the same inputs. Defaults to
            `"single"`.
    """
    run = Run(
        parts=(_graph.whole_of(network), None, None),
        inputs=[(tensor, False) for tensor in inputs],
        timesteps=timesteps,
        step_mode=step_mode,
        network=network,
    )
    return Network(run, streams=True)


class Stream:
    """The state of a sequence: membranes of all neurons, and the number of steps so
    far."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts a new sequence."""
        self.steps = 0
        self.batch = None
        self.states: States | None = None

    def advance(
        self, network: keras.Model, inputs: Sequence[Tensor], timesteps: int
    ) -> Structure:
        """One time step.

        Args:
            network: See `one_step_of`.
            inputs: See `one_step_of`.
            timesteps: Integer T, for encoders that spread an input over T steps.

        Returns:
            Tensors in the structure of the network's outputs.

        Raises:
            ValueError: If the batch size differs from that of previous steps.
        """
        batch = inputs[0].shape[0]
        if self.batch not in (None, batch):
            raise ValueError(
                "The batch size must not change within a sequence. Received: inputs "
                f"for {batch} sequences, after {self.steps} steps with {self.batch}. "
                "Call reset_state() to start new sequences."
            )
        slots = _graph.slots_of(network)
        with backend.no_gradient():
            if slots == 1:
                running = one_step_of(network, inputs, timesteps)
                self.states, outputs = running.step(
                    self.states, running.once(), self.steps
                )
            else:
                running = one_step_of(network, inputs, slots, "multi")
                self.states, outputs = running.all_steps(self.states, running.once())
                # They are the same in all slots.
                outputs = tree.map_leaves(
                    lambda rows: time_axis.unfold(rows, slots)[:, 0], outputs
                )
            outputs = running.alarmed(self.states, outputs)
        self.batch = batch
        self.steps += 1
        return outputs

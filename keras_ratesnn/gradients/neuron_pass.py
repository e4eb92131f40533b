"""NeuronPass: a neuron layer in a time loop."""

from typing import Any

from keras_ratesnn._core import time_axis
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.layers import NeuronCell


class NeuronPass:
    """A neuron layer in a time loop: the plain neurons.

    The handler of a neuron layer runs it: `start` before the first step, `advance` at each step, and `finish` after the last.

    Args:
        cell: A `NeuronCell`.
        dtype: String, the dtype of the spikes.
        with_gradient: Boolean, whether the spikes carry gradient.
    """

    waits = True
    """Whether the loop state stays as it is at steps that are padding; otherwise `advance` is given zeros for these."""

    def __init__(self, cell: NeuronCell, dtype: str, with_gradient: bool) -> None:
        self.cell = cell
        self.dtype = dtype
        self.with_gradient = with_gradient

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable: what `start`, `advance` and `finish` depend on, besides the cell."""
        return type(self), self.dtype

    @property
    def compiles(self) -> bool:
        """Whether a backend may compile it into one pass over memory."""
        return self.cell.fuses

    @property
    def parallel(self) -> bool:
        """Whether `all_steps` runs all steps at once, where a step mode has them."""
        return self.cell.in_parallel

    def all_steps(self, currents: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Structure, Structure]]:
        """All steps at once, instead of `start`, `advance` and `finish`.

        Args:
            currents: Tensor `(batch, T, ...)`, zeros where steps do not count.
            mask: Boolean tensor of its first axes, false there; `None` if all steps count.

        Returns:
            `(spikes, finished)`: what `advance` and `finish` would return.
        """
        membranes = self.cell.over_time(currents)
        return time_axis.cast(self.cell.fire(membranes), self.dtype), (membranes, ())

    def phase(self, t: int | Tensor) -> Structure:
        """What `advance` needs to know about step `t`: a structure of numbers, or of tensors if `t` is a tensor."""
        return ()

    def valid_phase(self, phase: Structure, valid: Tensor) -> Structure:
        """The phase where some samples have padding, of cells with `moves_in_padding`: `valid` broadcasts to the current."""
        return phase

    def at_padding(self, carried: Structure) -> Structure:
        """The loop state after a step that is padding, given that before it, of neurons that wait."""
        return self.cell.state_at_padding(carried)

    def start(self, current: Tensor) -> Structure:
        """The loop state before the first step, given the current of the first step."""
        return self.cell.initial_state(current)

    def advance(self, phase: Structure, current: Tensor, carried: Structure) -> tuple[Tensor, Structure]:
        """One step: `(spikes, carried)`."""
        _, spikes, state = self.cell.step(current, carried)
        return time_axis.cast(spikes, self.dtype), state

    def finish(self, carried: Structure) -> tuple[Structure, Structure]:
        """`(state, record)`: the cell's state after the last step, and a structure of tensors for later walks."""
        return carried, ()

    def after_steps(self, state: Structure) -> None:
        """Called once after the last step of a batch, with the state that `finish` returned."""
        self.cell.after_steps(state)

    def as_tensors(self, carried: Any) -> Any:
        """The loop state with all numbers converted to tensors."""
        return carried

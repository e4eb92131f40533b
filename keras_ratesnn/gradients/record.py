"""What a step leaves for the next step, and a walk for the next walk."""

from typing import NamedTuple, Self

from keras_ratesnn._core.annotations import Structure, Tensor

PassKey = tuple[str, str]
"""What is recorded, the quantity of a pass or a field of the record, and the key of the call."""


class Record(NamedTuple):
    """Tensors by the keys of calls; as a tuple of dicts, compiled loops of all backends can carry it.

    Attributes:
        loops: Loop states between steps, by quantity and call: those of neuron layers, see `NeuronPass`, in single-step mode.
        sums: The sums so far of what is averaged over time, by field and call: lists with one element per window.
        sequences: All steps so far of the integers and booleans that are averaged, by field and call: lists of tensors
            `(batch, T, ...)`.
        states: The states of cells after the last step, by quantity and call.
        neurons: What neuron layers recorded over time, see `NeuronPass.finish`, by quantity and call.
        outputs: The time means in each window, `(batch * W, ...)`, of outputs of operations; of integers and booleans all
            steps, `(batch * T, ...)`.
        statistics: The time means of the statistics with which calls normalised steps: lists with one element per window.
        weights: How often the rows of inputs of normalisations and neurons are not masked, in each window, `(batch * W, ...)`.
        moments: The time means of the moments that a normalisation receives after the last walk: lists like `statistics`.
        input_masks: The Keras masks of inputs of calls at all steps, `(batch * T, ...)`: dicts from the index of a signal.
        random_masks: The masks by which calls multiply their input at every step, `(batch, ...)`.
        noise: The states of the random generators of calls before the first step.
        losses: The losses that calls on steps added, summed over the steps so far.
        output_masks: The Keras masks of the outputs of the network, by their position.
    """

    loops: dict[PassKey, Structure]
    sums: dict[PassKey, list[Structure]]
    sequences: dict[PassKey, list[Tensor]]
    states: dict[PassKey, Structure]
    neurons: dict[PassKey, Structure]
    outputs: dict[str, Structure]
    statistics: dict[str, list[Structure]]
    weights: dict[str, Tensor]
    moments: dict[str, list[Structure]]
    input_masks: dict[str, dict[str, Tensor]]
    random_masks: dict[str, Tensor]
    noise: dict[str, Structure]
    losses: dict[str, Tensor]
    output_masks: dict[int, Tensor]

    @classmethod
    def empty(cls, **fields: Structure) -> Self:
        """A record before the first step, with nothing but the given fields."""
        return cls(*(fields.get(name, {}) for name in cls._fields))

    def copy(self) -> Self:
        """A record with the same tensors, to which others can be added."""
        return type(self)(*map(dict, self))  # type: ignore[arg-type]

    def drawn(self) -> dict[str, Structure]:
        """The fields of what was drawn: steps that start with a record of them have the same masks and noise."""
        return {"random_masks": self.random_masks, "noise": self.noise}

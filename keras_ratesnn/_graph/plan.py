"""The plan of a walk: the calls of a network and its nested models, in order."""

import dataclasses

import keras

from keras_ratesnn._core import tree


class Slot:
    """A placeholder for a signal."""

    def __init__(self, index):
        self.index = index


@dataclasses.dataclass(slots=True)
class PlannedCall:
    """A call of an operation, with slots instead of signals."""

    operation: keras.Operation
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list
    key: str
    takes_training: bool  # False if the graph itself says what `training` is


def last_uses(touched, outputs):
    """For each of the sets of slots that calls touch, in order, the slots that neither a later call nor the outputs need."""
    needed, last = {leaf.index for leaf in tree.flatten(outputs)}, []
    for of_call in reversed(touched):
        last.append(of_call - needed)
        needed |= of_call
    return last[::-1]


class Part:
    """Calls in order, and the slots of what goes in and out; `last_used` are the slots that nothing needs after each call."""

    def __init__(self, calls, inputs, outputs):
        self.calls, self.inputs, self.outputs = calls, inputs, outputs
        self.last_used = last_uses([{*call.inputs, *(output.index for output in call.outputs)} for call in calls], outputs)


@dataclasses.dataclass(slots=True)
class Plan:
    """The calls of a network and its nested models, in the two `parts` before and after time means, if it has any.

    `nested` are pairs of nested models and their graphs.
    """

    whole: Part
    parts: tuple[Part, Part] | None
    slots: int
    nested: list

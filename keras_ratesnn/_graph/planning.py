"""The plan of a walk: the calls of a network and its nested models, in order, and what
of them follows the end of time."""

import dataclasses
import functools
import itertools
import weakref

import keras
from keras import ops

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._graph.functional import as_graph
from keras_ratesnn._graph.inputs import match_inputs, tensors_among
from keras_ratesnn.layer_kinds import (
    ENCODER,
    NEURON,
    READOUT,
    TIME_MEAN,
    TIME_MIXING,
    kind_of,
    wants_time_step,
)


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
    """For each of the sets of slots that calls touch, in order, the slots that neither
    a later call nor the outputs need."""
    needed, last = {leaf.index for leaf in tree.flatten(outputs)}, []
    for of_call in reversed(touched):
        last.append(of_call - needed)
        needed |= of_call
    return last[::-1]


class Part:
    """Calls in order, and the slots of what goes in and out; `last_used` are the slots
    that nothing needs after each call."""

    def __init__(self, calls, inputs, outputs):
        self.calls, self.inputs, self.outputs = calls, inputs, outputs
        self.last_used = last_uses(
            [
                {*call.inputs, *(output.index for output in call.outputs)}
                for call in calls
            ],
            outputs,
        )


@dataclasses.dataclass(slots=True)
class Plan:
    """The calls of a network and its nested models, in the `parts` before, at and after
    the end of time, if it has one.

    `nested` are pairs of nested models and their graphs, and `found` what was looked
    for among the operations.
    """

    whole: Part
    parts: tuple[Part, Part, Part] | None
    slots: int
    nested: list
    found: dict = dataclasses.field(default_factory=dict)


class _WithMask(keras.Operation):
    """Gives a tensor the Keras mask with which a nested model is called."""

    def call(self, tensor, mask):
        return keras_internals.put_mask(ops.copy(tensor), mask)

    def compute_output_spec(self, tensor, mask):
        return keras.KerasTensor(tensor.shape, tensor.dtype)


_plans: weakref.WeakKeyDictionary[keras.Model, Plan] = weakref.WeakKeyDictionary()


def plan_of(network):
    """The plan of a walk, cached because Keras' own graph traversal takes longer than
    many steps."""
    plan = _plans.get(network)
    if plan is None or any(
        as_graph(model) is not graph for model, graph in plan.nested
    ):
        plan = _plans[network] = make_plan(network)
    return plan


def whole_of(network):
    """The `Part` of a whole network, with its time means."""
    return plan_of(network).whole


def parts_of(network):
    """The `Part` of a network that runs at each step, that of its readouts, and the one
    that follows time means and readouts.

    The last two are `None` if there are neither.
    """
    plan = plan_of(network)
    return plan.parts or (plan.whole, None, None)


def make_plan(network, inside=None):
    """The `Plan` of a network. Nested models, and the models `inside` layers, are
    walked into.

    Args:
        network: A Functional model, see `as_graph`.
        inside: See `walk`. Defaults to `None`.
    """
    indices = itertools.count()
    calls: list[PlannedCall] = []
    nested: list[tuple[keras.Model, keras.Model]] = []

    def slot():
        return Slot(next(indices))

    def with_mask(tensor, mask):
        if mask is None:
            return tensor
        masked = slot()
        inputs = [leaf.index for leaf in (tensor, mask) if isinstance(leaf, Slot)]
        calls.append(
            PlannedCall(
                _WithMask(),
                (tensor, mask),
                {},
                inputs,
                [masked],
                str(len(calls)),
                takes_training=False,
            )
        )
        return masked

    def plan_operation(operation, training_of_model):
        def training_of(kwargs):
            training = keras_internals.training_in_graph(kwargs)
            return training_of_model if training is None else training

        def call_inside(*args, **kwargs):
            return run(
                inside[operation],
                tensors_among(args, kwargs, Slot),
                training_of(kwargs),
            )

        def call_model(inputs, mask=None, **kwargs):
            graph = as_graph(operation)
            nested.append((operation, graph))
            slots = match_inputs(graph, inputs)
            if mask is not None:
                slots = [
                    with_mask(each, of_it)
                    for each, of_it in zip(slots, keras.tree.flatten(mask), strict=True)
                ]
            return run(graph, slots, training_of(kwargs))

        def call(*args, **kwargs):
            training = training_of(kwargs)
            kwargs.pop("training", None)
            takes_training = keras_internals.takes_training(operation)
            if takes_training and training is not None:
                kwargs["training"], takes_training = training, False
            inputs = [
                leaf.index
                for leaf in tree.flatten((args, kwargs))
                if isinstance(leaf, Slot)
            ]
            outputs = [slot() for _ in keras.tree.flatten(operation.output)]
            calls.append(
                PlannedCall(
                    operation,
                    args,
                    kwargs,
                    inputs,
                    outputs,
                    str(len(calls)),
                    takes_training,
                )
            )
            return outputs

        if inside and operation in inside:
            return call_inside
        return call_model if keras_internals.is_graph(operation) else call

    def run(graph, slots, training=None):
        return keras_internals.run_through_graph(
            graph, slots, functools.partial(plan_operation, training_of_model=training)
        )

    inputs = [slot() for _ in network.inputs]
    outputs = run(network, inputs)
    return Plan(
        Part(calls, inputs, outputs),
        _parts_around_end_of_time(calls, inputs, outputs),
        next(indices),
        nested,
    )


def _parts_around_end_of_time(calls, inputs, outputs):
    """The `Part` of a network that runs at each step, that of its readouts, and the one
    that runs once.

    Args:
        calls: List of `PlannedCall`, all calls of the network in order.
        inputs: List of the slots of the network's inputs.
        outputs: Structure of the slots of its outputs.

    Returns:
        The three parts, or `None` if there are neither time means nor readouts. The
        last one begins with the calls of the time means. The part of readouts hands on
        what is no input of theirs.

    Raises:
        ValueError: If a call after time means or readouts needs time steps, or also has
            an input that follows none of them.
    """
    of_ends: set[int] = set()
    means: list[PlannedCall] = []
    readouts: list[PlannedCall] = []
    before, after = [], []
    for call in calls:
        follows, role = (
            [index in of_ends for index in call.inputs],
            kind_of(call.operation).role,
        )
        if any(follows):
            _check_after_end(call, all(follows))
            after.append(call)
        elif role in (TIME_MEAN, READOUT):
            (means if role == TIME_MEAN else readouts).append(call)
        else:
            before.append(call)
            continue
        of_ends.update(output.index for output in call.outputs)
    if not (means or readouts):
        return None
    others = [leaf for leaf in tree.flatten(outputs) if leaf.index not in of_ends]
    handed_on = [*(Slot(call.inputs[0]) for call in means), *others]
    last = [*(Slot(call.inputs[0]) for call in readouts), *handed_on]
    read = [*(call.outputs[0] for call in readouts), *handed_on]
    # A TimeMean gives the mean its dtype, and is regularised, like any layer.
    return (
        Part(before, inputs, last),
        Part(readouts, last, read),
        Part([*means, *after], read, outputs),
    )


def _check_after_end(call, follows_wholly):
    operation = call.operation
    name = f"{operation.name!r} of type {type(operation).__name__}"
    if not follows_wholly:
        raise ValueError(
            f"What follows a TimeMean or a LeakyReadout runs once. Received: {name}, "
            "with an input that follows one and another that does not. Put a TimeMean "
            "before the other one, too."
        )
    if kind_of(operation).role in (
        NEURON,
        ENCODER,
        TIME_MIXING,
        READOUT,
    ) or wants_time_step(type(operation)):  # type: ignore[arg-type]
        raise ValueError(
            "What follows a TimeMean or a LeakyReadout runs once, without time steps. "
            f"Received: {name} after one, which needs time steps. Move the layer "
            "before it behind it, or replace it by an ordinary one, for example an "
            "activation."
        )

"""The plan of a network: its calls and those of its nested models, in order, and what
of them follows the end of time."""

import dataclasses
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
    LayerKind,
    kind_of,
    wants_time_step,
)


class Slot:
    """A placeholder for a signal, with its `spec`, the symbolic tensor of this call:
    shape, dtype and mask."""

    def __init__(self, index, spec=None):
        self.index = index
        self.spec = spec


@dataclasses.dataclass(slots=True, eq=False)
class PlannedCall:
    """A call of an operation, with slots instead of signals; an input of the network if
    there is no operation.

    Args:
        operation: The Keras operation, or `None`.
        args: Tuple, its positional arguments, in which signals are `Slot`s.
        kwargs: Dict, its keyword arguments, likewise.
        inputs: List of integers, the indices of the slots among its arguments.
        outputs: List of `Slot`, those of its outputs.
        key: String, its place among the calls of the network.
        takes_training: Boolean, whether it is told `training`; not if the graph itself
            says what that is.
        sources: List of the calls whose outputs it takes, each once. Defaults to an
            empty list.
        consumers: List of the calls that take its outputs; `None` among them is an
            output of the network. Defaults to an empty list.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list
    key: str
    takes_training: bool
    sources: list = dataclasses.field(default_factory=list)
    consumers: list = dataclasses.field(default_factory=list)

    @property
    def kind(self) -> LayerKind:
        """The operation's facts."""
        return kind_of(self.operation)


def last_uses(touched, outputs):
    """For each of the sets of slots that calls touch, in order, the slots that neither
    a later call nor the outputs need."""
    needed, last = {leaf.index for leaf in tree.flatten(outputs)}, []
    for indices in reversed(touched):
        last.append(indices - needed)
        needed |= indices
    return last[::-1]


class Part:
    """Calls in order, and the slots of what goes in and out; `last_used` are the slots
    that nothing needs after each call."""

    def __init__(self, calls, inputs, outputs):
        self.calls, self.inputs, self.outputs = calls, inputs, outputs
        touched = [
            {*call.inputs, *(output.index for output in call.outputs)} for call in calls
        ]
        self.last_used = last_uses(touched, outputs)

    def run(self, signals, rule, training):
        """Passes every call to `rule`, with signals instead of slots.

        A signal is any object that is not a pytree; only the rule interprets signals.

        Args:
            signals: List with one signal for each input.
            rule: Function from a `PlannedCall`, whose `inputs` are signals, to signals,
                in the structure of the operation's outputs.
            training: Boolean, passed on to layers as in Keras' own Functional call.

        Returns:
            Signals in the structure of the outputs.
        """
        indices = [slot.index for slot in self.inputs]
        by_index = dict(zip(indices, signals, strict=True))

        def fill_in(leaf):
            return by_index[leaf.index] if isinstance(leaf, Slot) else leaf

        for call, last_used in zip(self.calls, self.last_used, strict=True):
            args, kwargs = tree.map_leaves(fill_in, (call.args, call.kwargs))
            if call.takes_training:
                kwargs["training"] = training
            inputs = [by_index[index] for index in call.inputs]
            outputs = rule(
                dataclasses.replace(call, args=args, kwargs=kwargs, inputs=inputs)
            )
            if isinstance(outputs, (list, tuple, dict)):
                # In Keras' order, with sorted dict keys.
                outputs = keras.tree.flatten(outputs)
            else:
                outputs = [outputs]
            for slot, signal in zip(call.outputs, outputs, strict=True):
                by_index[slot.index] = signal
            # A signal may be the activations of all time steps: its memory is for the
            # next ones.
            for index in last_used:
                del by_index[index]
        return tree.map_leaves(fill_in, self.outputs)


@dataclasses.dataclass(slots=True)
class Plan:
    """The calls of a network and its nested models, in the `parts` before, at and after
    the end of time, if it has one.

    `producers` are the calls, and the inputs of the network, by the indices of the
    slots of their outputs. `nested` are pairs of nested models and their graphs.
    `matching` are lists of the operations for which a function is true, by the
    function.
    """

    whole: Part
    producers: dict
    parts: tuple[Part, Part, Part] | None
    nested: list
    matching: dict = dataclasses.field(default_factory=dict)


class _WithMask(keras.Operation):
    """Gives a tensor the Keras mask with which a nested model is called."""

    def call(self, tensor, mask):
        return keras_internals.put_mask(ops.copy(tensor), mask)

    def compute_output_spec(self, tensor, mask):
        return keras.KerasTensor(tensor.shape, tensor.dtype)


_plans: weakref.WeakKeyDictionary[keras.Model, Plan] = weakref.WeakKeyDictionary()


def plan_of(network):
    """The plan of a network, cached because going through Keras' graph takes longer
    than many steps."""
    plan = _plans.get(network)
    if plan is None or any(
        as_graph(model) is not graph for model, graph in plan.nested
    ):
        plan = _plans[network] = _make_plan(network)
    return plan


def whole_of(network, inside=None):
    """The `Part` of a whole network, with its time means.

    Args:
        network: A Functional model, see `as_graph`.
        inside: Dict of layers to Functional models that are run instead of them, with
            the signals among the arguments of the layer as inputs. Defaults to `None`:
            none.
    """
    return _make_plan(network, inside).whole if inside else plan_of(network).whole


def producers_of(network):
    """The calls of a network, and its inputs, by the indices of the slots of their
    outputs."""
    return plan_of(network).producers


def parts_of(network):
    """The `Part` of a network that runs at each step, that of its readouts, and the one
    that follows time means and readouts.

    The last two are `None` if there are neither.
    """
    plan = plan_of(network)
    return plan.parts or (plan.whole, None, None)


def _make_plan(network, inside=None):
    """The `Plan` of a network; for the arguments see `whole_of`."""
    planner = _Planner(inside or {})
    inputs = [planner.add(None, (), {}, [tensor])[0] for tensor in network.inputs]
    outputs = planner.run(network, inputs)
    for slot in tree.flatten(outputs):
        planner.producers[slot.index].consumers.append(None)
    parts = _parts_around_end_of_time(planner.calls, inputs, outputs)
    whole = Part(planner.calls, inputs, outputs)
    return Plan(whole, planner.producers, parts, planner.nested)


class _Planner:
    """Goes through the graph of a network and collects calls; nested models, and the
    models `inside` layers, are gone through in their places."""

    def __init__(self, inside):
        self.inside = inside
        self.indices = itertools.count()
        self.calls: list[PlannedCall] = []
        self.producers: dict[int, PlannedCall] = {}
        self.nested: list[tuple[keras.Model, keras.Model]] = []

    def run(self, graph, slots, training=None):
        """The slots of the outputs of a graph with these slots as inputs."""
        by_tensor = dict(zip(map(id, graph.inputs), slots, strict=True))

        def fill_in(leaf):
            return by_tensor[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf

        for operation, args, kwargs, specs in keras_internals.calls_in(graph):
            args, kwargs = keras.tree.map_structure(fill_in, (args, kwargs))
            outputs = self.call(operation, args, kwargs, specs, training)
            by_tensor.update(
                zip(map(id, specs), keras.tree.flatten(outputs), strict=True)
            )
        return keras.tree.map_structure(
            fill_in, keras_internals.outputs_structure(graph)
        )

    def call(self, operation, args, kwargs, specs, training_of_model):
        """The slots of the outputs of a call in a graph."""
        training = keras_internals.training_in_graph(kwargs)
        if training is None:
            training = training_of_model
        if operation in self.inside:
            tensors = tensors_among(args, kwargs, Slot)
            return self.run(self.inside[operation], tensors, training)
        if keras_internals.is_graph(operation):
            return self.call_model(operation, training, *args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "training"}
        takes_training = keras_internals.takes_training(operation)
        if takes_training and training is not None:
            kwargs["training"], takes_training = training, False
        return self.add(operation, args, kwargs, specs, takes_training)

    def call_model(self, model, its_training, inputs, mask=None, **kwargs):
        graph = as_graph(model)
        self.nested.append((model, graph))
        slots = match_inputs(graph, inputs)
        if mask is not None:
            pairs = zip(slots, keras.tree.flatten(mask), strict=True)
            slots = [self.with_mask(slot, mask) for slot, mask in pairs]
        return self.run(graph, slots, its_training)

    def with_mask(self, tensor, mask):
        if mask is None:
            return tensor
        spec = getattr(tensor, "spec", tensor)
        (masked,) = self.add(_WithMask(), (tensor, mask), {}, [spec])
        return masked

    def add(self, operation, args, kwargs, specs, takes_training=False):
        """Adds a call, or an input of the network, and returns the slots of its
        outputs."""
        leaves = tree.flatten((args, kwargs))
        inputs = [leaf.index for leaf in leaves if isinstance(leaf, Slot)]
        outputs = [Slot(next(self.indices), spec) for spec in specs]
        key = str(len(self.calls))
        call = PlannedCall(
            operation, args, kwargs, inputs, outputs, key, takes_training
        )
        call.sources.extend(dict.fromkeys(self.producers[index] for index in inputs))
        for source in call.sources:
            source.consumers.append(call)
        for slot in outputs:
            self.producers[slot.index] = call
        if operation is not None:
            self.calls.append(call)
        return outputs


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
    after_end: set[int] = set()
    means: list[PlannedCall] = []
    readouts: list[PlannedCall] = []
    before, after = [], []
    for call in calls:
        role = call.kind.role
        follows = [index in after_end for index in call.inputs]
        if any(follows):
            _check_after_end(call, all(follows))
            after.append(call)
        elif role == TIME_MEAN:
            means.append(call)
        elif role == READOUT:
            readouts.append(call)
        else:
            before.append(call)
            continue
        after_end.update(output.index for output in call.outputs)
    if not (means or readouts):
        return None
    handed_on = [Slot(call.inputs[0]) for call in means]
    handed_on += [leaf for leaf in tree.flatten(outputs) if leaf.index not in after_end]
    last = [Slot(call.inputs[0]) for call in readouts] + handed_on
    read = [call.outputs[0] for call in readouts] + handed_on
    # A TimeMean gives the mean its dtype, and is regularised, like any layer.
    return (
        Part(before, inputs, last),
        Part(readouts, last, read),
        Part(means + after, read, outputs),
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
    needs_steps = call.kind.role in (NEURON, ENCODER, TIME_MIXING, READOUT)
    if needs_steps or wants_time_step(type(operation)):  # type: ignore[arg-type]
        raise ValueError(
            "What follows a TimeMean or a LeakyReadout runs once, without time steps. "
            f"Received: {name} after one, which needs time steps. Move the layer "
            "before it behind it, or replace it by an ordinary one, for example an "
            "activation."
        )

"""The walk through a network's graph, and its requirements for networks."""

import dataclasses
import functools
import itertools
import weakref

import keras

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import keras_internals, tree


@dataclasses.dataclass(slots=True)
class Call:
    """One call of an operation in a network's graph.

    Args:
        operation: The Keras layer, or the graph node of a function of `keras.ops`.
        args: Tuple, its positional arguments in the graph, with signals instead of tensors.
        kwargs: Dict, its keyword arguments, likewise; includes `training` if the operation takes it.
        signals: List of the signals among these arguments.
        place: String, the same in every walk of the network and different for every call in it.
        kind: The operation's `keras_ratesnn.LayerKind`.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    signals: list
    place: str
    kind: layer_kinds.LayerKind


def as_graph(network, argument="network"):
    """The Functional graph of a Functional or Sequential model.

    Args:
        network: The argument of the user.
        argument: String, the name of the argument. Defaults to `"network"`.

    Returns:
        A Functional model: `network` itself, or the one inside a Sequential model.

    Raises:
        TypeError: If `network` is neither Functional nor Sequential.
        ValueError: If it is a Sequential without an input shape.
    """
    if not keras_internals.is_graph(network):
        raise TypeError(
            f"`{argument}` must be a Functional or Sequential Keras model of one time step, whose graph can be walked. "
            f"Received: {argument}={network!r} of type {type(network).__name__}. Build it as keras.Model(inputs, outputs) "
            "from keras.Input, or as keras.Sequential([keras.Input(shape), ...])."
        )
    functional = keras_internals.functional_of(network)
    if functional is None:
        raise ValueError(
            f"`{argument}` must know its input shape. Received: {argument}={network!r}, a Sequential that is not built. "
            "Start it with keras.Input(shape), the shape of one time step without batch and time."
        )
    return functional


def walk(network, signals, rule, training, inside=None):
    """Runs a network's graph and passes every operation to `rule`.

    Nested Functional and Sequential models are included. A signal is any object that is not a pytree; only the rule interprets
    signals.

    Args:
        network: A Functional model, see `as_graph`.
        signals: List with one signal for each of `network.inputs`.
        rule: Function from a `Call` to signals, in the structure of the operation's outputs.
        training: Boolean, passed on to layers as in Keras' own Functional call.
        inside: Dict of layers to Functional models that are run instead of them, with the signals among the arguments of the
            layer as inputs. Defaults to `None`: none.

    Returns:
        Signals in the structure of the network's outputs.
    """
    plan = _make_plan(network, inside) if inside else _plan_of(network)
    return _walk(plan, plan.whole, signals, rule, training)


def walks(network, training):
    """`walk` in two parts: functions `(signals, rule) -> signals` for what runs at each step, and for what follows time means.

    Without time means, the first is `walk`, and the second is `None`. With them, the first returns a list of signals, and the
    second takes a signal for each of their means.
    """
    plan = _plan_of(network)
    first, second = plan.parts or (plan.whole, None)

    def walk_of(part):
        return part and (lambda signals, rule: _walk(plan, part, signals, rule, training))

    return walk_of(first), walk_of(second)


def _walk(plan, part, signals, rule, training):
    found = [None] * plan.slots
    for slot, signal in zip(part.inputs, signals, strict=True):
        found[slot.index] = signal

    def fill_in(leaf):
        return found[leaf.index] if isinstance(leaf, _Slot) else leaf

    for step, last_used in zip(part.steps, part.last_used, strict=True):
        operation = step.operation
        args, kwargs = tree.map_leaves(fill_in, (step.args, step.kwargs))
        if step.takes_training:
            kwargs["training"] = training
        of_step = [found[index] for index in step.inputs]
        outputs = rule(Call(operation, args, kwargs, of_step, step.place, layer_kinds.kind_of(operation)))
        # In Keras' order, with sorted dict keys.
        outputs = keras.tree.flatten(outputs) if isinstance(outputs, (list, tuple, dict)) else [outputs]
        for slot, signal in zip(step.outputs, outputs, strict=True):
            found[slot.index] = signal
        # A signal may be the activations of all time steps: its memory is for the next ones.
        for index in last_used:
            found[index] = None
    return tree.map_leaves(fill_in, part.outputs)


def tensors_among(args, kwargs, kind=keras.KerasTensor):
    """The tensors among the arguments of a call in Keras' order, a list.

    Args:
        args: Tuple, the positional arguments.
        kwargs: Dict, the keyword arguments.
        kind: The class of the tensors, or of what takes their place.
    """
    return [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, kind)]


class _Slot:
    """A placeholder for a signal."""

    def __init__(self, index):
        self.index = index


@dataclasses.dataclass(slots=True)
class _Step:
    """A call of an operation, with slots instead of signals."""

    operation: keras.Operation
    args: tuple
    kwargs: dict
    inputs: list
    outputs: list
    place: str
    takes_training: bool  # False if the graph itself says what `training` is


class _Part:
    """Calls in order, and the slots of what goes in and out; `last_used` are the slots that nothing needs after each call."""

    def __init__(self, steps, inputs, outputs):
        self.steps, self.inputs, self.outputs = steps, inputs, outputs
        self.last_used: list[list[int]] = []
        needed = {leaf.index for leaf in tree.flatten(outputs)}
        for step in reversed(steps):
            touched = {*step.inputs, *(output.index for output in step.outputs)}
            self.last_used.append(sorted(touched - needed))
            needed |= touched
        self.last_used.reverse()


@dataclasses.dataclass(slots=True)
class _Plan:
    """The calls of a network and its nested models, in the two `parts` before and after time means, if it has any.

    `nested` are pairs of nested models and their graphs.
    """

    whole: _Part
    parts: tuple[_Part, _Part] | None
    slots: int
    nested: list


_plans: weakref.WeakKeyDictionary[keras.Model, _Plan] = weakref.WeakKeyDictionary()


def _plan_of(network):
    """The plan of a walk, cached because Keras' own graph traversal takes longer than many steps."""
    plan = _plans.get(network)
    if plan is None or any(as_graph(model) is not graph for model, graph in plan.nested):
        plan = _plans[network] = _make_plan(network)
    return plan


def _make_plan(network, inside=None):
    indices = itertools.count()
    steps: list[_Step] = []
    nested: list[tuple[keras.Model, keras.Model]] = []

    def slot():
        return _Slot(next(indices))

    def step_through(operation, training_of_model):
        def training_of(kwargs):
            training = keras_internals.training_in_graph(kwargs)
            return training_of_model if training is None else training

        def call_inside(*args, **kwargs):
            return run(inside[operation], tensors_among(args, kwargs, _Slot), training_of(kwargs))

        def call_model(inputs, **kwargs):
            graph = as_graph(operation)
            nested.append((operation, graph))
            return run(graph, match_inputs(graph, inputs), training_of(kwargs))

        def call(*args, **kwargs):
            training = training_of(kwargs)
            kwargs.pop("training", None)
            takes_training = keras_internals.takes_training(operation)
            if takes_training and training is not None:
                kwargs["training"], takes_training = training, False
            inputs = [leaf.index for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, _Slot)]
            outputs = [slot() for _ in keras.tree.flatten(operation.output)]
            steps.append(_Step(operation, args, kwargs, inputs, outputs, str(len(steps)), takes_training))
            return outputs

        if inside and operation in inside:
            return call_inside
        return call_model if keras_internals.is_graph(operation) else call

    def run(graph, slots, training=None):
        return keras_internals.run_through_graph(graph, slots, functools.partial(step_through, training_of_model=training))

    inputs = [slot() for _ in network.inputs]
    outputs = run(network, inputs)
    return _Plan(_Part(steps, inputs, outputs), _parts(steps, inputs, outputs), next(indices), nested)


def _parts(steps, inputs, outputs):
    """The part of the network that runs at each step, and the one that runs once, on time means; `None` if there are none."""
    of_means: set[int] = set()
    means, before, after = [], [], []
    for step in steps:
        follows = [index in of_means for index in step.inputs]
        if any(follows):
            _check_after_means(step, all(follows))
            after.append(step)
        elif _role(step.operation) == layer_kinds.TIME_MEAN:
            means.append(step)
        else:
            before.append(step)
            continue
        of_means.update(output.index for output in step.outputs)
    if not means:
        return None
    others = [leaf for leaf in tree.flatten(outputs) if leaf.index not in of_means]
    averaged = [*(_Slot(step.inputs[0]) for step in means), *others]
    # A TimeMean gives the mean its dtype, and is regularised, like any layer.
    return _Part(before, inputs, averaged), _Part([*means, *after], averaged, outputs)


def _check_after_means(step, follows_wholly):
    operation = step.operation
    name = f"{operation.name!r} of type {type(operation).__name__}"
    if not follows_wholly:
        raise ValueError(
            f"What follows a TimeMean runs once, on means. Received: {name}, with an input that follows a TimeMean and one "
            "that does not. Put a TimeMean before the other one, too."
        )
    if _role(operation) in (layer_kinds.NEURON, layer_kinds.ENCODER) or layer_kinds.wants_time_step(type(operation)):  # type: ignore[arg-type]
        raise ValueError(
            f"What follows a TimeMean runs once, without time steps. Received: {name} after one, which needs time steps. Move "
            "the TimeMean behind it, or replace it by an ordinary layer, for example an activation."
        )


def check_time_means(network):
    """Raises ValueError if operations after time means need time steps, or are also given what is not a mean."""
    _plan_of(network)


def check_sequences(network):
    """Raises ValueError if an output of the network follows a time mean, so that it has no value for each step."""
    if _plan_of(network).parts is not None:
        names = [
            step.operation.name for step in _plan_of(network).whole.steps if _role(step.operation) == layer_kinds.TIME_MEAN
        ]
        raise ValueError(
            f"`return_sequences` must be False for a network with time means, which has no output at each step. Received: "
            f"return_sequences=True, and a TimeMean named {names[0]!r}."
        )


_SEEN_BY_THE_WALK = layer_kinds.NEURON, layer_kinds.CELL, layer_kinds.TIME_MEAN


def neurons_of(network):
    """All neuron layers of a network, including those of nested models, in the order of its operations.

    Args:
        network: A Functional model, see `as_graph`.

    Raises:
        ValueError: If a layer hides neurons inside, where `walk` cannot see them.
    """
    neurons = []
    for operation in network.operations:
        if keras_internals.is_graph(operation):
            neurons += neurons_of(as_graph(operation))
        elif _role(operation) == layer_kinds.NEURON:
            neurons.append(operation)
        elif isinstance(operation, keras.layers.Layer):
            inside = keras_internals.with_sublayers(operation)
            hidden = [layer for layer in inside if _role(layer) in _SEEN_BY_THE_WALK and layer is not operation]
            if hidden:
                raise ValueError(
                    "`network` must not hide neurons or time means inside other layers. Received: layer "
                    f"{operation.name!r} of type {type(operation).__name__}, which contains {hidden[0].name!r} of type "
                    f"{type(hidden[0]).__name__}: it could not be run over time. Put it after the layer, as a separate layer: "
                    "Dense(10) and then LIF(), not Dense(10, activation=LIF()); or make the outer layer a Functional or "
                    "Sequential model."
                )
    return neurons


def _role(operation):
    return layer_kinds.kind_of(operation).role


def check_timesteps(network, timesteps):
    """Raises ValueError if a layer of a network or of its nested models has weights for fewer time steps.

    Args:
        network: A Functional model, see `as_graph`.
        timesteps: Integer T.
    """
    for operation in network.operations:
        if keras_internals.is_graph(operation):
            check_timesteps(as_graph(operation), timesteps)
            continue
        most_timesteps = layer_kinds.kind_of(operation).most_timesteps
        if most_timesteps is not None and timesteps > most_timesteps(operation):
            raise ValueError(
                f"`timesteps` must be at most {most_timesteps(operation)}, the number of time steps that layer "
                f"{operation.name!r} of type {type(operation).__name__} has weights for. Received: timesteps={timesteps}. "
                "Create the layer for more steps, or run the network for fewer."
            )


def output_of(network, name, argument):
    """The symbolic output of a layer where a network calls it; `layer.output` may be that of a call in another network.

    Args:
        network: A Functional model, see `as_graph`.
        name: String, the name of one of its layers; a nested model counts as one.
        argument: String, the name of the argument of the user.

    Raises:
        ValueError: If there is no such layer in the network, or it calls the layer several times.
    """
    layer = network.get_layer(name)
    calls = [outputs for operation, _, _, outputs in keras_internals.calls_in(network) if operation is layer]
    if len(calls) > 1:
        raise ValueError(
            f"`{argument}` must name layers that the network calls once. Received: {name!r}, which it calls {len(calls)} times "
            "with an output each. Name a layer that follows the call you mean, or put an Identity layer there."
        )
    # What is not called is an input.
    outputs = keras.tree.pack_sequence_as(layer.output, calls[0]) if calls else layer.output
    return keras_internals.unpack_single(outputs)


def check_neurons(network):
    """Raises ValueError unless the network has neurons, all of them visible to `walk`."""
    if not neurons_of(network):
        raise ValueError(
            f"`network` must contain a neuron layer. Received: network={network.name!r} without any. Put "
            "keras_ratesnn.layers.LIF() after its layers, instead of their activations."
        )


def match_inputs(network, inputs):
    """Flattens inputs, in any structure that Keras accepts, to a list in the order of `network.inputs`.

    Args:
        network: A Functional model, see `as_graph`.
        inputs: Tensor, or lists and dicts of tensors. A dict is read by the keys of the dict of inputs that the network was
            made with, or by the names of its inputs if that was none; other keys are ignored.

    Raises:
        ValueError: If their number or names do not fit.
    """
    structure, names = keras_internals.inputs_structure(network), [tensor.name for tensor in network.inputs]
    by_names = isinstance(inputs, dict) and not isinstance(structure, dict)
    flat = _parts_of(inputs, names) if by_names else _in_order(inputs, structure)
    if len(flat) != len(names):
        raise ValueError(f"The network has {len(names)} inputs, named {names}. Received: {len(flat)} tensors.")
    return flat


def _in_order(inputs, structure):
    """The tensors among inputs, a list in Keras' order of `structure`, the network's own inputs."""
    if isinstance(structure, dict):
        # Keras sorts the keys of a dict, but not those of an OrderedDict.
        names = list(dict.fromkeys(path[0] for path, _ in keras.tree.flatten_with_path(structure)))
        if isinstance(inputs, dict):
            parts = zip(_parts_of(inputs, names), names, strict=True)
            return [tensor for part, name in parts for tensor in _in_order(part, structure[name])]
        if isinstance(inputs, (list, tuple)) and list(structure) != names:
            raise ValueError(
                f"The network's inputs are a dict with keys {list(structure)}, which are not sorted. Received: a "
                f"{type(inputs).__name__}, whose order could be this or that of the sorted keys. Pass a dict."
            )
    elif isinstance(structure, (list, tuple)) and isinstance(inputs, (list, tuple)) and len(inputs) == len(structure):
        return [tensor for part, wanted in zip(inputs, structure, strict=True) for tensor in _in_order(part, wanted)]
    return keras.tree.flatten(inputs)


def _parts_of(inputs, names):
    """The parts of a dict of inputs with these names, a list."""
    missing = [name for name in names if name not in inputs]
    if missing:
        raise ValueError(f"The network's inputs are named {names}. Received a dict without {missing}: keys {sorted(inputs)}.")
    return [inputs[name] for name in names]

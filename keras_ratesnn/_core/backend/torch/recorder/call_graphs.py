"""Graphs of the calls of a Keras model, where Keras does not compile a training step.

The first calls of a kind run in eager mode. Then the operations of a call are recorded, and replayed from now on. Recording
takes about a second, and a replay skips the Python code of layers.
"""

import collections
import operator
import threading
import warnings
from typing import Any

from keras import ops

from keras_ratesnn._core import backend, keras_internals, tree
from keras_ratesnn._core.backend import base
from keras_ratesnn._core.backend.torch.recorder.graph import CallGraph
from keras_ratesnn._core.backend.torch.recorder.layer_attributes import LayerAttributes
from keras_ratesnn._core.latest_settings import LatestSettings

EAGER_CALLS = {"auto": 32, True: 1}
"""Calls of a kind before one is recorded, by `jit_compile`. Recording takes as long as it saves in about a hundred calls."""

WORTH_RECORDING = 100
"""Replays after which a recording has paid off."""

GRAPHS_KEPT = 16
"""The number of kinds of calls that are remembered, for each of the settings."""

_recording = threading.Lock()


class CallGraphs(base.CallGraphs):
    """Runs the calls of a model: in eager mode at first, then as graphs.

    A graph depends on the variables of the model, its layers' attributes and those of `others`, and all arguments of `call`.
    It does not on Python variables outside that a custom layer reads, as in every compiled function.
    """

    def __init__(self):
        super().__init__()
        self._settings = LatestSettings()
        self._places = CallGraph.new_places()
        self._lock = threading.Lock()

    def call(self, function, tensors, model, others, settings, jit_compile):
        if jit_compile is False:
            return function(tensors)
        with self._lock:
            latest = self._settings.present(
                lambda settings: settings.are_of(model, others),
                lambda patience: _Settings(model, others, patience, self._places),
            )
            values = latest.values()
            signature = _signature([*values, *tensors])
            call = None if signature is None else latest.call_of_kind((signature, jit_compile, settings))
        return function(tensors) if call is None else call(function, values, tensors, jit_compile)

    @property
    def graphs(self):
        """The graphs that are kept, a list of `CallGraph`."""
        return [graph for settings in self._settings.kept for graph in settings.graphs]

    @property
    def engine(self):
        graphs = self.graphs
        parts = [graph.forward for graph in graphs] + [graph.backward for graph in graphs if any(graph.differentiable)]
        are_compiled = [getattr(part, "is_compiled", False) for part in parts]
        return ("compiled" if all(are_compiled) else "recorded") if parts else "eager"


class _Settings:
    """The attributes that a model and other objects have at one time, and the kinds of calls with these.

    Args:
        model: Keras model.
        others: List of objects.
        patience: Integer that multiplies the number of calls before a recording.
        places: The memory that the graphs share, see `CallGraph`.
    """

    def __init__(self, model, others, patience, places):
        self._model, self._others, self._patience, self._places = model, others, patience, places
        self._variables = model.variables
        self._calls: collections.OrderedDict[Any, _Call] = collections.OrderedDict()
        self._attributes = LayerAttributes(keras_internals.with_sublayers(model), others)
        if keras_internals.is_rematerialized(model):
            self._attributes.unknown = "a layer was made in a keras.RematScope"

    def are_of(self, model, others):
        """Whether a model and other objects have these settings now."""
        same = self._model is model and len(others) == len(self._others) and all(map(operator.is_, self._others, others))
        return same and self._attributes.unchanged()

    @property
    def graphs(self):
        """The recorded graphs of the calls, a list."""
        return [call.graph for call in self._calls.values() if call.graph is not None]

    @property
    def were_wasted(self):
        """Whether calls were recorded, but none was replayed often."""
        return bool(self.graphs) and not any(call.has_paid_off for call in self._calls.values())

    def values(self):
        """The values of the variables now, a list of tensors."""
        return keras_internals.values_of(self._variables)

    def call_of_kind(self, key):
        """The `_Call` with a key, a new one if there is none."""
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call(self._model, self._attributes, self._variables, self._patience, self._places)
        self._calls.move_to_end(key)
        if len(self._calls) > GRAPHS_KEPT:
            self._calls.popitem(last=False)
        return call


def _signature(tensors):
    """The properties of tensors, hashable, or `None` if there can be no graph for them."""
    if keras_internals.in_stateless_scope() or any(keras_internals.mask_of(tensor) is not None for tensor in tensors):
        return None
    return CallGraph.signature(tensors)


class _Call:
    """A kind of call: counts the calls, and records one when it is due.

    Args:
        model: Keras model.
        attributes: Its `LayerAttributes`.
        variables: List of its variables.
        patience: Integer that multiplies the number of calls before that.
        places: The memory that graphs share, see `CallGraph`.
    """

    def __init__(self, model, attributes, variables, patience, places):
        self._model = model
        self._attributes = attributes
        self._variables = variables
        self._patience = patience
        self._places = places
        self._calls = 0
        self._recorded = None
        self._is_recordable = True

    @property
    def graph(self):
        """The recorded graph, a `CallGraph`, or `None`."""
        return None if self._recorded is None else self._recorded.graph

    @property
    def has_paid_off(self):
        return self._recorded is not None and self._calls >= WORTH_RECORDING

    def __call__(self, function, values, tensors, jit_compile):
        self._calls += 1
        if self._recorded is not None:
            return self._recorded.replay([*values, *tensors])
        is_due = self._calls > EAGER_CALLS[jit_compile] * self._patience
        # PyTorch can record only one function at a time.
        if not (is_due and self._is_recordable and _recording.acquire(blocking=False)):
            return function(tensors)
        try:
            return self._record(function, values, tensors, compiled=jit_compile is True)
        finally:
            _recording.release()

    def _record(self, function, values, tensors, compiled):
        """Runs a call in eager mode, and records it if possible."""
        all_tensors = [*values, *tensors]
        try:
            if self._attributes.unknown is not None:
                raise ValueError(self._attributes.unknown)
            recorded = _Recorded(function, self._model, all_tensors, self._variables)
        except ValueError as error:
            self._give_up(error)
            return function(tensors)
        try:
            recorded.record(all_tensors, self._attributes.tensors, compiled, self._places)
            if not self._attributes.unchanged():
                raise ValueError("a layer changes its attributes when it is called")
            self._recorded, self._calls = recorded, 0
        # Anything may be raised where an operation depends on the values of tensors.
        except Exception as error:
            self._give_up(error)
        return recorded.first_results()

    def _give_up(self, error):
        self._is_recordable = False
        _warn_of_eager_mode(self._model.name, error)


class _Recorded:
    """A call as a function of tensors only, with the assignments of variables and the losses of layers among its results.

    The function runs once in eager mode, when this object is created. The first tensors are the values of the variables.
    """

    def __init__(self, function, model, tensors, variables):
        layers, count = list(keras_internals.with_sublayers(model)), len(variables)
        self._name = model.name
        self.graph: Any = None
        self._targets: Any = None

        def of_tensors(tensors):
            scope = keras_internals.CollectingScope(variables, tensors[:count])
            with scope:
                outputs = function(tensors[count:])
            assigned, added = scope.assigned(), scope.added(layers)
            before, self._targets = self._targets, tuple([target for target, _ in pairs] for pairs in (assigned, added))
            if before is not None and _identities(before) != _identities(self._targets):
                raise ValueError("it assigns other variables at each call")
            self._structure = tree.map_leaves(lambda _: None, outputs)
            masks = [keras_internals.mask_of(output) for output in tree.flatten(outputs)]
            self._has_mask = [mask is not None for mask in masks]
            masks = [mask for mask in masks if mask is not None]
            return [*tree.flatten(outputs), *(value for _, value in assigned), *(loss for _, loss in added), *masks]

        self._function: Any = of_tensors
        noise = backend.noise_state()
        try:
            self._first = of_tensors(tensors)
        except Exception:
            # The call is repeated in eager mode, and draws the same numbers.
            backend.set_noise_state(noise)
            raise
        self._is_copied = CallGraph.share_memory(self._first, tensors)

    def record(self, tensors, settings, compiled, places):
        """Records the graph; raises an error if that is not possible."""
        name = f"model {self._name!r}"
        self.graph = CallGraph(self._function, tensors, self._first, settings, compiled, name, places)
        self._function = None

    def first_results(self):
        """The outputs of the call in eager mode; its assignments and losses take effect."""
        first, self._first = self._first, None
        return self._put(first)

    def replay(self, tensors):
        """The outputs of another call; its assignments and losses take effect."""
        return self._put(self.graph(tensors))

    def _put(self, results):
        outputs = iter(results)
        structure = tree.map_leaves(lambda _: next(outputs), self._structure)
        count, (variables, layers) = len(self._has_mask), self._targets
        values = results[count : count + len(variables)]
        # A result may be the value of a variable, which another assignment changes.
        is_copied = self._is_copied[count:]
        values = [ops.copy(value) if copied else value for value, copied in zip(values, is_copied, strict=False)]
        keras_internals.assign(variables, values, CallGraph.assign)
        losses = results[count + len(variables) :][: len(layers)]
        for layer, loss in zip(layers, losses, strict=True):
            layer.add_loss(loss)
        masks = iter(results[count + len(variables) + len(layers) :])
        for output, has_mask in zip(tree.flatten(structure), self._has_mask, strict=True):
            if has_mask:
                keras_internals.put_mask(output, next(masks))
        return structure


def _identities(targets):
    return [list(map(id, some)) for some in targets]


def _warn_of_eager_mode(name, error):
    reason = " ".join(str(error).split())[:300]
    warnings.warn(
        f"The calls of model {name!r} run in eager mode, which is slower but gives the same results, because their operations "
        "cannot be recorded. To turn this warning off: model.compile(..., jit_compile=False), or run_eagerly=True for "
        "an ordinary Keras model. The reason: "
        f"{type(error).__name__}: {reason}",
        stacklevel=2,
    )

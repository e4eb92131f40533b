"""Graphs of the calls of a Keras model, where Keras does not compile a training step.

The first calls of a kind run in eager mode. Then the operations of a call are recorded,
and replayed from now on. Recording takes about a second, and a replay skips the Python
code of layers.
"""

import collections
import functools
import itertools
import logging
import threading
import warnings
from typing import Any

import keras
import numpy as np
import torch
from keras import ops

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.backend import base
from keras_ratesnn._core.backend.torch import Backend
from keras_ratesnn._core.backend.torch.graphs import private_keras
from keras_ratesnn._core.backend.torch.graphs.latest_settings import LatestSettings
from keras_ratesnn._core.backend.torch.graphs.recorder.graph import CallGraph
from keras_ratesnn._core.backend.torch.graphs.recorder.layer_attributes import (
    LayerAttributes,
)
from keras_ratesnn._core.backend.torch.graphs.recorder.signature import Signatures

EAGER_CALLS = {"auto": 32, True: 1}
"""Calls of a kind before one is recorded, by `jit_compile`. Recording takes as long as
it saves in about a hundred calls."""

WORTH_RECORDING = 100
"""Replays after which a recording has paid off."""

GRAPHS_KEPT = 16
"""The number of kinds of calls that are remembered, for each of the settings."""

_log = logging.getLogger("keras_ratesnn")
_recording = threading.Lock()


class CallGraphs(base.CallGraphs):
    """Runs the calls of a model: in eager mode at first, then as graphs.

    A graph depends on the variables of the model, its layers' attributes and those of
    `objects`, and all arguments of `call`. It does not on Python variables outside that
    a custom layer reads, as in every compiled function.
    """

    def __init__(self):
        super().__init__()
        self._settings = LatestSettings()
        self._memory = CallGraph.new_memory()
        self._lock = threading.Lock()

    def call(self, function, tensors, model, objects, settings, jit_compile):
        if jit_compile is False:
            return function(tensors)
        with self._lock:
            latest = self._settings.present(
                lambda settings: settings.are_of(model, objects),
                lambda patience: self._new_settings(model, objects, patience),
            )
            values = keras_internals.values_of(latest.variables)
            signature = _signature(latest.signatures, values, tensors)
            call = None
            if signature is not None:
                call = latest.call_of_kind((*signature, jit_compile, settings))
        if call is None:
            return function(tensors)
        return call(latest, function, values, tensors, jit_compile)

    def _new_settings(self, model, objects, patience):
        kept = self._settings.kept
        if kept and _log.isEnabledFor(logging.DEBUG):
            # Since the settings that differ least: inference comes between steps of
            # training.
            _log.debug(
                "Calls of model %r by %s are counted anew; what changed: %s",
                model.name,
                objects,
                min((settings.attributes.changes() for settings in kept), key=len),
            )
        return _Settings(model, objects, patience, self._memory)

    @property
    def graphs(self):
        """The graphs that are kept, a list of `CallGraph`."""
        return [graph for settings in self._settings.kept for graph in settings.graphs]

    @property
    def execution(self):
        parts = []
        for graph in self.graphs:
            parts.append(graph.forward)
            if any(graph.differentiable):
                parts.append(graph.backward)
        if not parts:
            return "eager"
        are_compiled = [getattr(part, "is_compiled", False) for part in parts]
        return "compiled" if all(are_compiled) else "recorded"


class _Settings:
    """The attributes that a model and other objects have at one time, and the kinds of
    calls with these.

    Args:
        model: Keras model.
        objects: Tuple of other objects.
        patience: Integer that multiplies the number of calls before a recording.
        memory: What the CUDA graphs share, see `CallGraph`.
    """

    def __init__(self, model, objects, patience, memory):
        self.model = model
        self.patience = patience
        self.memory = memory
        self.variables = list(model.variables)
        for holder in objects:
            if isinstance(holder, keras.random.SeedGenerator):
                self.variables.append(holder.state)
        self.attributes = LayerAttributes(
            keras_internals.with_sublayers(model), objects
        )
        if keras_internals.is_rematerialized(model):
            self.attributes.unknown = "a layer was made in a keras.RematScope"
        self.signatures = Signatures()
        self._objects = objects
        self._calls: collections.OrderedDict[Any, _CallKind] = collections.OrderedDict()

    def are_of(self, model, objects):
        """Whether a model and other objects have these settings now."""
        same = _identities([self.model], self._objects) == _identities([model], objects)
        return same and self.attributes.unchanged()

    @property
    def graphs(self):
        """The recorded graphs of the calls, a list."""
        return [call.graph for call in self._calls.values() if call.graph is not None]

    @property
    def were_wasted(self):
        """Whether calls were recorded, but none was replayed often."""
        has_paid_off = [call.has_paid_off for call in self._calls.values()]
        return bool(self.graphs) and not any(has_paid_off)

    def call_of_kind(self, key):
        """The `_CallKind` with a key, a new one if there is none."""
        call = self._calls.get(key)
        if call is None:
            if self._calls:
                other = set(key).difference(next(reversed(self._calls)))
                _log.debug(
                    "Calls of model %r are of another kind: %s", self.model.name, other
                )
            call = self._calls[key] = _CallKind()
        self._calls.move_to_end(key)
        if len(self._calls) > GRAPHS_KEPT:
            self._calls.popitem(last=False)
        return call


def _signature(signatures, values, tensors):
    """The dependencies of a call besides attributes, hashable, or `None` if there can
    be no graph for it."""
    if private_keras.in_stateless_scope() or any(
        keras_internals.mask_of(tensor) is not None for tensor in tensors
    ):
        return None
    return signatures.signature(values, tensors)


class _CallKind:
    """A kind of call: counts the calls, and records one when it is due.

    Attributes:
        graph: The recorded graph, a `CallGraph`, or `None`.
    """

    def __init__(self):
        self.graph = None
        self._calls = 0
        self._recorded = None
        self._is_recordable = True

    @property
    def has_paid_off(self):
        return self.graph is not None and self._calls >= WORTH_RECORDING

    def __call__(self, settings, function, values, tensors, jit_compile):
        self._calls += 1
        all_tensors = [*values, *tensors]
        if self._recorded is not None:
            return self._recorded.replay(all_tensors)
        is_due = self._calls > EAGER_CALLS[jit_compile] * settings.patience
        # PyTorch can record only one function at a time.
        if not (is_due and self._is_recordable and _recording.acquire(blocking=False)):
            return function(tensors)
        try:
            return self._record(
                settings, function, tensors, all_tensors, compiled=jit_compile is True
            )
        finally:
            _recording.release()

    def _record(self, settings, function, tensors, all_tensors, compiled):
        """Runs a call in eager mode, and records it if possible."""
        model = settings.model
        attributes = settings.attributes
        try:
            if attributes.unknown is not None:
                raise ValueError(attributes.unknown)
            recorded = _Recorded(function, model, all_tensors, settings.variables)
        except ValueError as error:
            self._give_up(model, error)
            return function(tensors)
        try:
            recorded.record(all_tensors, attributes.tensors, compiled, settings.memory)
            if not attributes.unchanged():
                raise ValueError("a layer changes its attributes when it is called")
            self._recorded = recorded
            self.graph = recorded.graph
            self._calls = 0
        # Anything may be raised where an operation depends on the values of tensors.
        except Exception as error:
            self._give_up(model, error)
        return recorded.first_results()

    def _give_up(self, model, error):
        self._is_recordable = False
        reason = " ".join(str(error).split())[:300]
        warnings.warn(
            f"The calls of model {model.name!r} run in eager mode, which is slower but "
            "gives the same results, because their operations cannot be recorded. To "
            "turn this warning off: model.compile(..., jit_compile=False), or "
            "run_eagerly=True for an ordinary Keras model. The reason: "
            f"{type(error).__name__}: {reason}",
            stacklevel=2,
        )


class _Recorded:
    """A call as a function of tensors only, with the assignments of variables and the
    losses of layers among its results.

    The function runs once in eager mode, when this object is created. The first tensors
    are the values of the variables.
    """

    def __init__(self, function, model, tensors, variables):
        self._name = model.name
        self.graph: Any = None
        self._targets: Any = None
        layers = list(keras_internals.with_sublayers(model))
        self._function: Any = functools.partial(self._run, function, layers, variables)
        before = Backend.noise_state()
        try:
            self._first = self._function(tensors)
        except Exception:
            # The call is repeated in eager mode, and draws the same numbers.
            Backend.set_noise_state(before)
            raise
        self._is_copied = CallGraph.share_memory(self._first, tensors)

    def _run(self, function, layers, variables, tensors):
        """The results of the function, a list: its outputs, what it assigns and adds,
        and the masks of outputs."""
        count = len(variables)
        scope = keras_internals.CollectingScope(variables, tensors[:count])
        with scope:
            outputs = function(tensors[count:])
        assigned = scope.assigned()
        added = scope.added(layers)
        changed = [variable for variable, _ in assigned]
        with_losses = [layer for layer, _ in added]
        self._note_targets(changed, with_losses)
        self._structure = tree.map_leaves(lambda _: None, outputs)
        leaves = tree.flatten(outputs)
        masks = [keras_internals.mask_of(leaf) for leaf in leaves]
        self._has_mask = [mask is not None for mask in masks]
        effects = [value for _, value in (*assigned, *added)]
        return [*leaves, *effects, *itertools.compress(masks, self._has_mask)]

    def _note_targets(self, variables, layers):
        """Notes which variables are assigned, and which layers have losses."""
        before = self._targets
        self._targets = variables, layers
        if before is not None and _identities(*before) != _identities(*self._targets):
            raise ValueError("it assigns other variables at each call")

    def record(self, tensors, settings, compiled, memory):
        """Records the graph; raises an error if that is not possible."""
        name = f"model {self._name!r}"
        self.graph = CallGraph(
            self._function, tensors, self._first, settings, compiled, name, memory
        )
        self._function = None

    def first_results(self):
        """The outputs of the call in eager mode; its assignments and losses take
        effect."""
        first = self._first
        self._first = None
        return self._put(first)

    def replay(self, tensors):
        """The outputs of another call; its assignments and losses take effect."""
        return self._put(self.graph(tensors))

    def _put(self, results):
        variables, layers = self._targets
        remaining = iter(results)
        outputs = tree.filled(self._structure, remaining)
        # A result may be the value of a variable, which another assignment changes.
        values = []
        for is_copied in self._is_copied[len(self._has_mask) :][: len(variables)]:
            value = next(remaining)
            values.append(ops.copy(value) if is_copied else value)
        private_keras.assign(variables, values, CallGraph.assign)
        for layer in layers:
            layer.add_loss(next(remaining))
        for output in itertools.compress(tree.flatten(outputs), self._has_mask):
            keras_internals.put_mask(output, next(remaining))
        return outputs


def _identities(*lists):
    return [list(map(id, objects)) for objects in lists]


def record_calls(model):
    """Lets the graph of an ordinary Functional or Sequential model run through
    `CallGraphs`, from now on.

    `fit`, `evaluate` and `predict` stay Keras' own.
    """
    graph = keras_internals.functional_of(model)
    if "call" in vars(graph):
        return
    call = graph.call
    graphs = CallGraphs()
    # The layers, without what `compile` and `fit` set.
    layers = keras.Model(graph.inputs, graph.outputs, name=graph.name)

    @functools.wraps(call)
    def recorded_call(inputs, training=None, mask=None, **kwargs):
        # Keras leaves arrays to a model that has inputs by name.
        tensors = [
            ops.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf
            for leaf in tree.flatten(inputs)
        ]
        is_masked = any(leaf is not None for leaf in tree.flatten(mask))
        if (
            is_masked
            or kwargs
            or torch.compiler.is_compiling()
            or not all(map(torch.is_tensor, tensors))
        ):
            return call(inputs, training=training, mask=mask, **kwargs)
        structure = tree.map_leaves(lambda _: None, inputs)
        function = functools.partial(_call_with, call, structure, training)
        jit_compile = False if model.run_eagerly else "auto"
        return graphs.call(
            function, tensors, layers, (), (repr(structure), training), jit_compile
        )

    vars(graph)["call"] = recorded_call


def _call_with(call, structure, training, tensors):
    return call(tree.filled(structure, tensors), training=training)

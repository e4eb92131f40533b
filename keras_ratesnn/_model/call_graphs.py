"""Graphs of the calls of a model, on PyTorch, where Keras does not compile a training step.

The first calls of a kind run in eager mode. Then the operations of a call are recorded, and replayed from now on. Recording
takes about a second, and a replay skips the Python code of layers and methods.
"""

import collections
import dataclasses
import functools
import threading
import warnings
from typing import Any

from keras import ops

from keras_ratesnn._core import backend, keras_internals, tree
from keras_ratesnn._core.latest_settings import LatestSettings
from keras_ratesnn.gradients._run_method import run_method

EAGER_CALLS = {"auto": 32, True: 1}
"""Calls of a kind before one is recorded, by `jit_compile`. Recording takes as long as it saves in about a hundred calls."""

WORTH_RECORDING = 100
"""Replays after which a recording has paid off."""

GRAPHS_KEPT = 16
"""The number of kinds of calls that are remembered, for each of the settings."""

_recording = threading.Lock()


class CallGraphs:
    """Runs the calls of a model: in eager mode at first, then as graphs.

    Attributes:
        loops: What `backend.fusing` keeps for the model.
    """

    def __init__(self):
        self.loops: dict[Any, Any] = {}
        self._settings = LatestSettings()
        self._places = None if backend.CallGraph is None else backend.CallGraph.new_places()
        self._lock = threading.Lock()

    def call(self, method, run, settings, jit_compile):
        """The outputs of a run, possibly by a graph.

        Args:
            method: `GradientMethod`.
            run: `Run`.
            settings: Hashable: what else the call depends on, besides the network and the run.
            jit_compile: True, False or "auto", as in `SpikingModel.compile`: `True` records the second call of a kind and
                compiles the graph; `False` always runs in eager mode.
        """
        if backend.CallGraph is None or jit_compile is False or run.draws is not None:
            return run_method(method, run)
        with self._lock:
            latest = self._settings.present(
                lambda settings: settings.are_of(run.network, method),
                lambda patience: _Settings(run.network, method, patience, self._places),
            )
            tensors = latest.tensors(run)
            key = _key(run, tensors, settings, jit_compile)
            call = None if key is None else latest.call_of_kind(key)
        function = functools.partial(run_method, method)
        return function(run) if call is None else call(function, run, tensors, jit_compile)

    @property
    def graphs(self):
        """The graphs that are kept, a list of `backend.CallGraph`."""
        return [graph for settings in self._settings.kept for graph in settings.graphs]


class _Settings:
    """The attributes that a network and a training method have at one time, and the kinds of calls with these.

    Args:
        network: Keras model.
        method: `GradientMethod`.
        patience: Integer that multiplies the number of calls before a recording.
        places: The memory that the graphs share, see `backend.CallGraph`.
    """

    def __init__(self, network, method, patience, places):
        self._network, self._method, self._patience, self._places = network, method, patience, places
        self._variables = network.variables
        self._calls: collections.OrderedDict[Any, _Call] = collections.OrderedDict()
        self._attributes = backend.LayerAttributes(keras_internals.with_sublayers(network), [method])
        if keras_internals.is_rematerialized(network):
            self._attributes.unknown = "a layer was made in a keras.RematScope"

    def are_of(self, network, method):
        """Whether a network and a method have these settings now."""
        return self._network is network and self._method is method and self._attributes.unchanged()

    @property
    def graphs(self):
        """The recorded graphs of the calls, a list."""
        return [call.graph for call in self._calls.values() if call.graph is not None]

    @property
    def were_wasted(self):
        """Whether calls were recorded, but none was replayed often."""
        return bool(self.graphs) and not any(call.has_paid_off for call in self._calls.values())

    def tensors(self, run):
        """The tensors that a call depends on: the values of variables, the inputs, and their mask in time if they have one."""
        inputs = [tensor for tensor, _ in run.inputs]
        return [*keras_internals.values_of(self._variables), *inputs, *([] if run.mask is None else [run.mask])]

    def call_of_kind(self, key):
        """The `_Call` with a key, a new one if there is none."""
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call(self._attributes, self._variables, self._patience, self._places)
        self._calls.move_to_end(key)
        if len(self._calls) > GRAPHS_KEPT:
            self._calls.popitem(last=False)
        return call


def _key(run, tensors, settings, jit_compile):
    """What a graph depends on besides the attributes of layers, hashable, or `None` if that is not known.

    What is not in it: Python variables outside the layers that a custom layer reads, as in every compiled function.
    """
    signature = backend.CallGraph.signature(tensors)
    if signature is None or keras_internals.in_stateless_scope():
        return None
    if any(keras_internals.mask_of(tensor) is not None for tensor, _ in run.inputs):
        return None
    has_time = tuple(has_time for _, has_time in run.inputs)
    return signature, has_time, run.training, run.with_gradient, jit_compile, settings


class _Call:
    """A kind of call: counts the calls, and records one when it is due.

    Args:
        attributes: The `LayerAttributes` of the network.
        variables: List of its variables.
        patience: Integer that multiplies the number of calls before that.
        places: The memory that graphs share, see `backend.CallGraph`.
    """

    def __init__(self, attributes, variables, patience, places):
        self._attributes = attributes
        self._variables = variables
        self._patience = patience
        self._places = places
        self._calls = 0
        self._recorded = None
        self._is_recordable = True

    @property
    def graph(self):
        """The recorded graph, a `backend.CallGraph`, or `None`."""
        return None if self._recorded is None else self._recorded.graph

    @property
    def has_paid_off(self):
        return self._recorded is not None and self._calls >= WORTH_RECORDING

    def __call__(self, function, run, tensors, jit_compile):
        self._calls += 1
        if self._recorded is not None:
            return self._recorded.replay(tensors)
        is_due = self._calls > EAGER_CALLS[jit_compile] * self._patience
        # PyTorch can record only one function at a time.
        if not (is_due and self._is_recordable and _recording.acquire(blocking=False)):
            return function(run)
        try:
            return self._record(function, run, tensors, compiled=jit_compile is True)
        finally:
            _recording.release()

    def _record(self, function, run, tensors, compiled):
        """Runs a call in eager mode, and records it if possible."""
        try:
            if self._attributes.unknown is not None:
                raise ValueError(self._attributes.unknown)
            recorded = _Recorded(function, run, tensors, self._variables)
        except ValueError as error:
            self._give_up(run, error)
            return function(run)
        try:
            recorded.record(tensors, self._attributes.tensors, compiled, self._places)
            if not self._attributes.unchanged():
                raise ValueError("a layer changes its attributes when it is called")
            self._recorded, self._calls = recorded, 0
        # Anything may be raised where an operation depends on the values of tensors.
        except Exception as error:
            self._give_up(run, error)
        return recorded.first_results()

    def _give_up(self, run, error):
        self._is_recordable = False
        _warn_of_eager_mode(run.network.name, error)


class _Recorded:
    """A call as a function of tensors only, with the assignments of variables and the losses of layers among its results.

    The function runs once in eager mode, when this object is created.
    """

    def __init__(self, function, run, tensors, variables):
        layers = list(keras_internals.with_sublayers(run.network))
        has_time = [has_time for _, has_time in run.inputs]
        run = dataclasses.replace(run, inputs=[], mask=None)
        count, end = len(variables), len(variables) + len(has_time)
        self._name = run.network.name
        self.graph: Any = None
        self._targets: Any = None

        def of_tensors(tensors):
            values, inputs, mask = tensors[:count], tensors[count:end], tensors[end:]
            scope = keras_internals.CollectingScope(variables, values)
            given = {"inputs": list(zip(inputs, has_time, strict=True)), "mask": mask[0] if mask else None}
            with scope:
                outputs = function(dataclasses.replace(run, **given))
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
        self._is_copied = backend.CallGraph.share_memory(self._first, tensors)

    def record(self, tensors, settings, compiled, places):
        """Records the graph; raises an error if that is not possible."""
        name = f"model {self._name!r}"
        self.graph = backend.CallGraph(self._function, tensors, self._first, settings, compiled, name, places)
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
        keras_internals.assign(variables, values, backend.CallGraph.assign)
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
        "cannot be recorded. To turn this warning off: model.compile(..., jit_compile=False). The reason: "
        f"{type(error).__name__}: {reason}",
        stacklevel=2,
    )

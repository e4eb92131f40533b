"""Graphs of the calls of a model, on PyTorch, where Keras does not compile a training step.

The first calls of a kind run in eager mode. Then the operations of a call are recorded, and replayed from now on. Recording
takes about a second, and a replay skips the Python code of layers and methods.
"""

import collections
import dataclasses
import threading
import warnings
from typing import Any

import keras

from keras_ratesnn._core import backend, keras_internals, tree
from keras_ratesnn._layer_attributes import LayerAttributes

EAGER_CALLS = {"auto": 32, True: 1}
"""Calls of a kind before one is recorded, by `jit_compile`. Recording takes as long as it saves in about a hundred calls."""

GRAPHS_KEPT = 16
"""The number of kinds of calls that are remembered."""

_recording = threading.Lock()


class CallGraphs:
    """Runs the calls of a model: in eager mode at first, then as graphs."""

    def __init__(self):
        self._calls: collections.OrderedDict[Any, _Call] = collections.OrderedDict()
        self._network: keras.Model | None = None
        self._variables: list[keras.Variable] = []
        self._attributes = LayerAttributes([])
        self._lock = threading.Lock()

    def call(self, function, run, settings, jit_compile):
        """`function(run)`, possibly as a graph.

        Args:
            function: Function from a `Run` to a structure of tensors.
            run: `Run`.
            settings: Hashable: what else `function` depends on, besides the network and the run.
            jit_compile: True, False or "auto", as in `SpikingModel.compile`: `True` records the second call of a kind and
                compiles the graph; `False` always runs in eager mode.
        """
        if backend.CallGraph is None or jit_compile is False or run.draws is not None:
            return function(run)
        with self._lock:
            self._look_at(run.network)
            tensors = self._tensors_of(run)
            key = self._key(run, tensors, settings, jit_compile)
            call = None if key is None else self._of_kind(key)
        return function(run) if call is None else call(function, run, tensors, self._variables, jit_compile)

    def _look_at(self, network):
        """Notices changes of the network."""
        if network is self._network and self._attributes.unchanged():
            return
        self._network, self._variables = network, network.variables
        self._attributes = LayerAttributes(keras_internals.with_sublayers(network))
        if keras_internals.is_rematerialized(network):
            self._attributes.unknown = "a layer was made in a keras.RematScope"

    def _tensors_of(self, run):
        """The tensors that a call depends on: the values of variables, and the inputs."""
        with keras_internals.without_autocast():
            return [*(variable.value for variable in self._variables), *(tensor for tensor, _ in run.inputs)]

    def _key(self, run, tensors, settings, jit_compile):
        """What a graph depends on, hashable, or `None` if that is not known.

        What is not in it: Python variables outside the layers that a custom layer reads, as in every compiled function.
        """
        signature = backend.CallGraph.signature(tensors)
        if signature is None or keras_internals.in_stateless_scope():
            return None
        if any(keras_internals.mask_of(tensor) is not None for tensor, _ in run.inputs):
            return None
        has_time = tuple(has_time for _, has_time in run.inputs)
        modes = run.training, run.with_gradient, keras_internals.autocast_dtype(), jit_compile
        return signature, has_time, modes, settings, self._attributes

    def _of_kind(self, key):
        call = self._calls.setdefault(key, _Call(self._attributes))
        self._calls.move_to_end(key)
        if len(self._calls) > GRAPHS_KEPT:
            self._calls.popitem(last=False)
        return call


class _Call:
    """A kind of call: counts the calls, and records one when it is due.

    Args:
        attributes: The `LayerAttributes` of the network.
    """

    def __init__(self, attributes):
        self._attributes = attributes
        self._eager_calls = 0
        self._recorded = None
        self._is_recordable = True

    def __call__(self, function, run, tensors, variables, jit_compile):
        recorded = self._recorded or self._record(function, run, tensors, variables, jit_compile)
        return function(run) if recorded is None else recorded(tensors)

    def _record(self, function, run, tensors, variables, jit_compile):
        """The `_Recorded` call, or `None` if this call must run in eager mode."""
        self._eager_calls += 1
        is_due = self._eager_calls > EAGER_CALLS[jit_compile]
        # PyTorch can record only one function at a time.
        if not (is_due and self._is_recordable and _recording.acquire(blocking=False)):
            return None
        try:
            if self._attributes.unknown is not None:
                raise ValueError(self._attributes.unknown)
            recorded = _Recorded(function, run, tensors, variables, compiled=jit_compile is True)
            if not self._attributes.unchanged():
                raise ValueError("a layer changes its attributes when it is called")
        # Anything may be raised where an operation depends on the values of tensors.
        except Exception as error:
            self._is_recordable = False
            _warn_of_eager_mode(run.network.name, error)
            return None
        finally:
            _recording.release()
        self._recorded = recorded
        return recorded


class _Recorded:
    """A recorded call: a function of tensors only, with the assignments of variables and the losses of layers as results."""

    def __init__(self, function, run, tensors, variables, compiled):
        layers = list(keras_internals.with_sublayers(run.network))
        has_time = [has_time for _, has_time in run.inputs]
        self._places: Any = None

        def of_tensors(tensors):
            inputs = tensors[len(variables) :]
            run_of_tensors = dataclasses.replace(run, inputs=list(zip(inputs, has_time, strict=True)))
            scope = keras_internals.CollectingScope(variables, tensors[: len(variables)])
            with scope:
                outputs = function(run_of_tensors)
            assigned, added = scope.assigned(), scope.added(layers)
            before, self._places = self._places, tuple([place for place, _ in pairs] for pairs in (assigned, added))
            if before is not None and any(
                list(map(id, a)) != list(map(id, b)) for a, b in zip(before, self._places, strict=True)
            ):
                raise ValueError("it assigns other variables at each call")
            self._structure = tree.map_leaves(lambda _: None, outputs)
            return [*tree.flatten(outputs), *(value for _, value in assigned), *(loss for _, loss in added)]

        noise = backend.noise_state()
        try:
            outputs = of_tensors(tensors)
        finally:
            # The same numbers are drawn again by the first replay, or in eager mode.
            backend.set_noise_state(noise)
        self._graph = backend.CallGraph(of_tensors, tensors, outputs, compiled, f"model {run.network.name!r}")

    def __call__(self, tensors):
        results = iter(self._graph(tensors))
        outputs = tree.map_leaves(lambda _: next(results), self._structure)
        variables, layers = self._places
        for variable in variables:
            variable.assign(next(results))
        for layer in layers:
            layer.add_loss(next(results))
        return outputs


def _warn_of_eager_mode(name, error):
    reason = " ".join(str(error).split())[:300]
    warnings.warn(
        f"The calls of model {name!r} run in eager mode, which is slower but gives the same results, because their operations "
        "cannot be recorded. To turn this warning off: model.compile(..., jit_compile=False). The reason: "
        f"{type(error).__name__}: {reason}",
        stacklevel=2,
    )

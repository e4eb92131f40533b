"""The calls of the layers in a model: what each returns for a batch is recorded, or
compared and set to what is recorded."""

import collections
import contextlib
import dataclasses
import functools
import itertools
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import keras_internals
from keras_ratesnn._graph import Signal
from keras_ratesnn.gradients.nodes_for_neurons import with_membranes
from keras_ratesnn.gradients.observing import Observing
from keras_ratesnn.layer_kinds import NEURON
from keras_ratesnn.spiking_model import SpikingModel
from keras_ratesnn.testing._findings import to_numpy

RTOL = {"float16": 16 * 2.0**-10, "bfloat16": 16 * 2.0**-7}
"""How far rounding may move what one layer returns, relative to its largest output:
some units of the last place."""

RTOL_OF_WIDER = 1e-4
"""The same in wider dtypes, where sums of thousands of inputs and other algorithms for
other batch sizes count for more."""


class LayerDifference(NamedTuple):
    """A layer, by its name, and how far it is from what it returned for the same
    samples, as text."""

    layer: str
    values: str


class Watch:
    """Sees what layers get and return: it records that of the first batch, and compares
    other batches with it.

    What it compares it also sets to what is recorded, so that a layer gets the same
    inputs bit for bit: rounding before it cannot make its neurons spike.
    """

    def __init__(self, batch):
        self.batch = batch
        self.recorded, self.drawn = {}, {}
        self.begin(None)

    def begin(self, samples):
        """Begins a call of the model for these samples of the first batch, a list of
        integers; `None` for all, to record."""
        self.samples = samples
        self.calls: collections.Counter[int] = collections.Counter()
        self.differences = []

    def call(self, owner, name, method, *args, **kwargs):
        """The outputs that a layer is to return: calls its method, with its arguments,
        and judges it if these are as recorded."""
        key = self._next(owner)
        (args, kwargs), differences = self._as_recorded(
            (*key, "inputs"), (args, kwargs), keep=True
        )
        outputs = method(*args, **kwargs)
        # Inputs that differ come from the layer around it, which is judged when it
        # returns.
        return outputs if differences else self._judged(key, name, outputs)

    def seen(self, operation, outputs):
        """The outputs that replace those of an operation whose inputs are as recorded,
        a list."""
        return self._judged(self._next(operation), operation.name, outputs)

    def _next(self, owner):
        self.calls[id(owner)] += 1
        return id(owner), self.calls[id(owner)]

    def _judged(self, key, name, outputs):
        outputs, differences = self._as_recorded((*key, "outputs"), outputs)
        self.differences += [LayerDifference(name, values) for values in differences]
        return outputs

    def _as_recorded(self, key, structure, keep=False):
        """A structure with its tensors as they are recorded, and how they differed, a
        list of texts. With `keep`, tensors that differ stay as they are."""
        leaves = keras.tree.flatten(structure)
        where = [index for index, leaf in enumerate(leaves) if ops.is_tensor(leaf)]
        # In a loop that a backend traces there are no values: the layer around it is
        # compared.
        if not all(_has_values(leaves[index]) for index in where):
            return structure, []
        arrays = [_array(leaves[index]) for index in where]
        if self.samples is None:
            self.recorded[key] = arrays
        recorded = self.recorded.get(key, [])
        if len(recorded) != len(arrays):
            return structure, ["the tensors are not those of the whole batch"]
        differences = []
        for index, array, first in zip(where, arrays, recorded, strict=True):
            value, difference = array, None
            if self.samples is not None:
                dtype = keras.backend.standardize_dtype(leaves[index].dtype)
                value, difference = self._compared(array, first, dtype)
            if difference is not None:
                differences.append(difference)
            if difference is None or not keep:
                # Also what is recorded is a copy, since layers may change their inputs
                # in place.
                leaves[index] = _like(leaves[index], value)
        return keras.tree.pack_sequence_as(structure, leaves), differences

    def _compared(self, array, recorded, dtype):
        """The record of the samples, and how an array differs from it as text, `None`
        if not."""
        likeliest = None
        for rows in _rows_of(recorded, self.batch, self.samples):
            if rows.shape != array.shape:
                continue
            if not _far(array, rows, dtype).any():
                return rows, None
            if likeliest is None:
                likeliest = rows
        if likeliest is None:
            return (
                array,
                f"their shape is {array.shape}, and that of the whole batch "
                f"{recorded.shape}",
            )
        far = _far(array, likeliest, dtype)
        distances = np.abs(array.astype("float64") - likeliest)[far]
        largest = np.nan_to_num(distances, nan=np.inf).max()
        text = f"{far.sum()} of {far.size} values differ, by up to {largest:.3g}"
        return likeliest, text

    def stimulated(self, operation, spikes):
        """For spikes of a silent layer, `(batch * T, ...)`, others that are drawn for
        each sample, so that later layers act."""
        key = id(operation), self.calls[id(operation)]
        if self.samples is None and not _array(spikes).any():
            drawn = np.random.default_rng(0).random(spikes.shape) < 0.5
            self.drawn[key] = drawn * np.float64(operation.cell.spike_size)
        if key not in self.drawn:
            return spikes
        samples = list(range(self.batch)) if self.samples is None else self.samples
        return _like(spikes, next(_rows_of(self.drawn[key], self.batch, samples)))


def _like(tensor, array):
    """An array as a tensor with the dtype and the Keras mask of another."""
    made = ops.convert_to_tensor(
        array, dtype=keras.backend.standardize_dtype(tensor.dtype)
    )
    return keras_internals.masked_as(made, tensor)


def _has_values(tensor):
    try:
        ops.convert_to_numpy(tensor)
    except Exception:
        return False
    return True


def _array(tensor):
    # Layers may change their tensors in place.
    return np.array(to_numpy(tensor))


def _rows_of(array, batch, samples):
    """The parts of an array of a batch that may be these samples, with the likeliest
    first.

    The batch may be any axis, and be one with time or rows, before or after them. An
    array without a batch is the same for all.
    """
    for axis, size in enumerate(array.shape):
        if size % batch == 0:
            before, after = array.shape[:axis], array.shape[axis + 1 :]
            rows = size // batch
            shape = *before, len(samples) * rows, *after
            for place, parts in enumerate(((batch, rows), (rows, batch))):
                by_sample = array.reshape(*before, *parts, *after)
                yield by_sample.take(samples, axis + place).reshape(shape)
    yield array


def _far(array, expected, dtype):
    """Where two arrays differ by more than rounding."""
    differs = array != expected
    # Most values are the same bit for bit.
    if array.dtype.kind in "biu" or not differs.any():
        return differs
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):
        close = np.abs(array - expected) <= RTOL.get(dtype, RTOL_OF_WIDER) * largest
    return ~(close | (array == expected) | (np.isnan(array) & np.isnan(expected)))


@contextlib.contextmanager
def watched(model, watch):
    """A context in which `watch` sees every layer, graph node and `torch.nn.Module` in
    a model, and last the model itself.

    A `SpikingModel` runs all steps at once in it, as its network is watched layer by
    layer.
    """
    with contextlib.ExitStack() as stack:
        for owner, name, method in _methods_of(model):
            if isinstance(owner, SpikingModel):
                call_method = functools.partial(_observed, owner, _observing(watch))
                stack.enter_context(_set(owner, "_call_method", call_method))
            stack.enter_context(
                _set(owner, method, _seen(owner, name, getattr(owner, method), watch))
            )
        yield


def _methods_of(model):
    """The methods that compute in a model: `(owner, name, method)` for each."""
    layers = list(keras_internals.with_sublayers(model))
    # The observer of their `SpikingModel` sees these, which may run in a traced loop.
    inside: set[int] = set()
    for layer in layers:
        if isinstance(layer, SpikingModel):
            inside.update(map(id, _operations_of(layer.network)))
    operations = itertools.chain.from_iterable(map(_operations_of, layers))
    for operation in dict.fromkeys(operations):
        if id(operation) in inside:
            continue
        yield operation, operation.name, "call"
        if isinstance(operation, keras.layers.TorchModuleWrapper):
            for path, module in operation.module.named_modules():
                yield (
                    module,
                    f"{operation.name}/{path}" if path else operation.name,
                    "forward",
                )


def _operations_of(layer):
    """A layer, its sublayers, and the nodes of functions of `keras.ops` in their
    graphs."""
    for inner in keras_internals.with_sublayers(layer):
        yield inner
        graph = None
        if keras_internals.is_graph(inner):
            graph = keras_internals.functional_of(inner)
        if graph is not None:
            yield from graph.operations


def _seen(owner, name, method, watch):
    return functools.wraps(method)(functools.partial(watch.call, owner, name, method))


def _observing(watch):
    """The method of a `SpikingModel` whose operations a watch sees."""

    def observe(call, outputs):
        signals = outputs if isinstance(outputs, list) else [outputs]
        values = watch.seen(call.operation, [signal.value for signal in signals])
        if call.kind.role == NEURON:
            values[0] = watch.stimulated(call.operation, values[0])
        seen = [
            Signal(value, signal.static)
            for value, signal in zip(values, signals, strict=True)
        ]
        return seen if isinstance(outputs, list) else seen[0]

    # Silent neurons show nothing but their membranes.
    return Observing(observe, with_membranes(lambda call: True), programs={})


def _observed(model, method, run):
    """The results of `SpikingModel._call_method`, while a watch sees its
    operations."""
    return model._run_method(method, dataclasses.replace(run, step_mode="multi"))


@contextlib.contextmanager
def _set(owner, name, function):
    """A context in which an attribute of an object hides that of its class, past what
    Keras and PyTorch do to attributes."""
    attributes = vars(owner)
    before = attributes.get(name)
    attributes[name] = function
    try:
        yield
    finally:
        if before is None:
            del attributes[name]
        else:
            attributes[name] = before

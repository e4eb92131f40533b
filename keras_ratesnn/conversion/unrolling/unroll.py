r"""A network of integer spikes as a network of spikes of 0 and 1, with the same
outputs.

Each of T steps becomes D substeps. A neuron that emits the integer s_t in step t emits
S[t, d] = 1 in the substeps d = 1 … s_t and 0 in the others (thermometer code), so that
Σ_d S[t, d] = s_t. The network is copied operation by operation. On each edge there is
one of two kinds of signals:

* a signal of substeps has a value in each substep, whose sum over the substeps is the
  value of the original. Neurons emit such signals. What is linear keeps them so:
  W Σ_d S[t, d] = Σ_d W S[t, d], additions only. So do max pooling, as long as spikes
  are in thermometer order, Σ_d max_i S_i[t, d] = max_i Σ_d S_i[t, d], and a product,
  in one of its factors;
* a signal of frames has the value of the original in every substep. Inputs are such
  signals, and everything that is computed from them, whatever it is.

A sum over substeps makes frames of substeps. It comes before what must see the whole
value: a bias, batch normalisation, a neuron, all other factors of a product, an output,
and a signal of frames that is added. So a bias counts once in each step and not in each
substep, and the normalisation and the next neuron are those of the original. A layer
that mixes time steps takes of each step one substep of such frames: it sees steps,
whether it is linear or not. What is left, an operation on spikes that is not linear, is
refused: on frames it would be exact, but its inputs would not be spikes.

The sum of the substeps of a step exists in its first substep: a layer sees all substeps
of the layer before it. This is why the network runs layer by layer,
`step_mode="multi"`, and not substep by substep. Hardware runs it substep by substep,
with a delay of D substeps for each layer of neurons.

Source: Luo et al., "Integer-Valued Training and Spike-Driven Inference Spiking Neural
Network" (SpikeYOLO), ECCV 2024, for one layer with weights; here with biases,
normalisation, pooling, residual sums and products.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph, layer_kinds
from keras_ratesnn._core import keras_internals, names, time_axis, tree
from keras_ratesnn._core.backend import engine
from keras_ratesnn._graph import Signal
from keras_ratesnn._model.quantization import check_not_quantized
from keras_ratesnn.conversion._rebuild import input_like, new_copy
from keras_ratesnn.conversion._tasks.spiking_task import with_network
from keras_ratesnn.conversion.unrolling.slot_layers import (
    Bias,
    SlotCell,
    SlotMixing,
    SlotReadout,
    SlotSum,
)
from keras_ratesnn.layers import Neuron
from keras_ratesnn.spiking_model import SpikingModel, checked_model


def unroll(model: SpikingModel) -> SpikingModel:
    """Makes the network of spikes of 0 and 1 that gives the same outputs as a network
    with integer spikes, for inference.

    With neurons of up to D spikes in a step, each of the T steps becomes D time steps:
    the new model has `timesteps` T · D. Its neurons emit exactly 0 or 1: of s spikes
    one in each of the first s of the D steps. Inputs with time still have T frames. The
    weights are copied.

    Weights act on spikes by additions. Biases and batch normalisation act once in D
    steps, on the sum; `fold_batch_normalization` before this makes biases of
    normalisations. Max pooling, residual sums of spikes (SEW) and of currents, and
    products of two tensors of spikes, as in attention, of which one is summed first,
    are exact, too. Sums in another order are rounded otherwise: a membrane that is
    within rounding of where its integer changes may give another one.

    The new model runs layer by layer, `step_mode="multi"`. It predicts, also step by
    step (`SpikingModel.step` takes the frame of D time steps), and can be saved and
    exported; `analysis` reads its spikes. With `return_sequences=True` the output of a
    step of the original stands at each of its D steps. It is not trained: train the
    original.

    Delays and other layers that mix time steps (`keras_ratesnn.layers.TimeMixing`) and
    readouts see the integers, at steps of the original. Encoders, layers that take the
    time step and neurons that look ahead, as `PSN` does, are refused.

    Example:

    >>> inputs = keras.Input((2,))
    >>> x = keras_ratesnn.layers.ILIF(levels=4, name="neurons")(inputs)
    >>> network = keras.Model(inputs, keras.layers.Dense(3, bias_initializer="ones")(x))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=1)
    >>> binary = keras_ratesnn.deploy.unroll(model)
    >>> binary.timesteps
    4
    >>> x = np.array([[1.2, 3.0]], "float32")
    >>> keras_ratesnn.analysis.raster(binary, x, "neurons").spikes[0].T.tolist()
    [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]]
    >>> np.allclose(
    ...     model.predict(x, verbose=0), binary.predict(x, verbose=0), rtol=1e-6
    ... )
    True

    Args:
        model: A `SpikingModel` with neurons of integer spikes, such as
            `keras_ratesnn.layers.ILIF`.

    Returns:
        A new `SpikingModel` of T · D time steps, not compiled.

    Raises:
        TypeError: If `model` is not a `SpikingModel`.
        ValueError: If its neurons have no integer spikes, it is quantized, or an
            operation cannot be exact; the message names it.
    """
    network = checked_model(model).network
    problem = "`model` must not be quantized: quantized layers round their inputs."
    check_not_quantized(network, problem, "Unroll the model, then quantize it.")
    graph = _graph.as_graph(network)
    _graph.check_samples_apart(graph, "`unroll`")
    substeps = max(neuron.cell.levels for neuron in _graph.neurons_of(graph))
    if substeps == 1 or _graph.substeps_of(graph) > 1:
        raise ValueError(
            "`model` must have neurons with integer spikes, for example "
            f"keras_ratesnn.layers.ILIF(levels=4). Received: model {model.name!r}, "
            "whose neurons spike at most once in a step. It needs no unrolling."
        )
    rule = _UnrollingRule(substeps, _graph.paths_of(graph))
    inputs = keras.tree.map_structure(
        input_like, keras_internals.inputs_structure(graph)
    )
    signals = [_SubstepSignal(tensor) for tensor in _graph.match_inputs(graph, inputs)]
    with engine.no_gradient():
        outputs = tree.map_leaves(
            rule.frames, _graph.whole_of(graph).run(signals, rule, training=None)
        )
    unrolled = keras.Model(inputs, outputs, name=network.name)
    return with_network(
        model,
        unrolled,
        timesteps=model.timesteps * substeps,
        gradient="bptt",
        step_mode="multi",
    )


_NEEDS_STEP = "what it computes depends on the time step, which here is a substep."


class _SubstepSignal(Signal):
    """A symbolic tensor.

    Args:
        value: KerasTensor.
        of: String, the name of the operation that it comes from, if it is a signal of
            substeps. Defaults to `None`.
        ordered: Boolean, whether it has only two values, 0 and another one, in
            thermometer order. Defaults to `False`.
    """

    __slots__ = ("of", "ordered")

    def __init__(self, value, of=None, ordered=False):
        super().__init__(value)
        self.of = of
        self.ordered = ordered

    @property
    def in_substeps(self):
        """Whether it is a signal of substeps instead of frames."""
        return self.of is not None


class _UnrollingRule:
    """Copies the operations of a network, in the order of a walk.

    Args:
        substeps: Integer D.
        paths: Dict of operations to their names in the network.
    """

    def __init__(self, substeps, paths):
        self.substeps = substeps
        self.paths = paths
        self.copies = {}
        self.without = {}
        self.with_weights = set()
        self.sums = {}
        self.names = set()

    def __call__(self, call):
        kind = call.kind
        if kind.role == layer_kinds.ENCODER:
            raise self._refused(
                call,
                f"{_NEEDS_STEP} Leave it out, and pass its outputs as frames, (batch, "
                "time, ...).",
            )
        cls: Any = type(call.operation)
        if layer_kinds.wants_time_step(cls):
            raise self._refused(
                call,
                f"{_NEEDS_STEP} Train with a layer that does the same at every step.",
            )
        if kind.role == layer_kinds.NEURON and len(call.inputs) != 1:
            raise self._refused(
                call,
                f"it takes one input, and here {len(call.inputs)}. Call it on its "
                "input alone.",
            )
        if kind.role == layer_kinds.NEURON:
            return self._neuron(call)
        if kind.role in (layer_kinds.TIME_MIXING, layer_kinds.READOUT):
            return self._mixing(
                call,
                SlotMixing if kind.role == layer_kinds.TIME_MIXING else SlotReadout,
            )
        substep_signals = [signal for signal in call.inputs if signal.in_substeps]
        if (
            not substep_signals
            or kind.role == layer_kinds.TIME_MEAN
            or kind.normalization is not None
        ):
            return self._on_frames(call)
        if kind.keeps_order:
            return (
                self._on_substeps(call, ordered=True)
                if substep_signals[0].ordered
                else self._on_frames(call)
            )
        if kind.random_mask:
            return self._on_substeps(call, ordered=substep_signals[0].ordered)
        if kind.multilinear and len(call.inputs) > 1:
            return self._on_substeps(call, factor=substep_signals[0])
        # With an activation of its own, which comes after the sum over substeps, a
        # layer is not affine.
        is_affine = (
            layer_kinds.kind_of_class(cls).affine or kind.moves or kind.multilinear
        )
        if kind.activation is None and is_affine:
            return (
                self._linear(call)
                if len(substep_signals) == len(call.inputs)
                else self._on_frames(call)
            )
        raise self._refused(
            call,
            "it is applied to spikes and is not linear. Put neurons after it, or "
            "before what it sees.",
        )

    def frames(self, signal):
        """A signal as one of frames: its tensor."""
        if not signal.in_substeps:
            return signal.value
        if signal not in self.sums:
            name = self._unique(f"{signal.of}_sum")
            self.sums[signal] = SlotSum(
                self.substeps, name=name, dtype=signal.value.dtype
            )(signal.value)
        return self.sums[signal]

    def _neuron(self, call):
        neuron = call.operation
        cell = neuron.cell_in_time(False)
        if cell is not neuron.cell:
            raise self._refused(
                call,
                "its thresholds are those of running means. Train without "
                "threshold_stabilizer.",
            )
        if cell.sees_all_steps:
            raise self._refused(
                call,
                "its spikes depend on inputs of later steps. Use SlidingPSN, or "
                "MaskedPSN(mask=1.0).",
            )
        if neuron not in self.copies:
            slot_cell = SlotCell(
                new_copy(cell, {}), self.substeps, name="cell", dtype=cell.dtype_policy
            )
            copy = Neuron(
                slot_cell,
                name=self._unique(self._name(neuron)),
                dtype=neuron.dtype_policy,
            )
            copy.build(neuron.get_build_config()["input_shape"])
            copy.set_weights(neuron.get_weights())
            self.copies[neuron] = copy
        spikes = self.copies[neuron](self.frames(call.inputs[0]))
        if cell.spike_size != 1.0:
            name = self._unique(f"{self._name(neuron)}_size")
            spikes = keras.layers.Rescaling(
                cell.spike_size, name=name, dtype=neuron.dtype_policy
            )(spikes)
        return _SubstepSignal(spikes, self._name(neuron), ordered=True)

    def _mixing(self, call, substep_class):
        layer, name = call.operation, self._name(call.operation)
        if layer not in self.copies:
            self.copies[layer] = substep_class(
                new_copy(layer, {}),
                self.substeps,
                name=self._unique(name),
                dtype=layer.dtype_policy,
            )
        return _SubstepSignal(self._run(self.copies[layer], call, self.frames))

    def _on_frames(self, call):
        return tree.map_leaves(
            _SubstepSignal, self._run(self._copy(call), call, self.frames)
        )

    def _on_substeps(self, call, ordered=False, factor=None):
        """An operation whose signals are all of substeps, or a product that is linear
        in its `factor`, one of its signals."""
        factors = [factor]

        def tensor(signal):
            if factor is None:
                return signal.value
            # A square has the same signal twice.
            return factors.pop().value if [signal] == factors else self.frames(signal)

        outputs = self._run(self._copy(call), call, tensor)
        return tree.map_leaves(
            lambda output: _SubstepSignal(output, self._name(call.operation), ordered),
            outputs,
        )

    def _linear(self, call):
        """An operation on signals of substeps alone that is linear but for a bias and
        an activation, which follow the sum."""
        name = self._name(call.operation)
        changes = _without_bias_and_activation(call.operation)
        copy = self._copy(call, changes)
        outputs = self._run(copy, call, lambda signal: signal.value)
        # A cast to integers or booleans is not linear, nor is an operation with values
        # where there are no spikes: it adds something else.
        all_float = all(
            time_axis.is_float(output.dtype) for output in tree.flatten(outputs)
        )
        if not all_float or any(
            np.any(value) for value in self._value(copy, call, ops.zeros)
        ):
            return self._on_frames(call)
        ordered = self._keeps_order(call, copy)
        linear = tree.map_leaves(
            lambda output: _SubstepSignal(output, name, ordered), outputs
        )
        after = self._after_sum(call.operation, changes)
        if not after:
            return linear
        frames = self.frames(linear)
        for layer in after:
            frames = layer(frames)
        return _SubstepSignal(frames)

    def _keeps_order(self, call, copy):
        """Whether the output has the order of the only input: the operation moves it,
        and may scale all of it alike."""
        if not call.kind.moves or len(call.inputs) > 1 or not call.inputs[0].ordered:
            return False
        return all(
            np.all(value == value.flat[0])
            for value in self._value(copy, call, ops.ones)
        )

    def _value(self, copy, call, fill):
        """The values of an operation where all elements of its inputs are the same: a
        list of arrays."""

        def tensor(signal):
            return fill(
                [1 if size is None else size for size in signal.value.shape],
                dtype=signal.value.dtype,
            )

        values = self._run(copy, call, tensor)
        return [
            np.asarray(ops.convert_to_numpy(ops.cast(value, "float32")))
            for value in tree.flatten(values)
        ]

    def _copy(self, call, changes=None):
        """The copy of an operation with these changes of its config, the same in all
        such calls."""
        operation, changes = call.operation, changes or {}
        key = operation, bool(changes)
        if key not in self.copies:
            name = (
                {"name": self._unique(self._name(operation))}
                if isinstance(operation, keras.layers.Layer)
                else {}
            )
            copy = self.copies[key] = new_copy(operation, {**changes, **name})
            if {"use_bias", "bias_axes"} & changes.keys():
                self.without[copy] = operation.bias
        return self.copies[key]

    def _after_sum(self, operation, changes):
        """The layers of what was left out of the copy of a layer by these changes: its
        bias and its activation."""
        key = operation, "after"
        if key not in self.copies:
            name, after = self._name(operation), []
            policy = getattr(operation, "dtype_policy", None)
            if "use_bias" in changes or "bias_axes" in changes:
                shape = tuple(operation.bias.shape)
                if getattr(operation, "data_format", None) == "channels_first":
                    shape = (*shape, *(1,) * operation.rank)
                after.append(
                    Bias(shape, name=self._unique(f"{name}_bias"), dtype=policy)
                )
                after[-1].build((None, *shape))
                after[-1].set_weights(
                    [np.reshape(ops.convert_to_numpy(operation.bias), shape)]
                )
            if "activation" in changes:
                unique = self._unique(f"{name}_activation")
                after.append(
                    keras.layers.Activation(
                        operation.activation, name=unique, dtype=policy
                    )
                )
            self.copies[key] = after
        return self.copies[key]

    def _run(self, copy, call, tensor_of):
        """Calls the copy of an operation with its arguments, and the tensor
        `tensor_of(signal)` of each signal."""

        def tensor(leaf):
            return tensor_of(leaf) if isinstance(leaf, Signal) else leaf

        args, kwargs = tree.map_leaves(tensor, (call.args, call.kwargs))
        # The run does not know whether it trains.
        kwargs = {
            name: value
            for name, value in kwargs.items()
            if (name, value) != ("training", None)
        }
        outputs = copy(*args, **kwargs)
        if isinstance(copy, keras.layers.Layer) and copy not in self.with_weights:
            weights = [
                weight
                for weight in call.operation.weights
                if weight is not self.without.get(copy)
            ]
            copy.set_weights([ops.convert_to_numpy(weight) for weight in weights])
            self.with_weights.add(copy)
        return outputs

    def _name(self, operation):
        return self.paths[operation].replace("/", "_")

    def _unique(self, name):
        """A name that no other layer has."""
        return names.take(name, self.names)

    def _refused(self, call, reason):
        operation = call.operation
        return ValueError(
            "`model` must be a network whose operations on integer spikes are exact "
            "on single spikes. Received: "
            f"{self.paths.get(operation, operation.name)!r} of type "
            f"{type(operation).__name__}: {reason}"
        )


def _without_bias_and_activation(operation):
    """The changes in the config of an operation that leave out its bias and its
    activation, if it has them."""
    config = operation.get_config() if isinstance(operation, keras.layers.Layer) else {}
    left_out = {"use_bias": False, "bias_axes": None, "activation": "linear"}
    return {
        name: value
        for name, value in left_out.items()
        if config.get(name) not in (None, value)
    }

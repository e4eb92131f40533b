"""A model of a model: it predicts membranes and spikes of layers at each time step
beside the outputs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, registry, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn._graph import Part, PlannedCall, Slot
from keras_ratesnn._model.call_inputs import starting_at
from keras_ratesnn._model.method_calls import run_method, value_over_time
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.gradients.network import Network, in_time, plain
from keras_ratesnn.gradients.nodes_for_neurons import membrane_slot, with_membranes
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.layer_kinds import NEURON, READOUT, kind_of
from keras_ratesnn.spiking_model import SpikingModel, checked_model


def observed(
    model: SpikingModel, membranes: Sequence[str] = (), spikes: Sequence[str] = ()
) -> "ObservedModel":
    """A model that also predicts membranes and spikes of layers, at every time step.

    As `keras.Model(model.inputs, layer.output)` shows the features of a layer, this
    shows what is inside layers of neurons. The new model shares the network and its
    weights; the other one is not changed.

    Example:

    >>> inputs = keras.Input((1,))
    >>> network = keras.Model(inputs, keras_ratesnn.layers.IF(name="neurons")(inputs))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> found = observed(model, membranes=["neurons"], spikes=["neurons"]).predict(
    ...     np.array([[0.75]]), verbose=0
    ... )
    >>> found["output"].tolist(), found["membrane"]["neurons"][0, :, 0].tolist()
    ([[0.75]], [0.75, 1.5, 1.25, 1.0])

    Args:
        model: A `SpikingModel`.
        membranes: List of the names of neuron layers, or of layers like `LeakyReadout`.
            Defaults to none.
        spikes: List of the names of neuron layers. Defaults to none. The second call of
            a shared layer is named "NAME (2)".

    Returns:
        An `ObservedModel`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, or names are not strings in a
            list.
        ValueError: If there is no such layer.
    """
    checked_model(model)
    return ObservedModel(
        model.network,
        model.timesteps,
        "bptt",
        model.step_mode,
        model.return_sequences,
        model.mask_value,
        membranes=membranes,
        spikes=spikes,
        name=f"{model.name}_observed",
        dtype=model.dtype_policy,
    )


@registry.register
class ObservedModel(ConfigOfAttributes, SpikingModel):
    """A `SpikingModel` for inference whose outputs are a dict, made by `observed`.

    The dict has the outputs of the network as `"output"`, and as `"membrane"` and
    `"spikes"`, if there are any, a dict of tensors `(batch, timesteps, ...)` by the
    names of the layers: the membranes v_t after the input and before the reset, of
    neurons in float32 or wider, and the spikes. At steps that are padding they are 0.
    `step` returns the outputs alone.

    Args:
        network: Keras model of one time step, that of the observed `SpikingModel`.
        *args: The arguments of `SpikingModel` after the network, in its order.
        membranes: Names of neuron layers, see `observed`. Defaults to `()`.
        spikes: Names of neuron layers, see `observed`. Defaults to `()`.
        **kwargs: Arguments of `SpikingModel`, by their names.
    """

    in_config = "membranes", "spikes"

    def __init__(
        self,
        network: keras.Model,
        *args: Any,
        membranes: Sequence[str] = (),
        spikes: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(network, *args, **kwargs)
        calls = named_calls(network)
        self.membranes = checks.names("membranes", membranes, calls)
        self.spikes = checks.names(
            "spikes",
            spikes,
            [name for name in calls if kind_of(calls[name].operation).role == NEURON],
        )

    def _wanted(self) -> dict[str, dict[str, PlannedCall]]:
        """The calls of layers that are wanted, by their names."""
        calls = named_calls(self.network)
        names_of_kinds = {"membrane": self.membranes, "spikes": self.spikes}
        return {
            kind: {name: calls[name] for name in names}
            for kind, names in names_of_kinds.items()
            if names
        }

    def _run_method(self, method: GradientMethod, run: Run) -> Structure:
        emitting = _Emitting(self._wanted())
        return {"output": run_method(emitting, run), **emitting.emissions}

    def call(
        self, inputs: Structure, training: bool | None = None, mask: Structure = None
    ) -> Structure:
        if training:
            self.fit()
        return super().call(inputs, False, mask)

    def _in_order_of_inputs(
        self, outputs: dict[str, Structure], first: Tensor
    ) -> Structure:
        observed = dict(outputs)
        output = super()._in_order_of_inputs(observed.pop("output"), first)
        observed = keras.tree.map_structure(
            lambda steps: starting_at(-first, steps), observed
        )
        return {"output": output, **observed}

    def compute_output_spec(
        self, inputs: Structure, training: bool | None = None, mask: Structure = None
    ) -> Structure:
        outputs = super().compute_output_spec(inputs, training, mask)
        batch = keras.tree.flatten(outputs)[0].shape[0]

        def spec(kind, call):
            (output,) = keras.tree.flatten(call.operation.output)
            is_wide = kind == "membrane" and kind_of(call.operation).role == NEURON
            dtype = (
                time_axis.accumulation_dtype(output.dtype) if is_wide else output.dtype
            )
            return keras.KerasTensor(
                (batch, self.timesteps, *output.shape[1:]), dtype=dtype
            )

        specs = {"output": outputs}
        for kind, calls in self._wanted().items():
            specs[kind] = {name: spec(kind, call) for name, call in calls.items()}
        return specs

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(
            "An ObservedModel only predicts. Received: training or evaluation of "
            f"{self.name!r}. Train and evaluate the model that it was made of: the two "
            "have the same weights."
        )

    evaluate = train_on_batch = test_on_batch = fit


def named_calls(network: keras.Model) -> dict[str, PlannedCall]:
    """The calls of the neuron layers and readouts of a network, in order, by distinct
    names."""
    names = _graph.Names()
    calls = _graph.whole_of(_graph.as_graph(network)).calls
    return {
        names.add(call.operation.name): call
        for call in calls
        if kind_of(call.operation).role in (NEURON, READOUT)
    }


class _Emitting(GradientMethod):
    """The plain network, which also emits membranes and spikes.

    Args:
        wanted: What `ObservedModel._wanted` returns.

    Attributes:
        emissions: The same, with tensors `(batch, T, ...)` by the names of the layers.
    """

    runs_means = True

    def __init__(self, wanted: dict[str, dict[str, PlannedCall]]) -> None:
        self.wanted = wanted
        self.emissions: dict[str, dict[str, Tensor]] = {kind: {} for kind in wanted}

    def call(self, run: Run) -> Structure:
        part, *_ = run.parts
        here = {call.key for call in part.calls}
        emitted = {
            kind: {
                name: _slot(kind, call)
                for name, call in calls.items()
                if call.key in here
            }
            for kind, calls in self.wanted.items()
        }
        if not any(emitted.values()):
            return plain(run)
        watched = {call.key for call in self.wanted.get("membrane", {}).values()}
        nodes = with_membranes(lambda call: call.key in watched)
        with_emitted = Part(
            part.calls, part.inputs, {"outputs": part.outputs, "emitted": emitted}
        )
        run_of_steps = dataclasses.replace(
            run, parts=(with_emitted, None, None), return_sequences=True
        )
        results = in_time(Network(run_of_steps, nodes))
        for kind, layers in results["emitted"].items():
            self.emissions[kind].update(layers)
        if run.return_sequences:
            return results["outputs"]
        return tree.map_leaves(
            lambda steps: value_over_time(steps, run.mask, "mean"), results["outputs"]
        )


def _slot(kind, call):
    """The slot of what a call of a layer emits: the membranes of neurons, or else its
    output, which is the membrane of a readout."""
    if kind == "membrane" and kind_of(call.operation).role == NEURON:
        return Slot(membrane_slot(call))
    return call.outputs[0]

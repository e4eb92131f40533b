"""Requirements on networks that run over time, with errors that say what to do."""

from typing import Any

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn._graph.planning import parts_of, plan_of
from keras_ratesnn.layer_kinds import (
    CELL,
    NEURON,
    READOUT,
    TIME_MEAN,
    TIME_MIXING,
    kind_of,
    seeds_of,
)

_SEEN_BY_THE_WALK = NEURON, CELL, TIME_MEAN, TIME_MIXING, READOUT


def check_network(network):
    """Raises ValueError if a network cannot be run over time.

    It must have neurons, all of them in the plan. No layer may mask time steps.
    Operations after time means and readouts must neither need time steps nor have an
    input that follows none of these.

    Args:
        network: A Functional model, see `as_graph`.
    """
    if not neurons_of(network):
        raise ValueError(
            "`network` must contain a neuron layer. Received: "
            f"network={network.name!r} without any. Put keras_ratesnn.layers.LIF() "
            "after its layers, instead of their activations."
        )
    # Making the plan checks what follows time means.
    before, _, _ = parts_of(network)
    _check_masks_rows(before.calls)


def _check_masks_rows(calls):
    """Raises ValueError if a call of a time step masks whole steps of samples, of which
    the neurons would know nothing."""
    for call in calls:
        operation = call.operation
        masks = [keras_internals.mask_of(output.spec) for output in call.outputs]
        if any(mask is not None and len(mask.shape) == 1 for mask in masks):
            raise ValueError(
                "`network` must not mask time steps: a layer of it sees one step, and "
                "the neurons would run on through what it masks. Received: layer "
                f"{operation.name!r} of type {type(operation).__name__}, whose mask "
                "has the shape (batch,). Leave it out, and say what is padding by "
                "SpikingModel(network, timesteps, mask_value=0.0), by model(x, "
                "mask=mask), or by a keras.layers.Masking before the model. Masks of "
                "rows in a step, (batch, rows), may stay."
            )


def neurons_of(network):
    """All neuron layers of a network, including those of nested models, in the order of
    their first calls.

    Args:
        network: A Functional model, see `as_graph`.

    Raises:
        ValueError: If a layer hides neurons inside, which are not in the plan.
    """
    return _search(network, _is_neuron)


def _is_neuron(operation):
    role = kind_of(operation).role
    if role == NEURON:
        return True
    if isinstance(operation, keras.layers.Layer):
        inside = keras_internals.with_sublayers(operation)
        # A layer that mixes time steps has all of them, and may run others that do; so
        # may a readout.
        seen = [
            wanted
            for wanted in _SEEN_BY_THE_WALK
            if role != wanted or wanted not in (TIME_MIXING, READOUT)
        ]
        hidden = [
            layer
            for layer in inside
            if kind_of(layer).role in seen and layer is not operation
        ]
        if hidden:
            raise ValueError(
                "`network` must not hide neurons or time means inside other layers. "
                f"Received: layer {operation.name!r} of type "
                f"{type(operation).__name__}, which contains {hidden[0].name!r} of "
                f"type {type(hidden[0]).__name__}: it could not be run over time. Put "
                "it after the layer, as a separate layer: Dense(10) and then LIF(), "
                "not Dense(10, activation=LIF()); or make the outer layer a Functional "
                "or Sequential model."
            )
    return False


def _search(network, wanted):
    """The operations of a network and of its nested models for which a function is
    true, in order, a list.

    They are remembered, since a stream asks at each step.
    """
    plan = plan_of(network)
    if wanted not in plan.matching:
        operations = dict.fromkeys(call.operation for call in plan.whole.calls)
        plan.matching[wanted] = list(filter(wanted, operations))
    return plan.matching[wanted]


def couples_samples(network):
    """Whether a sample depends on those before it in the batch. There is no gradient
    then.

    Args:
        network: A Functional model, see `as_graph`.
    """
    return any(neuron.cell.couples_samples for neuron in neurons_of(network))


def check_samples_apart(network, wanted):
    """Raises ValueError if a sample depends on those before it in the batch.

    Args:
        network: A Functional model, see `as_graph`.
        wanted: String, what cannot be done then.
    """
    for neuron in neurons_of(network):
        if neuron.cell.couples_samples:
            raise ValueError(
                f"{wanted} needs samples that do not depend on each other. Received: "
                f"layer {neuron.name!r}, whose membranes pass from each sample of a "
                "batch to the next. Build the network with shared_membrane=False."
            )


def check_padding(network):
    """Raises ValueError if steps of single samples cannot be padding, because neurons
    depend on those of other samples.

    Args:
        network: A Functional model, see `as_graph`.
    """
    check_samples_apart(network, "A mask of time steps")
    for neuron in neurons_of(network):
        if neuron.couples_neurons:
            raise ValueError(
                f"Time steps cannot be masked for layer {neuron.name!r}, whose "
                "thresholds depend on the membranes of all samples "
                "(threshold_stabilizer=True). Leave the stabilizer out, or train on "
                "sequences of equal length."
            )


def check_sequences(network):
    """Raises ValueError if an output of the network follows a time mean, so that it has
    no value for each step."""
    mean = first_time_mean(network)
    if mean is not None:
        raise ValueError(
            "`return_sequences` must be False for a network with time means, which "
            "has no output at each step. Received: return_sequences=True, and a "
            f"TimeMean named {mean.name!r}."
        )


def first_time_mean(network):
    """The first layer that takes means over time, or `None`."""
    return next(iter(_search(network, _is_time_mean)), None)


def _is_time_mean(operation):
    return kind_of(operation).role == TIME_MEAN


def first_readout_without_mean(network):
    """The first readout because of which the output is not the time mean of the outputs
    at each step, or `None`."""
    _, readouts, after = parts_of(network)
    layers = [] if readouts is None else [call.operation for call in readouts.calls]
    return next(
        (readout for readout in layers if readout.value != "mean" or after.calls), None
    )


def check_mean_of_steps(network):
    """Raises ValueError unless the output is the time mean of the outputs at each
    step."""
    mean, readout = first_time_mean(network), first_readout_without_mean(network)
    if mean is not None:
        raise ValueError(
            "`model` must have an output at each step. Received: a network with a "
            f"TimeMean named {mean.name!r}."
        )
    if readout is not None:
        raise ValueError(
            "`model` must have an output that is the mean of its outputs at each step. "
            "Received: a network with the readout "
            f"{readout.name!r} with value={readout.value!r}, and what follows it. Let "
            'it end with a LeakyReadout(value="mean").'
        )


def substeps_of(network):
    """How many time steps of a network are the substeps of one longer step; 1 if they
    are none.

    Args:
        network: A Functional model, see `as_graph`.
    """
    counts: Any = (
        (kind_of(layer).substeps, layer) for layer in _search(network, _has_substeps)
    )
    return max((substeps(layer) for substeps, layer in counts), default=1)


def frames_of(network, timesteps):
    """How many frames an input with time has: one for each time step, or for all
    substeps of a step, see `substeps_of`."""
    return timesteps // substeps_of(network)


def check_trainable(network):
    """Raises ValueError if a network has no gradient, since it has substeps or samples
    depend on each other, or a wrong one."""
    check_samples_apart(network, "Training")
    for layer in _search(network, _draws_again):
        raise ValueError(
            "Keras repeats a layer made in a keras.RematScope with other random "
            f"numbers: its gradient would be wrong. Received: layer {layer.name!r} of "
            f"type {type(layer).__name__}, which draws some. Make it outside of the "
            "scope."
        )
    if substeps_of(network) > 1:
        raise ValueError(
            "An unrolled model cannot be trained: its neurons have no gradient. "
            f"Received: network {network.name!r} with {substeps_of(network)} substeps "
            "in a step. Train the model first, then unroll it."
        )


def _draws_again(operation):
    """Whether Keras calls a layer again for the backward pass, which draws random
    numbers; masks are drawn outside of it."""
    return (
        bool(seeds_of(operation))
        and not kind_of(operation).random_mask
        and keras_internals.is_rematerialized(operation)
    )


def _has_substeps(operation):
    return kind_of(operation).substeps is not None


def check_timesteps(network, timesteps):
    """Raises ValueError if a layer of a network or of its nested models has weights for
    another number of time steps, or substeps.

    Args:
        network: A Functional model, see `as_graph`.
        timesteps: Integer T.
    """
    substeps = substeps_of(network)
    if timesteps % substeps:
        raise ValueError(
            f"`timesteps` must be a multiple of {substeps}, the number of substeps in "
            f"a step of this unrolled network. Received: timesteps={timesteps}."
        )
    for layer, most, exact in _limits(network):
        if timesteps > most or (exact and timesteps != most):
            remedy = "Create the layer for more steps, or run the network for fewer."
            if exact:
                remedy = (
                    "Create the layer for this number, or use neurons that run "
                    "for any number of steps, for example "
                    "keras_ratesnn.layers.SlidingPSN."
                )
            raise ValueError(
                f"`timesteps` must be {'' if exact else 'at most '}{most}, the number "
                f"of time steps that layer {layer.name!r} of type "
                f"{type(layer).__name__} has weights for. Received: "
                f"timesteps={timesteps}. {remedy}"
            )


def check_length(network, steps):
    """Raises ValueError if a stream has become longer than a layer has weights for.

    Args:
        network: A Functional model, see `as_graph`.
        steps: Integer, the number of steps of the stream.
    """
    substeps = substeps_of(network)
    for layer, most, _ in _limits(network):
        if steps > most // substeps:
            raise ValueError(
                f"{type(layer).__name__} {layer.name!r} has weights for "
                f"{most // substeps} steps. Received: step {steps}. Start a new "
                "sequence with reset_state(), or create the layer with more timesteps."
            )


def _limits(network):
    """The layers that have weights for each time step: the layer, their number, and
    whether it cannot run for fewer."""
    for layer in _search(network, _is_limited):
        kind = kind_of(layer)
        most: Any = kind.most_timesteps
        yield (
            layer,
            most(layer),
            kind.exact_timesteps is not None and kind.exact_timesteps(layer),
        )


def _is_limited(operation):
    most = kind_of(operation).most_timesteps
    return most is not None and most(operation) is not None


def check_steps(network, wanted, all_substeps=False):
    """Raises ValueError if neurons of a network need all time steps at once, or a layer
    all substeps of a step.

    Args:
        network: A Functional model, see `as_graph`.
        wanted: String, what asks for single steps.
        all_substeps: Boolean, whether that runs all substeps of a step at once.
            Defaults to `False`.
    """
    if substeps_of(network) > 1 and not all_substeps:
        raise ValueError(
            f"{wanted} must not run an unrolled network one time step at a time. "
            f"Received: network {network.name!r}, in which a layer needs all "
            f"{substeps_of(network)} substeps of the layer before it. Use the model "
            "that was unrolled: its outputs are the same."
        )
    for neuron in neurons_of(network):
        if neuron.cell.sees_all_steps:
            raise ValueError(
                f"{wanted} runs one time step after the other. Received: layer "
                f"{neuron.name!r} of type "
                f"{type(neuron).__name__}, whose spikes depend on inputs of later "
                "steps. Use "
                'step_mode="multi", or SlidingPSN, or MaskedPSN with mask=1.0.'
            )

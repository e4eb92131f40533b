"""Converts Keras networks to spiking networks: neurons replace hidden activations."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, progress
from keras_ratesnn._core.annotations import Config, StepModeName, Structure
from keras_ratesnn._core.progress import Verbosity
from keras_ratesnn._model.quantization import unquantized
from keras_ratesnn.conversion import _calibration
from keras_ratesnn.conversion._hidden_activations import (
    HIDDEN,
    find_activations,
    function_of,
    is_only_activation,
)
from keras_ratesnn.conversion._inside_layers import look_inside
from keras_ratesnn.conversion._mean_shifts import mean_shifts
from keras_ratesnn.conversion._rebuild import Rebuild, Replacement
from keras_ratesnn.conversion._report import Change, ConversionReport
from keras_ratesnn.conversion._tasks.spiking_task import spiking_model
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layer_kinds import READOUT, TIME_MEAN, kind_of
from keras_ratesnn.layers import IF, Neuron
from keras_ratesnn.spiking_model import SpikingModel

LEFT = "left by `neuron`"


def spikify(
    model: keras.Model,
    timesteps: int,
    neuron: Callable[..., Neuron | None] | None = None,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    calibrate: Structure = None,
    percentile: float = 95.0,
    verbose: Verbosity = "auto",
) -> SpikingModel:
    """Converts a Keras model to a spiking one: neurons replace its hidden activations.

    All hidden activations are replaced: layers (ReLU, PReLU, Activation, ...),
    `activation=` arguments, and functions of `keras.ops` and `keras.activations` in the
    graph, also in nested models. These activations are kept: gates (the sigmoid of a
    squeeze-and-excite block), softmax, activations inside recurrent and attention
    layers, and activations that feed only the model's outputs;
    `keras_ratesnn/conversion/_hidden_activations.py` has the exact rule. Weights keep
    their values, and layers keep their names. A neuron layer has the name of the
    activation that it replaces; the neurons after a layer `conv` with `activation=` are
    named `conv_neuron`. The original model is not changed.

    Without `calibrate`, neurons keep the thresholds with which they are created, and
    the network must be trained from scratch. With `calibrate`, a trained network
    becomes a working spiking network that needs only a few more epochs. The threshold
    of each neuron is set to a percentile of the outputs of the activation that it
    replaces, a fixed scale before and after the neurons keeps the following layers in
    their original units, and a constant current makes their mean output that of the
    activation (not in networks that can only run in single-step mode). Calibration is
    meant for activations similar to relu(x), and for neurons without a leak;
    `keras_ratesnn/conversion/_calibration.py` explains the maths. It uses the moving
    statistics of batch normalisation, so calibrate a trained network.

    The output of a spiking model is the time mean of the output of its network. A final
    softmax is applied at each step, so the output is a mean of probabilities. If a
    network ends in logits, the logits are averaged before the softmax. Such networks
    convert more exactly; train them with a loss with `from_logits=True`. For
    `keras.applications` pass `classifier_activation=None`. What is not linear, such as
    max pooling and layer normalisation, is applied to the spikes of each step, too; the
    mean of that is another one than for their mean, whatever T is. The report of a
    calibration names such operations. Average pooling, strides and batch normalisation
    convert as they are.

    Example:

    >>> network = keras.Sequential(
    ...     [
    ...         keras.Input((8,)),
    ...         keras.layers.Dense(16, activation="relu", name="hidden"),
    ...         keras.layers.Dense(3, activation="softmax", name="predictions"),
    ...     ]
    ... )
    >>> model = keras_ratesnn.spikify(network, timesteps=4)
    spikify: 1 of 2 activations became neurons.
      relu -> IF: hidden
      softmax stays (output): predictions
      not calibrated: train the network, or pass calibrate=, a batch of inputs, if its
      weights are trained
    >>> [layer.name for layer in model.network.layers]
    ['hidden', 'hidden_neuron', 'predictions']

    Example, a choice for each layer:

    >>> def choose(operation):
    ...     return (
    ...         keras_ratesnn.layers.LIF(decay=0.5)
    ...         if operation.name == "hidden"
    ...         else None
    ...     )
    >>> data = np.random.rand(32, 8)
    >>> model = keras_ratesnn.spikify(
    ...     network, timesteps=4, neuron=choose, calibrate=data, verbose=0
    ... )
    >>> [change.name for change in model.spikify_report.replaced]
    ['hidden']

    Args:
        model: A Functional or Sequential model.
        timesteps: Integer T >= 1, the number of time steps.
        neuron: Callable `(operation) -> Neuron or None`, called for each hidden
            activation. `operation` is the layer or the `keras.ops` node that applies
            it; return `None` to keep the activation. A callable without required
            arguments, for example `LIF` or `functools.partial(LIF, decay=0.5)`, is
            called without arguments. Defaults to `None`, which stands for
            `IF(detach_reset=False, initial_membrane=0.5)`: without a leak the firing
            rate is proportional to the input, like relu, and spikes pass through many
            layers from the start of training; because its gradient includes the reset,
            the derivative of its rate is about that of relu, while it would grow with T
            in each layer if the reset were detached; and a membrane that starts at half
            the threshold rounds rates instead of truncating them. NIR files have no
            initial membranes: for these, choose `IF(detach_reset=False)`. With
            `functools.partial(ILIF, levels=4)` one step has as many values as four
            steps of `IF`; for more than one step, add `decay=1.0`.
        gradient: As in `SpikingModel`. Defaults to `"rate"`.
        step_mode: As in `SpikingModel`. Defaults to `"multi"`.
        calibrate: A batch of inputs of the model, without time, representative of the
            training data; a few hundred are enough. Defaults to `None`.
        percentile: Float in (0, 100], the percentile of the positive activations of a
            layer. A lower value clips more activations and resolves the others in finer
            steps, which helps if T is small. Defaults to `95.0`.
        verbose: `"auto"`, 0, 1 or 2, as in `model.predict`: 0 prints nothing; 1 shows
            the progress of a calibration and prints the report; 2 prints the progress
            in one line. Defaults to `"auto"`, which is 1.

    Returns:
        A `SpikingModel`, with an attribute `spikify_report`, which can be printed. Its
        tuples `replaced` and `kept` say of each activation the `name` of its layer, the
        function (`activation`), the `neuron` in its place or the `reason` why it is
        kept, and the calibrated `threshold`, or `None`.

    Raises:
        TypeError: If `model` is not Functional or Sequential, or `neuron` is not
            callable or does not return a neuron layer.
        ValueError: If there is no activation to replace, or an argument has an invalid
            value.
    """
    functional = _checked_graph(model)
    percentile = checks.real(
        "percentile", percentile, above=0, at_most=100, advice="It is a percentage."
    )
    timesteps = checks.positive_integer("timesteps", timesteps)
    verbose = progress.checked(verbose)

    inside = look_inside(functional)
    found = find_activations(functional, inside.graphs)
    inside = inside.only_with(
        [activation.operation for activation in found if activation.role == HIDDEN]
    )
    activations = find_activations(functional, inside.graphs)
    hidden = [activation for activation in activations if activation.role == HIDDEN]
    choose = _chooser(neuron)
    neurons = _choose_neurons(
        choose, [activation.operation for activation in hidden], functional
    )
    tensors = (
        [] if calibrate is None else _calibration.checked_tensors(functional, calibrate)
    )
    # A spiking network has T times as many activations as an ordinary one, so its
    # currents are shifted with fewer samples.
    samples = max(1, tensors[0].shape[0] // timesteps) if tensors else 0
    measured = {}
    if tensors:
        measured = _calibration.measure(
            functional, neurons, tensors, percentile, samples, inside.graphs, verbose
        )
    thresholds = {
        operation: measurement.threshold
        for operation, measurement in measured.items()
        if measurement.threshold is not None
    }
    paths = _graph.paths_of(functional, inside.graphs)
    changes = tuple(
        _change(activation, neurons, thresholds, inside.reasons, paths)
        for activation in activations
    )
    nonlinear = (
        _nonlinear_in_spikes(functional, inside.graphs, neurons)
        if timesteps > 1
        else ()
    )
    report = ConversionReport(
        changes,
        calibrated=bool(tensors),
        nonlinear=tuple(paths[operation] for operation in nonlinear),
    )
    if not report.replaced:
        raise ValueError(
            "`model` must have a hidden activation that neurons can replace. "
            f"Received: model={model.name!r} with none. "
            f"{report}\n{_closed(inside.reasons, activations)}Give its layers "
            "activation='relu', or put keras_ratesnn.layers.LIF() where neurons belong."
        )

    replacements = {
        operation: _replacement(operation, neuron, thresholds.get(operation), timesteps)
        for operation, neuron in neurons.items()
    }
    network = Rebuild(replacements, inside.graphs).run(model)
    few = [tensor[:samples] for tensor in tensors]
    _shift_currents(network, replacements, measured, few, timesteps, step_mode, verbose)
    spiking = spiking_model(model, network, timesteps, gradient, step_mode)
    spiking.spikify_report = report
    if verbose:
        print(report)
    return spiking


def _nonlinear_in_spikes(network, inside, neurons):
    """The operations that are not linear in the spikes of a step, apart from
    activations: their mean over time is not what they make of the time mean."""
    after: set[Any] = set()
    found: dict[keras.Operation, None] = {}
    for call in _graph.whole_of(network, inside).calls:
        operation, kind = call.operation, kind_of(call.operation)
        from_neurons = after.intersection(call.sources)
        is_one_step = from_neurons and kind.role not in (TIME_MEAN, READOUT)
        if operation in neurons or is_one_step:
            after.add(call)
        is_linear = (
            kind.affine
            or kind.moves
            or kind.random_mask
            or (kind.multilinear and len(from_neurons) == 1)
        )
        if is_one_step and not is_linear and function_of(operation) is None:
            found[operation] = None
    return found


def _closed(reasons, activations):
    """A line about the layers in which there may be activations that no report names;
    nothing without such layers."""
    named = {activation.operation for activation in activations}
    closed = [
        f"{layer.name}, {why}" for layer, why in reasons.items() if layer not in named
    ]
    return (
        f"What is inside these layers is not known: {'; '.join(closed)}.\n"
        if closed
        else ""
    )


def _checked_graph(model):
    if keras_internals.is_graph_with_other_call(model):
        raise TypeError(
            "`model` must run its graph and nothing else. Received: "
            f"model={model.name!r} of class {type(model).__name__}, which overrides "
            "`call`: spikify could not know what it does with the graph. Put it into "
            "the graph as a layer, or into `compute_loss` or `predict_step`, which are "
            "kept."
        )
    return _graph.as_graph(model, argument="model")


def _chooser(neuron):
    """Turns `neuron` into a function of the operation that is replaced."""
    if neuron is None:
        # The factor by which a detached reset changes the gradient, (T + 1) / 2, would
        # be taken in every layer.
        return lambda operation: IF(
            detach_reset=False,
            initial_membrane=0.5,
            dtype=unquantized(operation.dtype_policy)
            if isinstance(operation, keras.layers.Layer)
            else None,
        )
    if not callable(neuron) or isinstance(neuron, keras.layers.Layer):
        advice = (
            "Pass keras_ratesnn.layers.LIF, or lambda operation: "
            "keras_ratesnn.layers.LIF(decay=0.5)."
        )
        raise checks.wrong_type(
            "neuron",
            "a callable that returns a new neuron layer for each activation",
            neuron,
            advice,
        )
    parameters = inspect.signature(neuron).parameters.values()
    needs_operation = any(
        parameter.default is parameter.empty
        and parameter.kind
        in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )
    return neuron if needs_operation else lambda operation: neuron()


def _choose_neurons(choose, operations, network):
    """A dict of operations of a network to new neurons, without operations that are
    kept."""
    taken = {operation.name for operation in network.operations}
    neurons = {operation: choose(operation) for operation in operations}
    neurons = {
        operation: neuron for operation, neuron in neurons.items() if neuron is not None
    }
    for operation, neuron in neurons.items():
        if not isinstance(neuron, Neuron):
            raise TypeError(
                f"`neuron` must return a neuron layer or None. Received: {neuron!r} of "
                f"type {type(neuron).__name__} for {operation.name!r}."
            )
        neuron.name = (
            operation.name
            if is_only_activation(operation)
            else f"{operation.name}_neuron"
        )
        if neuron.name in taken - {operation.name}:
            raise ValueError(
                "`model` must not have a layer with the name that spikify gives to "
                f"the neurons after {operation.name!r}. Received: a layer "
                f"{neuron.name!r}. Rename one of the two."
            )
    if len({id(neuron) for neuron in neurons.values()}) < len(neurons):
        raise ValueError(
            "`neuron` must return a new neuron layer each time. Received: the same one "
            "for several activations."
        )
    return neurons


def _replacement(operation, neuron, threshold, timesteps):
    neurons = (
        [neuron]
        if threshold is None
        else _calibration.between_scales(neuron, threshold, timesteps)
    )
    regularizer = getattr(operation, "activity_regularizer", None)
    if regularizer is not None and neuron.activity_regularizer is None:
        # The regularizer is for the activities, now the last of these outputs.
        neurons[-1].activity_regularizer = regularizer
    changes = (
        {"activation": "linear", "activity_regularizer": None}
        if regularizer is not None
        else {"activation": "linear"}
    )
    return Replacement(
        None if is_only_activation(operation) else changes, after=neurons
    )


def _shift_currents(
    network, replacements, measured, tensors, timesteps, step_mode, verbose
):
    """Adds the shifts of `mean_shifts` to what is before the calibrated neurons."""
    # A layer that is called several times would need several shifts.
    once = {
        operation: measurement
        for operation, measurement in measured.items()
        if measurement.threshold is not None and measurement.calls == 1
    }
    if not once:
        return
    placed = [
        (replacements[operation].after, measurement.mean / measurement.threshold)
        for operation, measurement in once.items()
    ]
    shifts = mean_shifts(
        network,
        timesteps,
        tensors,
        {neuron: rate for (_, neuron, _), rate in placed},
        step_mode,
        verbose,
    )
    for (current, neuron, _), _ in placed:
        current.offset += shifts.get(neuron, 0.0)


def _change(activation, neurons, thresholds, reasons, paths):
    operation = activation.operation
    path = paths[operation]
    if operation in neurons:
        return Change(
            path,
            activation.function,
            neurons[operation],
            threshold=thresholds.get(operation),
        )
    reason = LEFT if activation.role == HIDDEN else activation.role
    why = f": {reasons[operation]}" if operation in reasons else ""
    return Change(path, activation.function, reason=reason + why)

r"""Any Keras network made spiking: neurons in the place of its hidden activations.

Calibration takes over a trained network. Let a be the output of an activation and θ a percentile of its positive values.
Neurons with threshold τ take its place, between two fixed scales:

    I = x τ/θ + τ/(2T)          s_t = spikes of the input current I          output θ s_t

A neuron that does not leak, with soft reset, spikes floor(T I/τ) times in T steps, but never more than T times and never
less than none. Its mean output is

    (θ/T) · clip(floor(T x/θ + 1/2), 0, T)

which is relu(x), rounded to a multiple of θ/T and clipped at θ: the neuron's threshold, in the units of x, is θ. The
summand τ/(2T) turns truncation into rounding; over T steps it does what a membrane that starts at τ/2 does. All weights
keep their values, since what follows sees activations in their old units, and the derivative of a rate by its input is
as large as that of an activation whatever θ is, since the surrogate sees the membrane in units of τ.

Sources: Diehl et al., "Fast-Classifying, High-Accuracy Spiking Deep Networks Through Weight and Threshold Balancing",
IJCNN 2015; Rueckauer et al., "Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven Networks for Image
Classification", Frontiers in Neuroscience 2017 (the percentile); Deng and Gu, "Optimal Conversion of Conventional
Artificial Neural Networks to Spiking Neural Networks", ICLR 2021 (the shift).
"""

import dataclasses
import inspect

import keras
import numpy as np
from keras import ops

from keras_ratesnn import backend, checks, graph, keras_internals
from keras_ratesnn.gradients.base import Rule
from keras_ratesnn.layers import IF, Neuron
from keras_ratesnn.models.hidden_activations import HIDDEN, find_activations, is_only_activation
from keras_ratesnn.spiking_model import SpikingModel

LEFT = "left by `neuron`"
LISTED = 4
"""How many names of a kind a report lists."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What became of one activation.

    Args:
        name: String, the name of the layer or operation.
        activation: String, the name of its activation function.
        neuron: The `Neuron` that took its place, or `None`.
        reason: String, why it stays; empty if it does not.
        threshold: Float, the threshold θ that calibration found, in the units of the activation; `None` without
            calibration, or where the activation was never positive and there was nothing to find.
    """

    name: str
    activation: str
    neuron: Neuron | None = None
    reason: str = ""
    threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What `spikify` did to a network: print it, or read its `changes`.

    Args:
        changes: Tuple of `Change`, one for each activation of the network.
    """

    changes: tuple

    @property
    def replaced(self):
        """The changes that put neurons in."""
        return tuple(change for change in self.changes if change.neuron is not None)

    @property
    def kept(self):
        """The changes that are none."""
        return tuple(change for change in self.changes if change.neuron is None)

    def __str__(self):
        lines = [f"spikify: {len(self.replaced)} of {len(self.changes)} activations became neurons."]
        lines += _grouped(self.replaced, lambda change: f"{change.activation} -> {type(change.neuron).__name__}")
        lines += _grouped(self.kept, lambda change: f"{change.activation} stays ({change.reason})")
        thresholds = [change.threshold for change in self.replaced if change.threshold is not None]
        if thresholds:
            lines.append(f"  calibrated thresholds from {min(thresholds):.3g} to {max(thresholds):.3g}")
            never = [change.name for change in self.replaced if change.threshold is None]
            if never:
                lines.append(f"  not calibrated, never positive: {_listed(never)}")
        return "\n".join(lines)


def _grouped(changes, label):
    """One line for each label, with the names of the changes that it is for."""
    groups = {}
    for change in changes:
        groups.setdefault(label(change), []).append(change.name)
    return [f"  {text}: {_listed(names)}" for text, names in groups.items()]


def _listed(names):
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def spikify(
    model,
    timesteps,
    neuron=None,
    gradient="rate",
    step_mode="multi",
    calibrate=None,
    percentile=99.0,
    verbose=True,
):
    """Turns a Keras model into a spiking one: neurons take the place of its hidden activations.

    Hidden activations are replaced wherever they are: layers (ReLU, PReLU, Activation, ...), `activation=` arguments,
    functions of `keras.ops` and `keras.activations` in the graph, nested models. What stays: gates (the sigmoid of a
    squeeze-and-excite block), softmax, what recurrent and attention layers do inside, and activations that feed nothing
    but the model's outputs. See `keras_ratesnn.models.hidden_activations.find_activations` for the exact rule. The weights
    keep their values and the layers their names. A neuron layer has the name of the activation that it replaces; the neurons
    after a layer `conv` with `activation=` are named `conv_neuron`. The model given is not changed.

    Without `calibrate` neurons have thresholds of their own, and the network is one to be trained from scratch. With it, a
    trained network starts as a working spiking network, and a few epochs finish the job: each neuron's threshold is set
    to a percentile of what the activation that it replaces puts out, and a fixed scale before and after the neurons keeps
    what follows in its old units. This is meant for activations that are about relu(x), and for neurons that do not leak;
    the maths is at the head of this file. It takes moving statistics as they are: calibrate a trained network.

    The output of a spiking model is the time mean of its network's output, and a softmax that stays is applied at each step:
    the mean of probabilities. A network that ends in logits is averaged before the softmax, converts more exactly and trains
    with a loss `from_logits=True`; `keras.applications` give it with `classifier_activation=None`.

    Example:

    >>> network = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu", name="hidden"),
    ...     keras.layers.Dense(3, activation="softmax", name="predictions"),
    ... ])
    >>> model = spikify(network, timesteps=4)
    spikify: 1 of 2 activations became neurons.
      relu -> IF: hidden
      softmax stays (output): predictions
    >>> [layer.name for layer in model.network.layers]
    ['hidden', 'hidden_neuron', 'predictions']

    Example, a choice for each layer:

    >>> def choose(operation):
    ...     return keras_ratesnn.layers.LIF(decay=0.5) if operation.name == "hidden" else None
    >>> data = np.random.rand(32, 8)
    >>> model = spikify(network, timesteps=4, neuron=choose, calibrate=data, verbose=False)
    >>> [change.name for change in model.spikify_report.replaced]
    ['hidden']

    Args:
        model: A Functional or Sequential model.
        timesteps: Integer T >= 1, the number of time steps.
        neuron: Callable `(operation) -> Neuron or None`, asked for each hidden activation; `operation` is the layer or the
            `keras.ops` node that applies it, and `None` leaves it as it is. A callable that needs no argument, for example
            `LIF` or `functools.partial(LIF, decay=0.5)`, is asked without. Defaults to `IF`: without a leak the firing rate is
            proportional to the input, as relu is, and spikes survive many layers from the first step of training on.
        gradient: As in `SpikingModel`. Defaults to `"rate"`.
        step_mode: As in `SpikingModel`. Defaults to `"multi"`.
        calibrate: A batch of inputs as the model takes them, without time, typical of the training data; some hundred
            are enough. Defaults to `None`.
        percentile: Float in (0, 100], of the positive activations of a layer. A lower one clips more activations and
            resolves the others in finer steps, which helps where T is small. Defaults to `99.0`.
        verbose: Boolean, whether the report is printed. Defaults to `True`.

    Returns:
        A `SpikingModel`, with an attribute `spikify_report`: a `Report`.

    Raises:
        TypeError: If `model` is not Functional or Sequential, or `neuron` is not, or does not return, what it should.
        ValueError: If there is no activation to replace, or an argument has a value that it cannot have.
    """
    functional = _checked_graph(model)
    percentile = checks.real("percentile", percentile, above=0, advice="It is a percentage, at most 100.")
    if percentile > 100:
        raise ValueError(f"`percentile` must be at most 100. Received: percentile={percentile}.")
    timesteps = checks.positive_integer("timesteps", timesteps)

    activations = find_activations(functional)
    hidden = [activation for activation in activations if activation.role == HIDDEN]
    choose = _chooser(neuron)
    neurons = _choose_neurons(choose, [activation.operation for activation in hidden])
    thresholds = {} if calibrate is None else _thresholds(functional, neurons, calibrate, percentile)
    report = Report(tuple(_change(activation, neurons, thresholds) for activation in activations))
    if not report.replaced:
        raise ValueError(
            f"`model` must have a hidden activation that neurons can replace. Received: model={model.name!r} with none. "
            f"{report}\nGive its layers activation='relu', or put keras_ratesnn.layers.LIF() where neurons belong."
        )

    network = _Rebuild(neurons, thresholds, timesteps).run(model)
    spiking = SpikingModel(network, timesteps, gradient, step_mode)
    spiking.spikify_report = report
    if verbose:
        print(report)
    return spiking


def _checked_graph(model):
    if not keras_internals.is_graph(model):
        raise TypeError(
            "`model` must be a Functional or Sequential Keras model, whose graph can be rebuilt with neurons in it. Received: "
            f"model={model!r} of type {type(model).__name__}. Build it as keras.Model(inputs, outputs) from keras.Input, or "
            "as keras.Sequential([keras.Input(shape), ...])."
        )
    return graph.as_graph(model)


def _chooser(neuron):
    """`neuron` as a function of the operation that is replaced."""
    if neuron is None:
        return lambda operation: IF(dtype=operation.dtype_policy if isinstance(operation, keras.layers.Layer) else None)
    if not callable(neuron) or isinstance(neuron, keras.layers.Layer):
        raise TypeError(
            "`neuron` must be a callable that returns a new neuron layer for each activation. Received: "
            f"neuron={neuron!r} of type {type(neuron).__name__}. Pass keras_ratesnn.layers.LIF, or "
            "lambda operation: keras_ratesnn.layers.LIF(decay=0.5)."
        )
    parameters = inspect.signature(neuron).parameters.values()
    needs_operation = any(
        parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )
    return neuron if needs_operation else lambda operation: neuron()


def _choose_neurons(choose, operations):
    """A dict of operations to new neurons, without the operations that are to stay as they are."""
    neurons = {operation: choose(operation) for operation in operations}
    neurons = {operation: neuron for operation, neuron in neurons.items() if neuron is not None}
    for operation, neuron in neurons.items():
        if not isinstance(neuron, Neuron):
            raise TypeError(
                f"`neuron` must return a neuron layer or None. Received: {neuron!r} of type {type(neuron).__name__} for "
                f"{operation.name!r}."
            )
        neuron.name = operation.name if is_only_activation(operation) else f"{operation.name}_neuron"
    if len({id(neuron) for neuron in neurons.values()}) < len(neurons):
        raise ValueError("`neuron` must return a new neuron layer each time. Received: the same one for several activations.")
    return neurons


def _change(activation, neurons, thresholds):
    operation = activation.operation
    if operation in neurons:
        return Change(operation.name, activation.function, neurons[operation], threshold=thresholds.get(operation))
    return Change(operation.name, activation.function, reason=LEFT if activation.role == HIDDEN else activation.role)


class _CalibrationRule(Rule):
    """The network without spikes; it looks at what some of its operations put out."""

    def __init__(self, operations, percentile):
        super().__init__(timesteps=1)
        self.operations = operations
        self.percentile = percentile
        self.thresholds = {}

    def other(self, operation, args, kwargs):
        outputs = operation(*args, **kwargs)
        if operation in self.operations:
            values = ops.convert_to_numpy(ops.cast(outputs, "float32"))
            if not np.isfinite(values).all():
                raise ValueError(
                    f"`calibrate` must give finite activations. Received: data with which {operation.name!r} puts out NaN or "
                    "infinity. Look at the data and at the model's weights."
                )
            if (values > 0).any():
                threshold = float(np.percentile(values[values > 0], self.percentile))
                self.thresholds[operation] = max(threshold, self.thresholds.get(operation, 0.0))
        return outputs

    neuron = encoder = dropout = other


def _thresholds(functional, operations, data, percentile):
    """The percentile of each operation's positive outputs, the largest if it is called several times."""
    rule = _CalibrationRule(operations, percentile)
    tensors = []
    for array, wanted in zip(graph.match_inputs(functional, data), functional.inputs, strict=True):
        tensor = ops.convert_to_tensor(array, dtype=wanted.dtype)
        if len(tensor.shape) != len(wanted.shape) or not len(array):
            raise ValueError(
                f"`calibrate` must be a batch of inputs as the model takes them, here (batch, *{tuple(wanted.shape[1:])}). "
                f"Received: shape {tuple(tensor.shape)}."
            )
        tensors.append(tensor)
    with backend.no_gradient():
        graph.walk(functional, tensors, rule, training=False)
    return rule.thresholds


class _Rebuild:
    """Copies a model, its weights and the models nested in it, with neurons in the place of some activations.

    Args:
        neurons: Dict of operations to the neurons that replace their activations.
        thresholds: Dict of operations to thresholds θ, where calibration found one.
        timesteps: Integer T.
    """

    def __init__(self, neurons, thresholds, timesteps):
        self.neurons = neurons
        self.thresholds = thresholds
        self.timesteps = timesteps
        self.steps = {}

    def run(self, model):
        copy = self._model(model)
        for operation, (step, *_) in self.steps.items():
            if isinstance(operation, keras.layers.Layer) and type(step) is type(operation):
                step.set_weights(operation.get_weights())
        return copy

    def _model(self, model):
        copy = self._sequential(model) if isinstance(model, keras.Sequential) else self._functional(model)
        if not model.trainable:
            copy.trainable = False
        return copy

    def _sequential(self, model):
        inputs = _input_like(keras_internals.functional_of(model).inputs[0])
        return keras.Sequential([inputs, *(step for layer in model.layers for step in self._steps(layer))], name=model.name)

    def _functional(self, model):
        inputs = keras.tree.map_structure(_input_like, keras_internals.inputs_structure(model))
        outputs = keras_internals.run_through_graph(model, inputs, self._call)
        return keras.Model(inputs, outputs, name=model.name)

    def _call(self, operation):
        def call(*args, **kwargs):
            first, *others = self._steps(operation)
            if operation in self.neurons and is_only_activation(operation):
                args, kwargs = keras.tree.flatten((args, kwargs))[:1], {}
            outputs = first(*args, **kwargs)
            for step in others:
                outputs = step(outputs)
            return outputs

        return call

    def _steps(self, operation):
        """What takes the place of an operation: a list of operations, the first of them in the place of its weights."""
        if operation not in self.steps:
            self.steps[operation] = [*self._before_activation(operation), *self._neurons(operation)]
        return self.steps[operation]

    def _before_activation(self, operation):
        if keras_internals.is_graph(operation):
            return [self._model(operation)]
        if operation not in self.neurons:
            return [type(operation).from_config(operation.get_config())]
        if is_only_activation(operation):
            return []
        return [type(operation).from_config({**operation.get_config(), "activation": "linear"})]

    def _neurons(self, operation):
        neuron, threshold = self.neurons.get(operation), self.thresholds.get(operation)
        if neuron is None:
            return []
        if threshold is None:
            return [neuron]
        own = neuron.cell.threshold
        shift = own / (2 * self.timesteps)
        return [
            keras.layers.Rescaling(own / threshold, shift, dtype=neuron.dtype_policy, name=f"{neuron.name}_current"),
            neuron,
            keras.layers.Rescaling(threshold, dtype=neuron.dtype_policy, name=f"{neuron.name}_output"),
        ]


def _input_like(tensor):
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)

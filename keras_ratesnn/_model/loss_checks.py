"""Checks whether a loss fits the outputs and labels that it is given, for the losses of
Keras and of the library."""

import contextlib
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn.layer_kinds import (
    NEURON,
    READOUT,
    TIME_MEAN,
    fixed_scale,
    kind_of,
)
from keras_ratesnn.losses import TET

_LOGITS = "logits"
_PROBABILITIES = "probabilities"
_RATES = "firing rates"

_CLASSES = {
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "binary_crossentropy": "BinaryCrossentropy",
    "categorical_focal_crossentropy": "CategoricalFocalCrossentropy",
    "binary_focal_crossentropy": "BinaryFocalCrossentropy",
    "kl_divergence": "KLDivergence",
}
"""Keras' losses of probabilities: their functions, and the classes, which but for the
last one have `from_logits`."""

_LOSSES_OF_EACH_OUTPUT = {
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "binary_crossentropy",
}
"""Functions of Keras' losses that compare numbers, and broadcast labels with an axis of
size 1."""


def problem_of_outputs(network, loss):
    """The problem if a loss takes the outputs of a network for what they are not, a
    text; else `None`.

    Args:
        network: A Functional model of one time step.
        loss: The argument `loss` of `compile`.
    """
    problems = (_problem(*triple) for triple in _losses_of_outputs(network, loss))
    return next(filter(None, problems), None)


def _losses_of_outputs(network, loss):
    """Triples of a loss, the name of its output, and the `_origin` of this; none where
    Keras finds them in another way."""
    part = _graph.whole_of(network)
    outputs, names = part.outputs, network.output_names
    if isinstance(outputs, dict):
        names, outputs = outputs.keys(), outputs.values()
    elif not isinstance(outputs, (list, tuple)):
        outputs = [outputs]
    if isinstance(loss, dict):
        loss = [loss.get(name) for name in names]
    losses = loss if isinstance(loss, (list, tuple)) else [loss] * len(outputs)
    if not len(losses) == len(outputs) == len(names) or not all(
        isinstance(output, _graph.Slot) for output in outputs
    ):
        return []
    producers = _graph.producers_of(network)
    return list(
        zip(
            losses,
            names,
            [_origin(producers[slot.index]) for slot in outputs],
            strict=True,
        )
    )


def _origin(call):
    """A description of a signal of a call, and the name of the layer that makes it so;
    `(None, None)` where that is not known."""
    if call.operation is None:
        return None, None
    kind = kind_of(call.operation)
    activation = getattr(
        getattr(call.operation, "activation", None), "__name__", kind.activation
    )
    if kind.role == NEURON:
        meaning = _RATES
    elif activation in ("softmax", "sigmoid"):
        meaning = _PROBABILITIES
    elif activation not in (None, "linear"):
        meaning = None
    elif (
        kind.moves or kind.random_mask or kind.parameter_free or kind.role == TIME_MEAN
    ):
        origins = list(map(_origin, call.sources))
        meanings = {meaning for meaning, _ in origins}
        if meanings != {_RATES} or fixed_scale(call.operation) is None:
            return origins[0] if len(meanings) == 1 else (None, None)
        # Rates that are scaled, for example to counts of spikes, have any size.
        meaning = _LOGITS
    else:
        # What has weights, or is a membrane, has any sign and size.
        meaning = _LOGITS if kind.affine or kind.role == READOUT else None
    return meaning, call.operation.name


def _problem(loss, output, origin):
    """The fault of a loss for an output, and the remedy; `None` if it has none."""
    kind, layer = origin
    name, takes_logits = _taken(loss)
    if kind == _RATES and takes_logits:
        return (
            f"The loss {name} has from_logits=True, but the output {output!r} of the "
            f"network holds the firing rates of {layer!r}: as logits, numbers from 0 "
            "to 1 leave all classes probable, and the loss stays large. Put a layer "
            f"without neurons, such as keras.layers.Dense, after {layer!r}, or make "
            "counts of spikes of the rates: keras.layers.Rescaling(timesteps)."
        )
    if name is None or kind is None or takes_logits == (kind != _PROBABILITIES):
        return None
    if kind == _PROBABILITIES:
        return (
            f"The loss {name} has from_logits=True, but the output {output!r} of "
            "the network holds probabilities: the loss applies a softmax or sigmoid "
            f"to that of {layer!r}, and training is slow. Leave the activation of "
            f"{layer!r} out, or use from_logits=False."
        )
    has_logits = _CLASSES.get(name) != "KLDivergence"
    logits = (
        f"pass keras.losses.{_CLASSES[name]}(from_logits=True), or "
        if has_logits
        else ""
    )
    if kind == _LOGITS:
        return (
            f"The loss {name} takes probabilities, but the output {output!r} of the "
            f"network holds logits: there is no softmax or sigmoid in {layer!r} or "
            f"after it, and training goes wrong. To mend it, {logits}give {layer!r} "
            "the activation that the loss needs."
        )
    return (
        f"The loss {name} takes probabilities, but the output {output!r} of the "
        f"network holds the firing rates of {layer!r}: where a rate is 0, the loss is "
        "NaN or has no gradient. Put a layer without neurons, such as "
        f"keras.layers.Dense, after {layer!r}, and {logits}give that layer the "
        "activation that the loss needs."
    )


def _taken(loss):
    """The name of a loss of probabilities, and whether it takes logits; `(None, None)`
    for any other loss."""
    name, keras_loss = _keras_function(loss)
    if name in _CLASSES:
        # In Keras 3.16 it is no attribute.
        config: dict[str, Any] = getattr(keras_loss, "get_config", dict)()
        return name, config.get("from_logits", False)
    takes_logits = getattr(keras_loss, "from_logits", False)
    return (type(keras_loss).__name__, True) if takes_logits is True else (None, None)


def _keras_function(loss):
    """The name of the function of a loss, or of that in TET, if it is Keras' own, else
    `None`; and the loss, also by name."""
    loss = loss.loss if isinstance(loss, TET) else loss
    with contextlib.suppress(TypeError, ValueError):
        loss = keras.losses.get(loss)
    function = getattr(loss, "fn", loss)
    name = getattr(function, "__name__", "")
    return (name if getattr(keras.losses, name, None) is function else None), loss


def takes_classes(model):
    """Whether the loss of a model takes the numbers of classes, and each must be
    one."""
    loss = getattr(model, "loss", None)
    name, keras_loss = _keras_function(loss)
    is_sparse = (
        name == "sparse_categorical_crossentropy"
        and getattr(keras_loss, "ignore_class", None) is None
    )
    return is_sparse or getattr(loss, "takes_labels", False)


def is_of_keras(model):
    """Whether all losses of a model are Keras' own."""
    return all(
        _keras_function(loss)[0] is not None
        for loss in keras.tree.flatten(getattr(model, "loss", None))
    )


@contextlib.contextmanager
def explained(loss, y, y_pred, return_sequences):
    """A context for metrics, in which an error about labels that do not fit the outputs
    says what to do.

    Args:
        loss: The argument `loss` of `compile`.
        y: The labels.
        y_pred: The outputs. Of several outputs nothing is explained.
        return_sequences: Boolean, whether the outputs are those of each step.
    """
    try:
        yield
    except Exception as error:
        advice = _advice(loss, y, y_pred, return_sequences)
        if advice is None:
            raise
        raise ValueError(advice) from error


def check(loss, y, y_pred, sample_weight, return_sequences):
    """Raises ValueError if labels or weights do not fit a loss of Keras', which may
    broadcast them in silence.

    With `return_sequences` each step would get those of all samples. For the arguments
    see `explained`.
    """
    advice = _advice(loss, y, y_pred, return_sequences)
    if advice is not None:
        raise ValueError(advice)
    given = tuple(getattr(sample_weight, "shape", ()))
    name, takes_steps = _only_loss(loss)
    if return_sequences and len(given) == 1 and name is not None and not takes_steps:
        raise ValueError(
            "`sample_weight` must have a time axis, as the outputs have with "
            "return_sequences=True: (batch, timesteps). Received: weights of shape "
            f"{given}, as class_weight makes them, too. Repeat them, "
            f"np.repeat(weights[:, None], {y_pred.shape[1]}, axis=1), or use "
            "keras_ratesnn.losses.TET(loss), which takes one for each sample."
        )


def check_metrics(metrics, y, y_pred):
    """Raises ValueError if a metric of Keras' would compare each step of
    `return_sequences` with the labels of all samples.

    Args:
        metrics: The metrics that a model was compiled with, a flat list.
        y: The labels.
        y_pred: The outputs of each step. Of several outputs nothing is checked.
    """
    given, outputs = (tuple(getattr(of, "shape", ())) for of in (y, y_pred))
    # Labels (batch, 1) Keras compares with each step of their own sample.
    if not given or given[1:2] in ((None,), (1,), outputs[1:2]):
        return
    for metric in metrics:
        kind = type(metric) if isinstance(metric, keras.Metric) else metric
        # A `MeanMetricWrapper` may have a function of users.
        is_of_keras = isinstance(metric, str) or getattr(
            kind, "__module__", ""
        ).startswith("keras.")
        if is_of_keras and kind is not keras.metrics.MeanMetricWrapper:
            raise ValueError(
                "`y` must have a time axis for the metric "
                f"{getattr(metric, 'name', metric)!r}, as the outputs have with "
                "return_sequences=True: (batch, timesteps, ...). Received: y of shape "
                f"{given} for outputs of shape {outputs}. For one label a sample use "
                f"keras_ratesnn.metrics.AnytimeAccuracy(timesteps={outputs[1]})."
            )


def _only_loss(loss):
    """The name of the only loss of a model, if it has one and that is Keras' own, and
    whether TET takes it of each step."""
    losses = keras.tree.flatten(loss)
    return (
        (_keras_function(losses[0])[0], isinstance(losses[0], TET))
        if len(losses) == 1
        else (None, False)
    )


def _advice(loss, y, y_pred, return_sequences):
    name, takes_steps = _only_loss(loss)
    if (
        name is None
        or not (hasattr(y, "shape") and hasattr(y_pred, "shape"))
        or (takes_steps and not return_sequences)
    ):
        return None
    given, outputs = tuple(y.shape), tuple(y_pred.shape)
    if takes_steps:
        outputs = (outputs[0], *outputs[2:])
        return_sequences = False
    received = f"Received: y of shape {given} for outputs of shape {outputs}."
    are_numbers = name == "sparse_categorical_crossentropy"
    # Numbers of classes may have an axis of size 1 instead of that of the classes,
    # other labels none instead of one of size 1.
    without = outputs[:-1]
    fitting = [(*without, 1), without] if are_numbers or outputs[-1] == 1 else [outputs]
    is_of_samples = len(given) < len(fitting[-1]) or (
        are_numbers and given[1:] == (1,) != outputs[1:2]
    )
    if return_sequences and is_of_samples:
        return (
            "`y` must have a time axis, as the outputs have with "
            f"return_sequences=True: (batch, timesteps, ...). {received} For one label "
            "a sample use keras_ratesnn.losses.TET(loss), or create the model with "
            "return_sequences=False: its outputs are time means."
        )
    if are_numbers and given == outputs and outputs[-1] != 1:
        return (
            f"`y` must hold the numbers of the classes for the loss {name}, not "
            f"one-hot rows. {received} Use "
            "keras.losses.CategoricalCrossentropy(from_logits=True), or y = "
            "np.argmax(y, axis=-1)."
        )
    has_numbers = (
        name in _LOSSES_OF_EACH_OUTPUT
        and "int" in keras.backend.standardize_dtype(y.dtype)
    )
    if (
        (has_numbers or name.startswith("categorical"))
        and outputs[-1] != 1
        and given in ((*without, 1), without)
    ):
        return (
            f"`y` must hold one-hot rows for the loss {name}, not the numbers of "
            f"the classes. {received} Use "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True), or y = "
            f"keras.utils.to_categorical(y, {outputs[-1]})."
        )
    is_known = None not in (*given[1:], *outputs[1:])
    if (
        takes_steps
        and is_known
        and given[1:] not in ((1,), *(wanted[1:] for wanted in fitting))
    ):
        shape = ", ".join(["batch", *map(str, fitting[-1][1:])])
        return (
            "`y` must have labels of samples, which TET compares with each step: "
            f"of shape ({shape}) for its loss {name}. {received} Leave out an axis of "
            "steps."
        )
    return None

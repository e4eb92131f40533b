"""predict_until_sure and calibrate_confidence: as few time steps for each sample as its
answer needs."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, tree
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.call_inputs import call_inputs
from keras_ratesnn._model.time_masks import check_samples
from keras_ratesnn._steps import batches, conformal
from keras_ratesnn._steps.answers import Answers
from keras_ratesnn._steps.running_batch import RunningBatch
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.spiking_model import SpikingModel, checked_model


def predict_until_sure(
    model: SpikingModel, x: Structure, confidence: float = 0.9, batch_size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts each sample with as few time steps as it needs to be sure.

    A sample stops, and leaves the batch, as soon as the largest softmax of the mean of
    its outputs so far reaches `confidence`; at the latest after T steps, or after the
    last one that is not padding. Its output after t steps is that of `model.predict`
    with `timesteps=t` (but for an encoder that spreads its input over T steps). If the
    network itself ends in a softmax, the mean of its probabilities is compared.
    `calibrate_confidence` finds a confidence.

    A batch has `batch_size` rows or a smaller power of two. JAX and TensorFlow compile
    a step for each when it is first needed.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits")
    >>> outputs, steps = predict_until_sure(
    ...     model, np.zeros((5, 8, 8, 1)), confidence=0.9
    ... )
    >>> outputs.shape, steps.shape
    ((5, 10), (5,))

    Args:
        model: A `SpikingModel` of a classifier with one output, logits or a softmax,
            `(batch, classes)`.
        x: Array or tensor, or a structure of them: inputs with or without time, as for
            `model.predict`.
        confidence: Float from 0 to 1. With 0 all samples stop after the first step;
            with 1 none stops early. Defaults to `0.9`.
        batch_size: Integer >= 1, the number of samples processed at once. Defaults to
            `128`.

    Returns:
        `(outputs, steps)`: float array `(batch, classes)`, and int32 array `(batch,)`
        of numbers from 1 to T.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of its range, `x` does not fit the model, the
            model does not classify at each step, or its neurons need all steps at once
            or the membranes of other samples.

    Source: SEENN-I of Li et al., "SEENN: Towards Temporal Spiking Early-Exit Neural
    Networks", NeurIPS 2023, arXiv 2304.01230.
    """
    confidence = checks.real(
        "confidence",
        confidence,
        at_least=0,
        at_most=1,
        advice="It is compared with a probability.",
    )
    network = _checked_network(model, x)
    certainty = _certainty_of(network)

    def is_sure(totals, counts, samples, steps):
        return certainty(_means(totals, counts)) >= (
            confidence if confidence < 1 else np.inf
        )

    stopped = _run(model, x, batch_size, is_sure)
    return _means(stopped.totals, stopped.counts), stopped.steps


def calibrate_confidence(
    model: SpikingModel,
    x: Structure,
    y: Any,
    error: float = 0.02,
    batch_size: int = 128,
) -> float:
    """Finds the smallest `confidence` for `predict_until_sure` with which stopping
    early seldom costs the right answer.

    The guarantee: if the samples of `x` and a new one are exchangeable, for example
    drawn independently from one distribution, and none of them was used to train or
    choose the model, then

        P(the answer of the new one is wrong, and right after all steps) ≤ error

    for any network and any number of samples. So accuracy is at most `error` below that
    with all steps. The probability is over the calibration samples as well as the new
    one: with n of them given it varies around its mean with a standard deviation of
    about sqrt(error / n). It says nothing about single classes, nor about data of
    another kind.

    The method is split conformal prediction. The score of a sample is the largest
    confidence with which it would stop with such a lost answer, and the result just
    exceeds the ⌈(n + 1)(1 − error)⌉-th smallest score. A larger confidence may lose an
    answer that a smaller one does not, since outputs at later steps need not be better;
    the score is the largest of all, so that the guarantee holds nevertheless. SpikeCP's
    guarantee is another one: its sets of classes contain the right one.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits")
    >>> images, labels = (
    ...     np.random.uniform(0, 16, (100, 8, 8, 1)),
    ...     np.random.randint(0, 10, 100),
    ... )
    >>> 0 <= calibrate_confidence(model, images, labels, error=0.05) <= 1
    True

    Args:
        model: As for `predict_until_sure`.
        x: Likewise, held-out samples.
        y: Array, their labels: class indices `(batch,)` or `(batch, 1)`, or one-hot
            vectors `(batch, classes)`.
        error: Float between 0 and 1; at least 1 / (number of samples + 1). Defaults to
            `0.02`.
        batch_size: Integer >= 1, the number of samples processed at once. Defaults to
            `128`.

    Returns:
        Float from 0 to 1.

    Raises:
        TypeError: As in `predict_until_sure`.
        ValueError: As there; or if labels do not fit, or there are too few samples for
            this error.

    Source: Angelopoulos et al., "Conformal risk control", ICLR 2024, for losses that
    are made monotone. Compare Chen, Park and Simeone, "Knowing when to stop:
    delay-adaptive spiking neural network classifiers with reliability guarantees"
    (SpikeCP), arXiv 2305.11322; Jazbec et al., "Fast yet safe: early-exiting with risk
    control", NeurIPS 2024.
    """
    return confidence_for(answers_of(model, x, y, batch_size), error)


def confidence_for(answers: Any, error: float) -> float:
    """The confidence that `calibrate_confidence` finds, for the arguments see
    `largest_allowed`."""
    largest = conformal.largest_allowed(answers, error)
    return float(np.clip(np.nextafter(largest, np.inf), 0.0, 1.0))


def answers_of(model: SpikingModel, x: Structure, y: Any, batch_size: int) -> Answers:
    """The answers of labelled samples after each step; for the arguments see
    `calibrate_confidence`."""
    network = _checked_network(model, x)
    answers = Answers(
        y, _number_of_samples(x), _outputs_of(network)[0].shape[1], model.timesteps
    )
    certainty = _certainty_of(network)

    def record(totals, counts, samples, steps):
        means = _means(totals, counts)
        return answers.record(certainty(means), means, samples, steps)

    _run(model, x, batch_size, record)
    return answers


def _means(totals, counts):
    return totals / np.maximum(counts, 1)[:, None].astype(totals.dtype)


def _run(model, x, batch_size, leaves):
    def begin(samples):
        rows = keras.tree.map_structure(lambda leaf: _rows_of(leaf, samples), x)
        pairs, mask, _ = call_inputs(model, rows)
        valid = (
            np.ones((len(samples), model.timesteps))
            if mask is None
            else ops.convert_to_numpy(mask)
        )
        return RunningBatch(model, pairs, mask), np.asarray(valid, bool)

    return batches.run(begin, _number_of_samples(x), batch_size, leaves)


def _number_of_samples(x):
    return keras.tree.flatten(x)[0].shape[0]


def _rows_of(leaf, samples):
    return (
        leaf[samples]
        if isinstance(leaf, np.ndarray)
        else ops.take(leaf, samples, axis=0)
    )


def _checked_network(model, x):
    """The graph of a classifier that gives an output at each step, whose samples do not
    depend on each other."""
    network = _graph.as_graph(checked_model(model).network)
    check_samples(model, x)
    _graph.check_steps(network, "Stopping early")
    _graph.check_samples_apart(network, "Stopping early")
    _graph.check_mean_of_steps(network)
    _check_rows(network)
    shapes = [tuple(output.shape) for output in _outputs_of(network)]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] == 1:
        raise ValueError(
            "`model` must have one output for each class, (batch, classes), with two "
            f"classes or more. Received: model {model.name!r} with outputs of shape "
            f"{', '.join(map(str, shapes))}. Make a SpikingModel of "
            "keras.Model(network.inputs, logits), which shares the weights."
        )
    return network


def _check_rows(network):
    """Raises ValueError if the output of a layer has several rows, whatever the number
    of samples: these could be the rows of a batch."""
    for call in _graph.whole_of(network).calls:
        shape = call.outputs[0].spec.shape
        if network.inputs[0].shape[0] is None and shape and (shape[0] or 1) > 1:
            raise ValueError(
                "`model` must have layers with a row for each sample, or with one row "
                "for all, so that samples can leave a batch. Received: layer "
                f"{call.operation.name!r}, whose output has the shape {shape}. Let it "
                "return (1, ...)."
            )


def _outputs_of(network):
    return keras.tree.flatten(keras_internals.outputs_structure(network))


def _certainty_of(network):
    """The function that gives the largest probability of each row of mean outputs, in
    float64."""
    (output,) = tree.flatten(_graph.whole_of(network).outputs)
    last: Any = _graph.producers_of(network)[output.index].operation
    if (
        kind_of(last).activation == "softmax"
        or getattr(last, "activation", None) is keras.activations.softmax
    ):
        return lambda outputs: outputs.astype("float64").max(axis=1)
    return lambda outputs: (
        1
        / np.exp(outputs.astype("float64") - outputs.max(axis=1, keepdims=True)).sum(
            axis=1
        )
    )

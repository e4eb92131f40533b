"""Samples that stop when they are sure: their outputs, how many steps they take, and
what is computed."""

import keras
import numpy as np
import pytest
from helpers import BACKEND, both_step_modes, chain, compiled, data, spiking
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn import deploy
from keras_ratesnn.layers import (
    ILIF,
    LIF,
    PSN,
    BernoulliEncoder,
    CuBaLIF,
    Neuron,
    TimeMean,
)
from keras_ratesnn.layers.shared_membrane import SharedMembraneCell

T = 4


def classifier(*end, middle=(), **settings):
    """A model whose samples are sure after different numbers of steps, with the same
    weights on all backends."""
    network = chain(
        layers.Dense(8),
        layers.BatchNormalization(),
        LIF(decay=0.5, threshold=0.4),
        *middle,
        layers.Dropout(0.5),
        layers.Dense(8),
        CuBaLIF(threshold=0.3),
        layers.Dense(3),
        *end,
    )
    draw = np.random.default_rng(0)
    for weight in network.trainable_weights:
        if weight.name == "kernel":
            weight.assign(draw.normal(0, 1, weight.shape))
    return spiking(network, T, **settings)


def expected_answers(model, x, confidence, lengths=None, probabilities=False):
    """The outputs and numbers of steps, by the outputs of all steps of all samples."""
    options = {"return_sequences": True, "mask_value": model.mask_value}
    sequences = spiking(model.network, T, **options).predict(x, verbose=0)
    outputs, steps = [], []
    for number, sequence in enumerate(sequences.astype("float64")):
        last = T if lengths is None else lengths[number]
        for t in range(1, last + 1):
            mean = sequence[:t].mean(axis=0)
            classes = mean if probabilities else np.exp(mean) / np.exp(mean).sum()
            if confidence < 1 and classes.max() >= confidence:
                break
        outputs.append(mean)
        steps.append(t)
    return np.array(outputs), np.array(steps)


def check(model, x, confidence, different, **expected):
    outputs, steps = deploy.predict_until_sure(model, x, confidence, batch_size=12)
    wanted, at = expected_answers(model, x, confidence, **expected)
    assert_array_equal(steps, at)
    assert_allclose(outputs, wanted, rtol=1e-4, atol=1e-5)
    assert (steps.dtype, outputs.dtype) == ("int32", "float32")
    assert len(set(steps)) >= different


@both_step_modes
def test_a_sample_stops_at_the_first_step_at_which_it_is_sure(step_mode):
    # 17 samples: a batch of 12, and one of 5.
    model, (x, _) = classifier(step_mode=step_mode), data(17)
    check(model, x, 0.6, different=4)
    check(model, x, 0.0, different=1)
    check(model, x, 1.0, different=1)
    assert set(deploy.predict_until_sure(model, x, 0.0)[1]) == {1}
    assert set(deploy.predict_until_sure(model, x, 1.0)[1]) == {T}


def test_a_sequence_stops_when_it_is_sure_or_where_its_padding_begins():
    model, (frames, _) = classifier(), data(13, (T, 6))
    check(model, frames, 0.6, different=3)
    model = classifier(mask_value=-9.0)
    lengths = 1 + np.arange(13) % T
    frames[np.arange(T) >= lengths[:, None]] = -9.0
    check(model, frames, 0.6, different=3, lengths=lengths)
    outputs, steps = deploy.predict_until_sure(model, frames, 0.6)
    # Padding before a sequence changes nothing.
    ends = zip(frames, T - lengths, strict=True)
    before = np.array([np.roll(sequence, rest, axis=0) for sequence, rest in ends])
    moved, as_many = deploy.predict_until_sure(model, before, 0.6)
    assert_allclose(moved, outputs, rtol=1e-5, atol=1e-6)
    assert_array_equal(as_many, steps)


def test_probabilities_are_compared_as_they_are():
    x, _ = data(9)
    check(classifier(layers.Softmax()), x, 0.55, different=3, probabilities=True)


class Counted(layers.Layer):
    """Notes the number of rows of each call, which compiled functions make once."""

    def __init__(self, calls, **kwargs):
        super().__init__(**kwargs)
        # Keras would copy a list.
        self._note = calls.append

    def call(self, inputs):
        self._note(inputs.shape[0])
        return inputs

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def test_few_sizes_are_compiled_and_what_is_static_runs_once_a_batch():
    static, dynamic = [], []
    network = classifier(middle=[Counted(dynamic)]).network
    model = spiking(chain(Counted(static), network), T)
    x, _ = data(45)
    first = deploy.predict_until_sure(model, x, 0.6, batch_size=12)
    # Batches of 12, 12, 12 and 9, which has the size of 12, too. Those of fewer rows
    # are powers of two.
    assert set(dynamic) <= {12, 8, 4, 2, 1}
    if BACKEND == "torch":
        assert len(static) == 4
        assert 4 < len(dynamic) <= 4 * T
    else:
        # The first step and later ones have functions of their own.
        assert static == [12]
        assert len(dynamic) <= 1 + len(set(dynamic))
    before = len(dynamic)
    again = deploy.predict_until_sure(model, x[::-1], 0.6, batch_size=12)
    assert_array_equal(again[1][::-1], first[1])
    if BACKEND != "torch":
        assert len(dynamic) - before <= 5 - len(set(dynamic[:before]))


def test_weights_may_change_between_calls_and_layers_draw_numbers():
    model, (x, y) = compiled(classifier()), data(8)
    deploy.predict_until_sure(model, x, 0.6)
    model.fit(x, y, verbose=0)
    check(model, x, 0.6, different=1)
    parts = BernoulliEncoder(), layers.Dense(8), LIF()
    model = spiking(chain(*parts, layers.Dense(3)), T)
    shared = np.full((8, 6), 0.5)
    first, second = (deploy.predict_until_sure(model, shared, 1.0)[0] for _ in range(2))
    assert not np.allclose(first, second)


class Table(layers.Layer):
    """The same rows whatever its inputs."""

    def call(self, inputs):
        return keras.ops.ones((4, 3))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((4, 3))


def two_outputs(x):
    return [layers.Dense(3)(x), layers.Dense(3)(x)]


def with_table(x):
    # A batch of 4 could have as many rows.
    return layers.Dense(3)(x) + Table()(x)


def shared_membrane():
    return Neuron(SharedMembraneCell(LIF().cell))


X, _ = data(4)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([two_outputs], r"one output for each class.*\(None, 3\), \(None, 3\)"),
        ([layers.Dense(1)], "two classes or more"),
        (
            [TimeMean(name="mean"), layers.Dense(3)],
            "an output at each step.*'mean'",
        ),
        ([PSN(timesteps=T), layers.Dense(3)], "inputs of later steps"),
        ([shared_membrane(), layers.Dense(3)], "shared_membrane=False"),
        ([with_table], r"'table', whose output has the shape \(4, 3\)"),
    ],
)
def test_what_cannot_stop_early_is_an_error_that_says_why(parts, said):
    hidden = layers.Dense(8, name="hidden"), LIF()
    network = chain(*hidden, *parts)
    with pytest.raises(ValueError, match=said):
        deploy.predict_until_sure(spiking(network, T), X)


def test_integers_stop_early_before_they_are_unrolled():
    parts = layers.Dense(8), ILIF(levels=2), layers.Dense(3)
    integers = spiking(chain(*parts), T)
    check(integers, X, 0.6, different=1)
    with pytest.raises(ValueError, match="Use the model that was unrolled"):
        deploy.predict_until_sure(deploy.unroll(integers), X)

"""Keras masks reach the layers that Keras lets them reach, with every method and in
both step modes."""

import functools

import keras
import numpy as np
import pytest
from helpers import assert_close, both_step_modes, loss_and_gradients, spiking
from keras import layers, ops
from masked_results import METHODS

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)

Y = np.arange(6) % 3


class Noise(layers.Layer):
    """A random layer that keeps masks; its noise is 0."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        noise = keras.random.uniform(ops.shape(inputs), seed=self.generator)
        return inputs + 0.0 * noise


@rsnn.layers.affine
class MaskedAverage(layers.Layer):
    """The mean over the rows of a tensor in a list: for lists the masks are on the
    tensors, and not in the graph."""

    def call(self, inputs, mask=None):
        weights = ops.cast(mask[0], "float32")[..., None]
        return ops.sum(weights * inputs[0], axis=1) / ops.sum(weights, axis=1)


def frames_of(timesteps):
    """Frames of five rows each, `(6, T, 5, 8)`; some rows are 0, for `Masking`, and
    which may change from step to step."""
    random = np.random.default_rng(0)
    frames = random.normal(0.5, 1.0, (6, timesteps, 5, 8)).astype("float32")
    frames[random.random((6, timesteps, 5)) < 0.4] = 0.0
    frames[:, :, 0] = 1.0
    return frames


def words_of(*shape):
    """Integers, of which 0 is padding."""
    words = np.random.default_rng(0).integers(0, 4, shape).astype("int32")
    words[..., 0] = 1
    return words


def lif(x, decay=0.0):
    return rsnn.layers.LIF(decay, 0.1)(layers.Dense(8)(x))


BRANCHES = [
    lambda x: lif(lif(x)),
    lambda x: layers.Dropout(0.0)(x),
    lambda x: Noise()(x),
    lambda x: lif(Noise()(layers.Dropout(0.0)(lif(x)))),
    lambda x: layers.Maximum()([lif(x), x]),
    lambda x: layers.Add()([layers.ReLU()(x), lif(x)]),
]


def attention_to_branches(branches=BRANCHES):
    """An attention for each branch, whose values are what the branch makes of masked
    frames."""
    inputs = keras.Input((5, 8))
    masked = layers.Masking()(inputs)
    queries = [lif(inputs, 0.2) for _ in branches]
    outputs = []
    for spikes, branch in zip(queries, branches, strict=True):
        outputs.append(layers.Attention()([spikes, branch(masked)]))
    x = layers.Flatten()(layers.Concatenate()(outputs))
    return keras.Model(inputs, layers.Dense(3)(lif(x, 0.2)))


def last_branches():
    """The other branches are parts of these."""
    return attention_to_branches(BRANCHES[3:])


def attention_to_words():
    """Attention takes the masks off its inputs."""
    inputs = keras.Input((3,), dtype="int32")
    x = layers.Embedding(4, 6, mask_zero=True)(inputs)
    x = layers.Flatten()(layers.MultiHeadAttention(2, 3)(x, x))
    return keras.Model(inputs, layers.Dense(3)(lif(x, 0.5)))


def attention_to_constants():
    """The mask is that of what is the same at every step."""
    inputs = [keras.Input((5, 8)), keras.Input((3,), dtype="int32")]
    start = {"embeddings_initializer": "random_normal"}
    values = layers.Embedding(9, 8, mask_zero=True, **start)(inputs[1])
    x = layers.MultiHeadAttention(2, 3)(lif(inputs[0], 0.2), values)
    return keras.Model(inputs, layers.Dense(3)(lif(layers.Flatten()(x), 0.2)))


def results_of(make, timesteps, gradient, step_mode, x):
    keras.utils.set_random_seed(0)
    model = spiking(make(), timesteps, gradient, step_mode=step_mode)
    value, gradients = loss_and_gradients(model, x, Y)
    return value, [*gradients.values()]


def assert_equal(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert_close(found[1], expected[1], rtol=1e-3, atol=5e-6)


@functools.cache
def by_keras():
    keras.utils.set_random_seed(0)
    value, gradients = loss_and_gradients(
        attention_to_branches(), frames_of(1)[:, 0], Y
    )
    return value, [*gradients.values()]


@both_step_modes
def test_one_step_with_masks_is_that_of_keras(step_mode):
    for method in METHODS[step_mode]:
        found = results_of(attention_to_branches, 1, method, step_mode, frames_of(1))
        assert_equal(found, by_keras())


@both_step_modes
@pytest.mark.parametrize(
    ("make", "x"),
    [
        (last_branches, frames_of(2)),
        (attention_to_words, words_of(6, 2, 3)),
        (attention_to_constants, [frames_of(2), words_of(6, 3)]),
    ],
)
def test_gradients_with_masks_are_those_of_bptt_where_each_step_has_its_rate(
    make, x, step_mode
):
    """Also where the masks are not the same at every step."""
    expected = results_of(make, 2, "bptt", "multi", x)
    assert_equal(results_of(make, 2, Rate(windows=2), step_mode, x), expected)


@both_step_modes
@pytest.mark.parametrize(
    "average",
    [lambda x: layers.GlobalAveragePooling1D()(x), lambda x: MaskedAverage()([x])],
)
def test_the_rate_after_a_masked_average_is_its_time_mean(average, step_mode):
    """The gradient of a kernel is that of BPTT where nothing follows it, if its input
    is the time mean of the spiking one."""

    def make():
        inputs = keras.Input((5, 8))
        spikes = lif(layers.Masking()(inputs), decay=0.2)
        return keras.Model(inputs, layers.Dense(3)(average(spikes)))

    (_, found), (_, expected) = (
        results_of(make, 4, gradient, step_mode, frames_of(4))
        for gradient in ("rate", "bptt")
    )
    assert_close(found[-2:], expected[-2:], rtol=1e-4, atol=1e-6)

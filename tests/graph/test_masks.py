"""Keras masks reach the layers that Keras lets them reach, with every method and in
both step modes."""

import functools

import keras
import numpy as np
import pytest
from helpers import assert_close, loss_and_gradients, spiking
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)

Y = np.arange(6) % 3
METHODS = {
    "multi": ["rate", "bptt", "sltt"],
    "single": ["rate", SLTT(recompute=False), "ottt"],
}


class Noise(layers.Layer):
    """A random layer that keeps masks; its noise is 0."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs + 0.0 * keras.random.uniform(
            ops.shape(inputs), seed=self.generator
        )


@rsnn.affine
class MaskedAverage(layers.Layer):
    """The mean over the rows of a tensor in a list: for lists the masks are on the
    tensors, and not in the graph."""

    def call(self, inputs, mask=None):
        weights = ops.cast(mask[0], "float32")[..., None]
        return ops.sum(weights * inputs[0], axis=1) / ops.sum(weights, axis=1)


def frames_of(timesteps, constant=False):
    """Frames of five rows each, `(6, T, 5, 8)`; some rows are 0, for `Masking`, and
    which may change from step to step."""
    random = np.random.default_rng(0)
    frames = random.normal(0.5, 1.0, (6, timesteps, 5, 8))
    frames[random.random((6, timesteps, 5)) < 0.4] = 0.0
    frames[:, :, 0] = 1.0
    return (
        np.repeat(frames[:, :1], timesteps, axis=1).astype("float32")
        if constant
        else frames.astype("float32")
    )


def network_of(branches, decay=0.2):
    """An attention for each branch, whose values are what the branch makes of masked
    frames."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 8))
    masked = layers.Masking()(inputs)
    neurons = [rsnn.layers.LIF(decay, 0.1)(layers.Dense(8)(inputs)) for _ in branches]
    outputs = [
        layers.Attention()([spikes, branch(masked)])
        for spikes, branch in zip(neurons, branches, strict=True)
    ]
    x = layers.Flatten()(
        layers.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]
    )
    return keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.LIF(decay, 0.1)(layers.Dense(8)(x)))
    )


def lif(x):
    return rsnn.layers.LIF(0.0, 0.1)(layers.Dense(8)(x))


BRANCHES = [
    lambda x: lif(lif(x)),
    lambda x: layers.Dropout(0.0)(x),
    lambda x: Noise()(x),
    lambda x: lif(Noise()(layers.Dropout(0.0)(lif(x)))),
    lambda x: layers.Maximum()([lif(x), x]),
    lambda x: layers.Add()([layers.ReLU()(x), lif(x)]),
]


@functools.cache
def by_keras():
    return loss_and_gradients(network_of(BRANCHES), frames_of(1)[:, 0], Y)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_one_step_with_masks_is_that_of_keras(step_mode):
    frames, (value, expected) = frames_of(1), by_keras()
    for method in METHODS[step_mode]:
        found_value, found = loss_and_gradients(
            spiking(network_of(BRANCHES), 1, method, step_mode=step_mode), frames, Y
        )
        assert found_value == pytest.approx(value, rel=1e-5), method
        assert_close(
            found.values(), expected.values(), rtol=1e-3, atol=1e-6, message=str(method)
        )


def assert_like_bptt(gradient, step_mode, frames, **arguments):
    """Checks that a method's loss and gradients are those of BPTT, in a network with
    masks of several kinds."""
    # The other branches are parts of these.
    branches, timesteps = BRANCHES[3:], frames.shape[1]

    def results_of(gradient):
        return loss_and_gradients(
            spiking(
                network_of(branches, **arguments),
                timesteps,
                gradient,
                step_mode=step_mode,
            ),
            frames,
            Y,
        )

    (value, expected), (found_value, found) = results_of("bptt"), results_of(gradient)
    assert found_value == pytest.approx(value, rel=1e-5)
    assert_close(found.values(), expected.values(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_rate_gradient_with_masks_is_that_of_bptt_where_each_step_has_its_rate(
    step_mode,
):
    """Also where the masks are not the same at every step."""
    assert_like_bptt(Rate(windows=2), step_mode, frames_of(2))


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "single"), (Rate(windows=2), "multi")], ids=str
)
def test_the_rate_gradient_with_masks_is_that_of_bptt_where_all_steps_are_alike(
    gradient, step_mode
):
    """Neurons without memory, on the same frame at each step."""
    assert_like_bptt(gradient, step_mode, frames_of(3, constant=True), decay=0.0)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_mask_of_a_signal_without_time_counts_in_every_window(step_mode):
    ids, frames = (
        np.random.default_rng(0).integers(0, 3, (6, 5)),
        frames_of(3, constant=True),
    )
    ids[:, 0] = 1

    def network():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((5,), dtype="int32"), keras.Input((5, 8))
        static = layers.Embedding(10, 8, mask_zero=True)(inputs[0])
        x = layers.Attention()(
            [rsnn.layers.LIF(0.0, 0.1)(layers.Dense(8)(inputs[1])), static]
        )
        return keras.Model(
            inputs, layers.Dense(3)(rsnn.layers.LIF(0.0, 0.1)(layers.Flatten()(x)))
        )

    value, expected = loss_and_gradients(
        spiking(network(), 3, "bptt", step_mode=step_mode), [ids, frames], Y
    )
    for gradient in ("rate", Rate(windows=2)):
        found_value, found = loss_and_gradients(
            spiking(network(), 3, gradient, step_mode=step_mode), [ids, frames], Y
        )
        assert found_value == pytest.approx(value, rel=1e-5)
        assert_close(found.values(), expected.values(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize(
    "average",
    [lambda x: layers.GlobalAveragePooling1D()(x), lambda x: MaskedAverage()([x])],
)
def test_the_rate_after_a_masked_average_is_its_time_mean(average, step_mode):
    """The gradient of a kernel is that of BPTT where nothing follows it, if its input
    is the time mean of the spiking one."""

    def network():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((5, 8))
        spikes = rsnn.layers.LIF(threshold=0.1)(
            layers.Dense(8)(layers.Masking()(inputs))
        )
        return keras.Model(inputs, layers.Dense(3)(average(spikes)))

    frames = frames_of(4)
    found, expected = (
        list(
            loss_and_gradients(
                spiking(network(), 4, gradient, step_mode=step_mode), frames, Y
            )[1].values()
        )[-2]
        for gradient in ("rate", "bptt")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_rate_gradient_sees_the_masks_that_attention_takes_off_its_inputs(
    step_mode,
):
    words = np.random.default_rng(0).integers(0, 9, (6, 2, 3)).astype("int32")
    words[:, :, 0] = 1
    found = []
    for gradient in (Rate(windows=2), "bptt"):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,), dtype="int32")
        x = layers.Embedding(9, 6, mask_zero=True)(inputs)
        x = rsnn.layers.LIF(0.5, 0.1)(
            layers.Dense(8)(layers.Flatten()(layers.MultiHeadAttention(2, 3)(x, x)))
        )
        model = spiking(
            keras.Model(inputs, layers.Dense(3)(x)), 2, gradient, step_mode=step_mode
        )
        found.append(loss_and_gradients(model, words, Y)[1].values())
    assert_close(*found, rtol=1e-3, atol=1e-5)


def test_attention_sees_the_mask_of_what_is_the_same_at_every_step():
    frames, words = (
        frames_of(3),
        np.random.default_rng(0).integers(0, 9, (6, 4)).astype("int32"),
    )
    words[:, 0], words[:, 1] = 1, 0
    inputs = [keras.Input((5, 8)), keras.Input((4,), dtype="int32")]
    values = layers.Embedding(
        9, 8, mask_zero=True, embeddings_initializer="random_normal"
    )(inputs[1])
    x = layers.MultiHeadAttention(2, 3)(
        rsnn.layers.LIF(0.2, 0.1)(layers.Dense(8)(inputs[0])), values
    )
    network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    found = []
    for step_mode, method in (
        ("multi", "bptt"),
        ("single", "bptt"),
        ("single", SLTT()),
        ("single", "rate"),
    ):
        model = spiking(network, 3, method, step_mode=step_mode)
        value, gradients = loss_and_gradients(model, [frames, words], Y)
        found.append((value, [*gradients.values()]))
    np.testing.assert_allclose([value for value, _ in found], found[0][0], rtol=1e-6)
    assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-6)

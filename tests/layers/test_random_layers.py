"""Layers that draw random numbers draw once per batch: the same for all steps of a
sample, and for its rate."""

import keras
import numpy as np
import pytest
from helpers import assert_close, compiled, data, loss_and_gradients, spiking, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn

SEED = 7


@keras.saving.register_keras_serializable(package="tests")
class DropPath(layers.Layer):
    """Stochastic depth: drops whole samples, like many custom layers."""

    def __init__(self, rate=0.5, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.seed = rate, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=None):
        if not training:
            return inputs
        shape = (ops.shape(inputs)[0], *([1] * (len(inputs.shape) - 1)))
        kept = keras.random.uniform(shape, seed=self.generator) >= self.rate
        return inputs * ops.cast(kept, inputs.dtype) / (1.0 - self.rate)


def after_reshape(layer):
    return lambda x: layers.Flatten()(layer(layers.Reshape((4, 4))(x)))


def attention(x):
    x = layers.Reshape((4, 4))(x)
    return layers.Flatten()(
        layers.MultiHeadAttention(2, 2, dropout=0.5, seed=SEED)(x, x)
    )


RANDOM = {
    "dropout": lambda x: layers.Dropout(0.5, seed=SEED)(x),
    "spatial dropout": lambda x: after_reshape(layers.SpatialDropout1D(0.5, seed=SEED))(
        x
    ),
    "gaussian dropout": lambda x: layers.GaussianDropout(0.5, seed=SEED)(x),
    "gaussian noise": lambda x: layers.GaussianNoise(0.5, seed=SEED)(x),
    "alpha dropout": lambda x: layers.AlphaDropout(0.5, seed=SEED)(x),
    "drop path": lambda x: DropPath(0.5, SEED)(x),
    "attention": attention,
    "recurrent": lambda x: after_reshape(
        layers.GRU(4, dropout=0.5, recurrent_dropout=0.3, seed=SEED)
    )(x),
}


# Side by side in one network, which takes a fraction of the time to compile: each layer
# has rows of its own in the head's kernel, whose gradient tells them apart.
SIDE_BY_SIDE = {
    "element-wise": [
        "dropout",
        "gaussian dropout",
        "gaussian noise",
        "alpha dropout",
        "drop path",
    ],
    "with matrices": ["spatial dropout", "attention", "recurrent"],
}


def network(*names):
    """The random layers after neurons, and after static signals."""
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(layers.Dense(16)(inputs))
    drawn = [RANDOM[name](x) for name in names]
    return keras.Model(
        inputs,
        layers.Dense(3, name="head")(
            drawn[0] if len(drawn) == 1 else layers.Concatenate()(drawn)
        ),
    )


def gradients(names, gradient, step_mode, timesteps, x, y):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    return loss_and_gradients(
        spiking(network(*names), timesteps, gradient, step_mode=step_mode), x, y
    )[1]


@pytest.mark.parametrize(
    ("kind", "step_mode"), [("element-wise", "multi"), ("with matrices", "single")]
)
def test_at_one_step_rate_and_bptt_have_one_gradient(kind, step_mode):
    names = SIDE_BY_SIDE[kind]
    x, y = data(8)
    by_bptt = gradients(names, "bptt", step_mode, 1, x, y)
    by_rate = gradients(names, "rate", step_mode, 1, x, y)
    of_layers = np.split(by_bptt["head/kernel"], len(names))
    assert all(np.abs(gradient).max() > 1e-3 for gradient in of_layers)
    assert_close(by_rate, by_bptt, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "gradient"), [("element-wise", "bptt"), ("with matrices", "rate")]
)
def test_both_orders_draw_the_same_numbers(kind, gradient):
    names = SIDE_BY_SIDE[kind]
    x, y = data(8)
    multi, single = (
        gradients(names, gradient, step_mode, 4, x, y)
        for step_mode in ("multi", "single")
    )
    assert_close(multi, single, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("name", ["dropout", "alpha dropout", "drop path"])
def test_all_steps_of_a_sample_see_the_same_numbers_and_each_batch_others(
    name, step_mode
):
    inputs = keras.Input((16,))
    network = keras.Model(inputs, RANDOM[name](rsnn.layers.LIF()(inputs)))
    model = spiking(network, 5, "rate", step_mode=step_mode, return_sequences=True)
    batches = [
        to_numpy(model(np.full((9, 16), 2.0, "float32"), training=True))
        for _ in range(2)
    ]
    for batch in batches:
        np.testing.assert_allclose(batch, np.repeat(batch[:, :1], 5, axis=1), rtol=1e-6)
        assert np.ptp(batch) > 0
    assert (batches[0] != batches[1]).any()


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_image_augmentation_is_the_same_for_all_frames_of_a_sample(step_mode):
    inputs = keras.Input((4, 4, 1))
    network = keras.Model(
        inputs,
        rsnn.layers.IF(threshold=0.5)(
            layers.RandomFlip("horizontal", seed=SEED)(inputs)
        ),
    )
    model = spiking(network, 6, step_mode=step_mode, return_sequences=True)
    frames = np.zeros((12, 6, 4, 4, 1), "float32")
    frames[:, :, :, 0] = 1.0
    flipped = to_numpy(model(frames, training=True))[:, :, 0, 3, 0] == 1.0
    assert 0 < flipped[:, 0].sum() < 12
    np.testing.assert_array_equal(flipped, np.repeat(flipped[:, :1], 6, axis=1))


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_layer_with_random_numbers_fits_with_a_last_smaller_batch(step_mode):
    x, y = data(10)
    model = compiled(spiking(network("drop path"), step_mode=step_mode))
    model.fit(x, y, batch_size=4, validation_data=(x, y), verbose=0)


# State of another kind than random numbers.
@keras.saving.register_keras_serializable(package="tests")
class Scaled(layers.BatchNormalization):
    """A custom normalisation: Keras' output times five."""

    def call(self, inputs, training=None, mask=None):
        return 5.0 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_subclass_of_batch_normalization_with_its_own_call_is_run(
    gradient, step_mode
):
    inputs = keras.Input((6,))
    norm = Scaled(momentum=0.0)
    network = keras.Model(inputs, norm(rsnn.layers.LIF()(layers.Dense(6)(inputs))))
    x, _ = data(64)
    model = spiking(network, 4, gradient, step_mode=step_mode)
    spikes = spiking(
        keras.Model(inputs, network.layers[2].output), 4, return_sequences=True
    ).predict(x, verbose=0)
    outputs = to_numpy(model(x, training=True))
    rates = spikes.mean(axis=1)
    if step_mode == "multi":
        expected = (
            5.0
            * (rates - spikes.mean(axis=(0, 1)))
            / np.sqrt(spikes.var(axis=(0, 1)) + norm.epsilon)
        )
        np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)
    # The statistics of spikes, and not those of the rate, are what it has seen last.
    last = spikes if step_mode == "multi" else spikes[:, -1:]
    np.testing.assert_allclose(
        to_numpy(norm.moving_mean), last.mean(axis=(0, 1)), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        to_numpy(norm.moving_variance), last.var(axis=(0, 1)), rtol=1e-3, atol=1e-5
    )


@keras.saving.register_keras_serializable(package="tests")
class Halved(layers.Dropout):
    """A custom dropout that halves its output."""

    def call(self, inputs, training=False):
        return 0.5 * super().call(inputs, training=training)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_subclass_of_dropout_with_its_own_call_is_run(step_mode):
    inputs = keras.Input((16,))
    network = keras.Model(inputs, Halved(0.5)(rsnn.layers.LIF()(inputs)))
    outputs = to_numpy(
        spiking(network, 4, step_mode=step_mode)(
            np.full((9, 16), 2.0, "float32"), training=True
        )
    )
    assert set(np.unique(outputs)) == {0.0, 1.0}


# Windows of time.
@keras.saving.register_keras_serializable(package="tests")
class NoisyInTime(layers.Layer):
    """Draws random numbers and takes the time step, and has a constant tensor among its
    arguments."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(SEED)

    def call(self, inputs, scale, time_step=None):
        noise = keras.random.uniform(ops.shape(inputs), seed=self.generator)
        shift = 0.0 if time_step is None else 0.1 * ops.cast(time_step, inputs.dtype)
        return inputs * (1.0 + noise) * scale + shift


@keras.saving.register_keras_serializable(package="tests")
class NoisyScale(layers.Layer):
    """Draws random numbers, and has a constant tensor among its arguments."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(SEED)

    def call(self, inputs, scale):
        return (
            inputs
            * (1.0 + keras.random.uniform(ops.shape(inputs), seed=self.generator))
            * scale
        )


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("layer", [NoisyInTime, NoisyScale])
def test_one_window_per_step_is_bptt_with_noise_time_and_constants(layer, step_mode):
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    shared = keras.Model(
        inputs,
        layers.Dense(3)(layer()(x, scale=np.linspace(0.5, 1.5, 8, dtype="float32"))),
    )
    seeds = [
        (layer, ops.convert_to_numpy(layer.generator.state))
        for layer in shared.layers
        if hasattr(layer, "generator")
    ]
    x, y = data(3)

    def found(gradient):
        for of_layer, seed in seeds:
            of_layer.generator.state.assign(seed)
        return loss_and_gradients(
            spiking(shared, 4, gradient, step_mode=step_mode), x, y
        )

    (loss, by_bptt), (by_windows_loss, by_windows) = (
        found("bptt"),
        found(rsnn.gradients.Rate(windows=4)),
    )
    assert by_windows_loss == pytest.approx(loss, rel=1e-5)
    assert_close(by_windows, by_bptt, rtol=1e-4, atol=1e-6)

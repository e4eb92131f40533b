"""SpikingResformer, and the firing rates that its attention measures in training and
divides by."""

import helpers
import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, assert_trains, to_numpy, training_results
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.firing_rate_scale import FiringRateScale

pytestmark = pytest.mark.runs_once


def small(size=8, channels=3, **kwargs):
    arguments = {
        "dims": (4, 8, 8),
        "blocks": (1, 1, 1),
        "heads": (1, 2, 2),
        "group_size": 4,
        **kwargs,
    }
    return models.SpikingResformer(
        (size, size, channels), classes=3, timesteps=2, **arguments
    )


def images(size=8, channels=3):
    return helpers.data(4, (size, size, channels))


def firing(*args, **kwargs):
    """A small network whose neurons fire often, also in inference."""
    keras.utils.set_random_seed(0)
    model = small(*args, **kwargs)
    normalizations = [
        layer
        for layer in model.network.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    for layer in normalizations:
        layer.gamma.assign(np.full(layer.gamma.shape, 3.0))
        layer.beta.assign(np.full(layer.beta.shape, 0.5))
        layer.momentum = 0.0
    model(images(*args)[0], training=True)
    for layer in normalizations:
        layer.momentum = 0.9
    return model


# Firing rates.
T = 3


def spikes_of(samples=4, seed=0):
    """Spikes of two heads, of which the second is silent in some: `(samples, T, 2, 3,
    5)`."""
    random = np.random.default_rng(seed)
    return (
        random.random((samples, T, 2, 3, 5)) < np.array([0.3, 0.6])[:, None, None]
    ).astype("float32")


def scaled(momentum=0.75, **kwargs):
    """A network of neurons that pass spikes on, and sums of these, which a layer
    scales."""
    inputs = keras.Input((2, 3, 5))
    currents = layers.Dense(5, use_bias=False, kernel_initializer="identity")(inputs)
    spikes = LIF(decay=0.0, threshold=0.5)(currents)
    scale = FiringRateScale(momentum, name="scale")(spikes)
    currents = layers.Multiply()([ops.sum(spikes, axis=-1, keepdims=True), scale])
    model = rsnn.SpikingModel(
        keras.Model(inputs, layers.Flatten()(currents)), T, **kwargs
    )
    return model, model.network.get_layer("scale")


def outputs_of(model, x):
    """In training, of each step."""
    return to_numpy(
        training_results(model, x, x, lambda y, outputs: ops.sum(outputs))[2]
    )


@pytest.mark.on_each_backend
@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_rates_of_all_steps_move_once_a_batch_and_then_scale_it(gradient):
    model, layer = scaled(gradient=gradient)
    first, second = spikes_of(), spikes_of(seed=1)
    first[:, :, 1] = 0.0
    means = [x.mean(axis=(0, 1, 3, 4)) for x in (first, second)]
    outputs = outputs_of(model, first)
    # The second head has not spiked: its rate stands for 1.
    np.testing.assert_allclose(
        to_numpy(layer.firing_rate), [means[0][0], 0.0], rtol=1e-6
    )
    expected = (
        first.sum(axis=-1).mean(axis=1)
        / np.sqrt(5 * np.array([means[0][0], 1.0]))[:, None]
    )
    np.testing.assert_allclose(outputs, expected.reshape(4, 6), rtol=1e-5)
    outputs = outputs_of(model, second)
    rates = [0.75 * means[0][0] + 0.25 * means[1][0], means[1][1]]
    np.testing.assert_allclose(to_numpy(layer.firing_rate), rates, rtol=1e-6)
    expected = second.sum(axis=-1).mean(axis=1) / np.sqrt(5 * np.array(rates))[:, None]
    np.testing.assert_allclose(outputs, expected.reshape(4, 6), rtol=1e-5)
    np.testing.assert_allclose(model.predict(second, verbose=0), outputs, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.firing_rate), rates, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["bptt", "rate", "sltt", "ottt"])
def test_rates_of_each_step_move_in_single_step_mode(gradient):
    model, layer = scaled(gradient=gradient, step_mode="single")
    x, rate, expected = spikes_of(), None, 0.0
    for t in range(T):
        mean = x[:, t].mean(axis=(0, 2, 3))
        rate = mean if rate is None else 0.75 * rate + 0.25 * mean
        expected = expected + x[:, t].sum(axis=-1) / np.sqrt(5 * rate)[:, None] / T
    np.testing.assert_allclose(outputs_of(model, x), expected.reshape(4, 6), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.firing_rate), rate, rtol=1e-6)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_padding_counts_in_no_rate_and_frozen_rates_stay(step_mode):
    x, lengths = spikes_of(), np.array([3, 1, 2, 0])
    mask = np.arange(T) < lengths[:, None]
    for gradient in ("bptt", "rate"):
        model, layer = scaled(gradient=gradient, step_mode=step_mode, mask_value=-9.0)
        outputs_of(model, np.where(mask[:, :, None, None, None], x, -9.0))
        by_step = [x[mask[:, t], t].mean(axis=(0, 2, 3)) for t in range(T)]
        expected = x[mask].mean(axis=(0, 2, 3))
        if step_mode == "single":
            expected = (
                0.75 * (0.75 * by_step[0] + 0.25 * by_step[1]) + 0.25 * by_step[2]
            )
        np.testing.assert_allclose(to_numpy(layer.firing_rate), expected, rtol=1e-6)
        layer.trainable = False
        outputs_of(model, x)
        np.testing.assert_allclose(to_numpy(layer.firing_rate), expected, rtol=1e-6)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_rate_gradient_is_bptts_at_one_step_also_compiled_and_in_half_precision(
    step_mode,
):
    x, found = spikes_of()[:, :1], []
    for gradient in ("rate", "bptt"):
        model = rsnn.SpikingModel(scaled()[0].network, 1, gradient, step_mode)
        _, gradients, outputs = training_results(
            model, x, x, lambda y, outputs: ops.sum(ops.square(outputs))
        )
        found.append([*gradients.values(), outputs])
    assert found[0][0].any()
    assert_close(*found, rtol=1e-5)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, layer = scaled(step_mode=step_mode)
    model.compile("sgd", "mse", jit_compile=BACKEND != "torch")
    assert np.isfinite(
        model.fit(spikes_of(), np.zeros((4, 6)), verbose=0).history["loss"]
    ).all()
    assert to_numpy(layer.firing_rate) == pytest.approx([0.3, 0.6], rel=0.2)


# Networks.
def test_samples_are_independent_and_a_step_reaches_every_kernel_in_both_layouts(
    tmp_path,
):
    model, (x, y) = firing(16), images(16)
    outputs = model.predict(x, verbose=0)
    assert np.ptp(outputs, axis=0).min() > 0
    np.testing.assert_allclose(
        model.predict(x[::-1], verbose=0)[::-1], outputs, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        model.predict(x[2:3], verbose=0), outputs[2:3], rtol=1e-4, atol=1e-5
    )
    model.save(tmp_path / "some.keras")
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "some.keras").predict(x, verbose=0), outputs
    )
    np.testing.assert_array_equal(
        small(16, weights=tmp_path / "some.keras").predict(x, verbose=0), outputs
    )
    counted = rsnn.analysis.energy(model, x)
    assert counted.not_counted == ()
    # The products of attention, of spikes.
    assert len([name for name in counted.layers if "matmul" in name]) == 6
    assert counted.multiply_adds[1:-1].sum() == 0
    if BACKEND != "tensorflow":  # It has no channels_first convolutions on a CPU.
        keras.config.set_image_data_format("channels_first")
        first = models.SpikingResformer(
            (3, 16, 16),
            classes=3,
            timesteps=2,
            dims=(4, 8, 8),
            blocks=(1, 1, 1),
            heads=(1, 2, 2),
            group_size=4,
        )
        first.set_weights(model.get_weights())
        found = first.predict(x.transpose(0, 3, 1, 2), verbose=0)
        np.testing.assert_allclose(found, outputs, rtol=1e-3, atol=1e-4)
        keras.config.set_image_data_format("channels_last")
    assert_trains(model, x, y)


@pytest.mark.parametrize(
    ("gradient", "step_mode", "precision"),
    [
        # XLA takes long.
        pytest.param(
            "rate",
            "multi",
            "mixed_bfloat16",
            marks=[pytest.mark.on_each_backend, pytest.mark.slow],
        ),
        ("rate", "single", "float32"),
        ("sltt", "single", "float32"),
        ("ottt", "single", "float32"),
    ],
)
def test_networks_are_compiled_and_trained_by_every_method(
    gradient, step_mode, precision
):
    keras.config.set_dtype_policy(precision)
    model = small(gradient=gradient, step_mode=step_mode, blocks=(1, 1, 1))
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = model.fit(*images(), batch_size=4, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    rates = [
        to_numpy(layer.firing_rate)
        for layer in model.network.layers
        if isinstance(layer, FiringRateScale)
    ]
    assert len(rates) == 6
    assert rates[0].all()


def test_the_stem_and_the_heads_depend_on_images_and_channels():
    with keras.StatelessScope(initialize_variables=False):
        model, large = models.SpikingResformer((32, 48, 3)), models.SpikingResformer()
    assert model.network.get_layer("stem_bn").output.shape == (None, 32, 48, 64)
    assert large.network.get_layer("stem_pool").output.shape == (None, 56, 56, 64)
    maps = [f"stage{stage}_block1_attention_neuron" for stage in (1, 2, 3)]
    assert [model.network.get_layer(name).output.shape[1:] for name in maps] == [
        (1, 1536, 96),
        (3, 384, 96),
        (6, 96, 96),
    ]
    assert [large.network.get_layer(name).output.shape[1:] for name in maps] == [
        (1, 3136, 196),
        (3, 784, 196),
        (6, 196, 196),
    ]
    assert not model.network.get_layer("classifier").use_bias


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"),
    [
        ({"dims": 384}, TypeError, ["`dims` must be a tuple", "dims=384"]),
        ({"dims": (64, 128)}, ValueError, ["`dims` must have three entries"]),
        ({"blocks": (1, 0, 1)}, ValueError, ["`blocks[1]` must be 1 or more"]),
        (
            {"heads": (1, 3, 2)},
            ValueError,
            ["`heads` must divide", "4 and 8 and 8", "heads=(1, 3, 2)"],
        ),
        (
            {"heads": None},
            ValueError,
            ["`heads` must divide", "heads=None, which stands for (0, 0, 0)"],
        ),
        (
            {"group_size": 3},
            ValueError,
            ["`group_size` must divide", "16 and 32 and 32", "group_size=3"],
        ),
        ({"mlp_ratio": 0}, ValueError, ["`mlp_ratio` must be 1 or more"]),
        ({"size": 10}, ValueError, ["multiples of 4", "stem='cifar'", "(10, 10, 3)"]),
        ({"size": 104}, ValueError, ["multiples of 16", "stem='imagenet'"]),
        (
            {"size": None, "stem": "cifar"},
            ValueError,
            ["`input_shape` must have a known height and width"],
        ),
        ({"stem": "dvs"}, ValueError, ["`stem` must be one of"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_wrong_arguments_are_named(arguments, error, fragments):
    with (
        keras.StatelessScope(initialize_variables=False),
        pytest.raises(error) as raised,
    ):
        small(**arguments)
    assert [
        fragment for fragment in fragments if fragment not in str(raised.value)
    ] == [], raised.value

"""The Keras masks of the network's outputs are those of the model's: losses, metrics
and outer layers leave padding out."""

import keras
import numpy as np
import pytest
from helpers import loss_and_gradients, to_numpy, training_step
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate
from keras_ratesnn.metrics import AnytimeAccuracy

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)

WORDS = np.array([[1, 2, 0, 0, 0], [3, 1, 2, 5, 0], [4, 4, 4, 4, 4]])
IS_WORD = WORDS != 0


def tagger():
    """A network that labels each word, `(batch, 5, 2)`."""
    keras.utils.set_random_seed(0)
    words = keras.Input((5,), dtype="int32")
    x = rsnn.layers.LIF(0.2, 0.1)(layers.Embedding(8, 4, mask_zero=True)(words))
    return keras.Model(
        words, layers.Dense(2)(rsnn.layers.LIF(0.2, 0.1)(layers.Dense(6)(x)))
    )


def labels(of_padding, timesteps=None):
    made = np.where(IS_WORD[..., None], np.ones((3, 5, 2)), of_padding).astype(
        "float32"
    )
    return made if timesteps is None else np.repeat(made[:, None], timesteps, axis=1)


def model_and_labels(gradient, step_mode, return_sequences):
    """A compiled tagger, labels, and other labels of the padding; the loss and the
    metric are those of the words."""
    model = rsnn.SpikingModel(tagger(), 2, gradient, step_mode, return_sequences)
    model.compile("sgd", "mse", metrics=["mae"])
    y, other = (
        labels(of_padding, 2 if return_sequences else None) for of_padding in (0.0, 9.0)
    )
    is_word = np.repeat(IS_WORD[:, None], 2, axis=1) if return_sequences else IS_WORD
    errors = (to_numpy(model(WORDS)) - y)[is_word]
    found = model.evaluate(WORDS, y, verbose=0, return_dict=True)
    assert found == pytest.approx(
        {"loss": np.square(errors).mean(), "mae": np.abs(errors).mean()}, rel=1e-5
    )
    assert model.evaluate(WORDS, other, verbose=0, return_dict=True) == pytest.approx(
        found, rel=1e-6
    )
    return model, y, other


@pytest.mark.parametrize(
    ("gradient", "step_mode", "return_sequences"),
    [
        ("rate", "multi", False),
        (Rate(windows=2), "single", True),
        ("bptt", "multi", True),
        ("sltt", "single", False),
        (SLTT(recompute=False), "single", True),
        ("ottt", "multi", False),
    ],
)
def test_padding_counts_in_no_loss(gradient, step_mode, return_sequences):
    model, y, other = model_and_labels(gradient, step_mode, return_sequences)
    loss = keras.losses.MeanSquaredError()
    step = training_step(model, loss)
    one, another = (step(WORDS, of_it) for of_it in (y, other))
    assert one[0] == pytest.approx(another[0], rel=1e-6)
    for gradients in zip(one[1].values(), another[1].values(), strict=True):
        np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-7)
    assert any(np.any(each) for each in one[1].values())
    history = model.fit(WORDS, y, verbose=0, validation_data=(WORDS, other)).history
    assert np.isfinite(history["loss"] + history["val_loss"]).all()


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_padding_counts_in_no_loss_of_random_steps(step_mode):
    model, y, other = model_and_labels(
        SLTT(random_steps=1), step_mode, return_sequences=True
    )
    before = model.evaluate(WORDS, y, verbose=0)[0]
    assert model.train_on_batch(WORDS, other, return_dict=True)[
        "loss"
    ] == pytest.approx(before, rel=1e-5)
    assert np.isfinite(
        model.fit(WORDS, other, batch_size=2, verbose=0).history["loss"]
    ).all()


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_time_mean_counts_where_a_step_counts(step_mode):
    frames = np.random.default_rng(0).normal(1.0, 1.0, (4, 3, 5, 2)).astype("float32")
    frames[np.random.default_rng(1).random((4, 3, 5)) < 0.6] = 0.0
    inputs = keras.Input((5, 2))
    network = keras.Model(
        inputs, layers.Dense(2)(rsnn.layers.IF()(layers.Masking()(inputs)))
    )
    model, counts = rsnn.SpikingModel(network, 3, step_mode=step_mode), frames.any(-1)
    assert not (counts == counts[:, :1]).all()
    np.testing.assert_array_equal(to_numpy(model(frames)._keras_mask), counts.any(1))
    model.return_sequences = True
    np.testing.assert_array_equal(to_numpy(model(frames)._keras_mask), counts)


def test_a_model_without_masks_has_none():
    inputs = keras.Input((5, 3))
    spikes = rsnn.layers.IF()(layers.Masking()(inputs))
    pooled = rsnn.SpikingModel(
        keras.Model(inputs, layers.GlobalAveragePooling1D()(spikes)), 2
    )
    outer = keras.Input((5, 3))
    model = keras.Model(outer, layers.Dense(2)(pooled(layers.Masking()(outer))))
    assert getattr(pooled(np.ones((2, 5, 3))), "_keras_mask", None) is None
    assert to_numpy(model(np.ones((2, 5, 3)))).shape == (2, 2)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_masks_pass_through_a_model_inside_a_model(precision):
    """T = 1 and integers: the spiking network computes what its network computes in one
    step."""
    frames = np.array([[[4, 4, 4], [2, 2, 2], [0, 0, 0], [0, 0, 0]]], "float32")

    def outer_of(wrap):
        inputs, inside = keras.Input((4, 3)), keras.Input((4, 3))
        part = keras.Model(
            inside,
            rsnn.layers.IF(1.0)(layers.Dense(3, kernel_initializer="identity")(inside)),
        )
        return keras.Model(
            inputs,
            layers.GlobalAveragePooling1D()(wrap(part)(layers.Masking()(inputs))),
        )

    keras.config.set_dtype_policy(precision)
    try:
        plain, spiking = (
            outer_of(lambda part: part),
            outer_of(lambda part: rsnn.SpikingModel(part, 1)),
        )
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(
        to_numpy(spiking(frames)).astype("float32"), [[1.0, 1.0, 1.0]]
    )
    np.testing.assert_array_equal(to_numpy(spiking(frames)), to_numpy(plain(frames)))


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt", "sltt"])
def test_a_mask_that_a_nested_model_is_called_with_counts(gradient, step_mode):
    inside, inputs, mask = (
        keras.Input((5, 3)),
        keras.Input((5, 3)),
        keras.Input((5,), dtype="bool"),
    )
    pooling = keras.Model(
        inside, layers.GlobalAveragePooling1D()(layers.Identity()(inside))
    )
    network = keras.Model(
        [inputs, mask],
        rsnn.layers.LIF(0.0, 0.1)(layers.Dense(4)(pooling(inputs, mask=mask))),
    )
    random = np.random.default_rng(0)
    x, counts = (
        random.normal(0.0, 3.0, (4, 5, 3)).astype("float32"),
        np.array([[True, True, False, True, False]] * 4),
    )
    other = np.where(counts[..., None], x, 100.0).astype("float32")
    model = rsnn.SpikingModel(network, 2, gradient, step_mode)
    results = [
        loss_and_gradients(
            model, [each, counts], np.ones((4, 4)), keras.losses.MeanSquaredError()
        )
        for each in (x, other)
    ]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    for gradients in zip(results[0][1].values(), results[1][1].values(), strict=True):
        np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-7)
    single = rsnn.SpikingModel(network, 1, gradient, step_mode)
    np.testing.assert_array_equal(
        to_numpy(single([x, counts])), to_numpy(network([x, counts]))
    )


def test_a_loss_on_every_step_leaves_padding_out():
    model = rsnn.SpikingModel(tagger(), 3, return_sequences=True)
    model.compile(
        "sgd",
        rsnn.losses.TET(keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
    )
    y, other = (np.where(IS_WORD, 1, of_padding) for of_padding in (0, 1))
    assert model.evaluate(WORDS, y, verbose=0) == pytest.approx(
        model.evaluate(WORDS, other, verbose=0), rel=1e-6
    )
    outputs = to_numpy(model(WORDS))
    losses = -np.log(np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True))[..., 1]
    each = 0.95 * losses.mean(1) + 0.05 * np.square(outputs - 1.0).mean((1, 3))
    assert model.evaluate(WORDS, other, verbose=0) == pytest.approx(
        each[IS_WORD].mean(), rel=1e-5
    )


def test_what_follows_a_time_mean_sees_the_mask():
    keras.utils.set_random_seed(0)
    words = keras.Input((5,), dtype="int32")
    spikes = rsnn.layers.LIF(0.2, 0.1)(layers.Embedding(8, 4, mask_zero=True)(words))
    pooled = layers.GlobalAveragePooling1D()(rsnn.layers.TimeMean()(spikes))
    model, rates = (
        rsnn.SpikingModel(keras.Model(words, pooled), 4),
        rsnn.SpikingModel(keras.Model(words, spikes), 4),
    )
    expected = (to_numpy(rates(WORDS)) * IS_WORD[..., None]).sum(1) / IS_WORD.sum(
        1, keepdims=True
    )
    np.testing.assert_allclose(to_numpy(model(WORDS)), expected, rtol=1e-6)
    assert ops.is_tensor(rates(WORDS)._keras_mask)


@pytest.mark.parametrize(
    "weights", [None, np.arange(1.0, 16.0, dtype="float32").reshape(3, 5)]
)
def test_the_accuracy_after_each_step_leaves_padding_out(weights):
    model = rsnn.SpikingModel(tagger(), 3, return_sequences=True)
    loss, metric = (
        rsnn.losses.TET(keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        AnytimeAccuracy(3),
    )
    model.compile("sgd", loss, weighted_metrics=[metric])
    y = np.random.default_rng(1).integers(0, 2, WORDS.shape)
    outputs = model(WORDS)
    right = np.cumsum(to_numpy(outputs), axis=1).argmax(-1) == y[:, None]

    def expected(weights):
        return [np.average(right[:, t], weights=IS_WORD * weights) for t in range(3)]

    found = model.evaluate(WORDS, y, sample_weight=weights, verbose=0, return_dict=True)
    found = [found[f"accuracy_t{t}"] for t in (1, 2, 3)]
    np.testing.assert_allclose(
        found, expected(1.0 if weights is None else weights), rtol=1e-5
    )
    # A weight for each sample.
    metric.reset_state()
    metric.update_state(y, outputs, [1.0, 2.0, 0.5])
    np.testing.assert_allclose(
        to_numpy([*metric.result().values()]),
        expected([[1.0], [2.0], [0.5]]),
        rtol=1e-5,
    )

"""Time steps that are padding: sequences of unequal length.

That a batch of padded sequences gives what each sequence gives alone is in the contract
of layers. Here are gaps, statistics of a batch, which are those of its valid steps, and
where masks come from.
"""

import keras
import numpy as np
import pytest
from helpers import (
    assert_same,
    both_step_modes,
    chain,
    compiled,
    only_on,
    rate_and_sltt,
    saved_and_loaded,
    spiking,
    to_numpy,
    two_methods,
)
from keras import layers, ops
from masked_results import (
    MASK,
    T,
    Y,
    results,
)

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate
from keras_ratesnn.layers import LIF, LeakyReadout, ParametricLIF, TimeMean


def frames(timesteps=T):
    random = np.random.default_rng(0)
    return random.normal(0.8, 1.0, (4, timesteps, 6)).astype("float32")


def padded_with(value, x, mask=MASK):
    return np.where(mask[..., None], x, np.float32(value))


def network(normalization=layers.BatchNormalization):
    """Neurons with learned weights and both resets, an operation that is not affine,
    and a skip connection."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = normalization()(layers.Dense(8)(inputs))
    x = ParametricLIF(0.5, learn_threshold=True)(x)
    y = normalization()(layers.Dense(8, activation="tanh")(x))
    y = LIF(0.5, 0.3, reset="hard")(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(y))


def neurons(**kwargs):
    """A model of neurons alone."""
    return spiking(chain(LIF(0.5), name="events"), T, **kwargs)


@rate_and_sltt
def test_in_gaps_the_state_waits(gradient, step_mode):
    mask = np.random.default_rng(1).random((4, T)) < 0.6
    mask[:, 2] = True
    order = np.argsort(~mask, axis=1, kind="stable")
    in_order = np.take_along_axis(mask, order, axis=1)
    first = np.take_along_axis(frames(), order[..., None], axis=1)
    found, expected = (
        results(
            spiking(network(layers.Identity), T, gradient, step_mode=step_mode),
            x,
            mask=counts,
        )
        for x, counts in (
            (padded_with(np.nan, frames(), mask), mask),
            (first, in_order),
        )
    )
    assert_same(found, expected)


@both_step_modes
def test_statistics_are_those_of_the_valid_steps(step_mode):
    """In multi-step mode of all of them at once, in single-step mode of those of each
    step; one that is padding for all samples moves no average."""
    mask = MASK & (np.arange(T) < 3)
    x = frames()
    parts = [x[mask]]
    if step_mode == "single":
        parts = [x[mask[:, t], t] for t in range(3)]
    layer = layers.BatchNormalization(momentum=0.5)
    model = spiking(chain(layer, LIF()), T, "rate", step_mode=step_mode)
    model(padded_with(np.nan, x), mask=mask, training=True)
    mean, variance = np.zeros(6), np.ones(6)
    for part in parts:
        mean = 0.5 * (mean + part.mean(axis=0))
        variance = 0.5 * (variance + part.var(axis=0))
    assert_same(to_numpy([layer.moving_mean, layer.moving_variance]), [mean, variance])


def test_steps_of_few_sequences_do_not_dominate_the_rate_gradient():
    """One or two sequences have no variance of their own: only ε is then in the
    denominator, but nothing depends on it."""
    lengths = np.array([[5, 3, 3, 3], [5, 2, 3, 1]])
    mask, has_frame = np.arange(5) < lengths[..., None]
    x, norms = padded_with(0.0, frames(5), has_frame), []
    for epsilon in (1e-3, 1e-7):
        model = spiking(network(), 5, step_mode="single")
        for layer in model.network.layers:
            layer.epsilon = epsilon
        norms.append(np.linalg.norm(results(model, x, mask=mask)[1]))
    assert norms[0] / 2 < norms[1] < norms[0] * 2


class Shares(keras.layers.Layer):
    """Each feature as a share of all: NaN for a step of zeros."""

    def call(self, inputs):
        return inputs / ops.sum(inputs, axis=-1, keepdims=True)


@two_methods
def test_operations_that_are_nan_for_zeros_give_no_nan_in_padding(gradient, step_mode):
    hidden = layers.Dense(6, use_bias=False, kernel_initializer="ones")
    parts = [Shares(), layers.Dense(8), LIF(0.5, 0.1), layers.Dense(3)]
    network = chain(hidden, *parts)
    model = spiking(network, T, gradient, step_mode=step_mode)
    for mask in (MASK, np.zeros_like(MASK)):
        found = results(model, padded_with(0.0, np.abs(frames()), mask), mask=mask)
        assert all(np.isfinite(result).all() for result in found)
        # Without any step that counts there is no gradient.
        assert found[2].any() == mask.any()


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), (Rate(windows=T), "single")],
    ids=str,
)
def test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike(
    gradient, step_mode
):
    """Neurons without memory, on the same frame at each step: also with the statistics
    of a batch. In single-step mode each step has those of the samples that it counts
    for."""
    x = np.repeat(frames()[:, :1], T, axis=1)

    def results_of(gradient):
        keras.utils.set_random_seed(0)
        parts = []
        for _ in range(2):
            parts += [layers.Dense(8), layers.BatchNormalization(), LIF(0.0, 0.5)]
        network = chain(*parts, layers.Dense(3))
        return results(spiking(network, T, gradient, step_mode=step_mode), x)

    assert_same(results_of(gradient), results_of("bptt"), rtol=1e-3)


@two_methods
def test_outputs_of_every_step_are_masked(gradient, step_mode):
    """Those of a readout, too; the outputs of a step depend on no later one."""
    inputs = keras.Input((6,))
    logits = layers.Dense(3)(LIF(0.5)(layers.Dense(8)(inputs)))
    readout = layers.Softmax()(LeakyReadout(0.8)(logits))
    network = keras.Model(inputs, [logits, readout])
    model = spiking(network, T, gradient, step_mode=step_mode, return_sequences=True)
    found = model(padded_with(np.nan, frames()), mask=MASK)
    for output, expected in zip(found, model.predict_on_batch(frames()), strict=True):
        np.testing.assert_array_equal(to_numpy(output._keras_mask), MASK)
        assert not to_numpy(output)[~MASK].any()
        output, expected = to_numpy(output)[MASK], expected[MASK]
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_fit_takes_padded_arrays():
    """`mask_value` says what padding is, and is saved; a smaller last batch, other
    validation data, evaluation and prediction with it."""
    model = spiking(network(layers.Identity), T, mask_value=-1.0)
    compiled(model, metrics=["accuracy"])
    x, y = padded_with(-1.0, frames()), Y
    validation = x[:2], y[:2]
    sizes = {"batch_size": 3, "verbose": 0}
    fitted = model.fit(x, y, validation_data=validation, **sizes)
    assert np.isfinite(list(fitted.history.values())).all()
    evaluated = model.evaluate(x, y, return_dict=True, **sizes)
    found = model.predict(x, **sizes)
    right = np.mean(np.argmax(found, axis=-1) == y)
    assert evaluated["accuracy"] == pytest.approx(right)
    loaded = saved_and_loaded(model)(x)
    model.mask_value = None
    for output in (loaded, model(x, mask=MASK)):
        np.testing.assert_allclose(found, to_numpy(output), rtol=1e-4, atol=1e-5)
    assert not np.allclose(to_numpy(model(x)), found)


def test_a_layer_in_the_network_that_masks_time_steps_is_an_error():
    embedding = layers.Embedding(9, 4, mask_zero=True)
    for network, name in (
        (chain(chain(layers.Masking(-1.0)), LIF()), "Masking"),
        (chain(embedding, LIF(), shape=(), dtype="int32"), "Embedding"),
    ):
        message = rf"must not mask time steps(?s:.)*of type {name}(?s:.)*mask_value"
        with pytest.raises(ValueError, match=message):
            rsnn.SpikingModel(network, 3)


def test_layers_may_mask_rows_of_a_step_and_samples_after_the_end_of_time():
    pooling = layers.GlobalAveragePooling1D()
    rows = chain(layers.Masking(), LIF(), pooling, shape=(3, 6))
    means = chain(LIF(), TimeMean(), layers.Masking())
    for network in (rows, means):
        assert rsnn.SpikingModel(network, 2).output_shape == (None, 6)


def test_one_mask_serves_several_inputs_with_time():
    """One may hold a value that another cannot. In statistics of one without time each
    sample counts as often as it has steps."""
    inputs = [keras.Input((6,), name="frames"), keras.Input((6,), name="image")]
    norm = layers.BatchNormalization(momentum=0.0)
    currents = layers.Add()([inputs[0], norm(inputs[1])])
    network = keras.Model(inputs, LIF(0.5)(currents))
    model = spiking(network, T, mask_value=-1.0)
    moving, image = padded_with(-1.0, frames()), frames()[:, 0]
    expected = to_numpy(model([moving, image]))
    events = np.zeros((4, T, 6), "uint8")
    without_events = to_numpy(model([moving, events[:, 0]]))
    model.mask_value = None
    by_name = {"frames": MASK, "image": None}
    for found in (
        model([moving, image], mask=MASK),
        model({"frames": moving, "image": image}, mask=by_name),
    ):
        np.testing.assert_array_equal(to_numpy(found), expected)
    model.mask_value = -1.0
    np.testing.assert_array_equal(to_numpy(model([moving, events])), without_events)
    model([moving, image], training=True)
    counts = MASK.sum(axis=1)
    found, expected = to_numpy(norm.moving_mean), counts @ image / counts.sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_padding_is_found_in_data_of_every_dtype_that_holds_it():
    """5.1 is another number in each precision; what is in integers need not be in the
    dtype that the network wants."""
    model = neurons(return_sequences=True, mask_value=5.1)
    padded = padded_with(5.1, frames())
    kinds = [padded.astype(dtype) for dtype in ("float16", "float32", "float64")]
    for x in (*kinds, ops.cast(padded, "bfloat16")):
        np.testing.assert_array_equal(to_numpy(model(x)._keras_mask), MASK)
    # Keras casts what it gets from NumPy. Without a mask, such currents cause spikes.
    assert not model.predict(kinds[0], verbose=0)[~MASK].any()
    for dtype, value in (
        ("uint8", 255),
        ("int32", -7),
        ("bool", 1),
        ("float16", -np.inf),
    ):
        model.mask_value = value
        x = np.zeros((4, T, 6), dtype)
        x[~MASK] = value
        for batch in (x, ops.convert_to_tensor(x)):
            np.testing.assert_array_equal(to_numpy(model(batch)._keras_mask), MASK)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 300),
        ("int8", 5.5),
        ("int32", np.nan),
        ("float16", 1e-9),
    ],
)
def test_a_value_that_the_data_cannot_hold_is_an_error(dtype, value):
    """None of it would be found in them. A mask says what is padding."""
    model, x = compiled(neurons(mask_value=value)), np.zeros((4, T, 6), dtype)
    message = (
        r"`mask_value` must be .* the data can hold. Received: mask_value=.* for "
        rf"input 'events' of dtype {dtype}, .* mask"
    )
    for run in (model, model.predict, model.train_on_batch):
        with pytest.raises(ValueError, match=message):
            run(x)
    assert model(x, mask=MASK).shape == (4, 6)
    with pytest.raises(ValueError, match="data without time"):
        model.predict(x[:, 0], verbose=0)


NO_BOOLEANS = "must hold booleans. Received: a mask"
ERRORS = [
    (
        np.ones((4, T + 1), bool),
        r"`mask` of input .* must have the shape \(batch, time\).*\(4, 5\)",
    ),
    (
        MASK.tolist(),
        "`mask` must be a boolean tensor or array.*mask of type list with True in it",
    ),
    (
        {"other": MASK},
        r"`mask` must be a single mask, or masks in a structure like the "
        r"inputs.*\['other'\]",
    ),
    (
        MASK.astype("U"),
        rf"`mask` of input .* {NO_BOOLEANS} of dtype <U5. False and 0 are padding",
    ),
    (
        ops.convert_to_tensor(MASK.astype("complex64")),
        f"{NO_BOOLEANS} of dtype .*complex64",
    ),
    (np.where(MASK, np.nan, 0.0), f"{NO_BOOLEANS} with nan in it"),
    (
        np.arange(T) < np.array([5, 0, 3, 1])[:, None],
        r"at least one time step.*1 of 4 samples, the first of them sample 1",
    ),
]


@pytest.mark.parametrize(("mask", "message"), ERRORS)
def test_masks_that_do_not_fit_are_errors(mask, message):
    with pytest.raises((TypeError, ValueError), match=message):
        neurons()(frames(), mask=mask)


@pytest.mark.parametrize("use", ["fit", "evaluate", "predict_on_batch"])
def test_methods_that_take_data_say_where_their_masks_come_from(use):
    labels = {} if use.startswith("predict") else {"y": Y}
    message = (
        rf"^`{use}` has no argument `mask`(?s:.)*mask_value=(?s:.)*"
        r"keras\.layers\.Masking"
    )
    with pytest.raises(TypeError, match=message):
        getattr(compiled(neurons()), use)(frames(), **labels, mask=MASK)


@only_on("tensorflow", "other backends know the rank of each tensor")
def test_a_mask_of_unknown_rank_is_an_error_that_says_to_set_its_shape():
    import tensorflow as tf

    model = neurons()

    @tf.function(
        input_signature=[tf.TensorSpec((None, T, 6)), tf.TensorSpec(None, "bool")]
    )
    def call(x, mask):
        return model(x, mask=mask)

    message = (
        r"`mask` must have a known number of axes.*Received: a mask of unknown "
        r"rank.*tf.ensure_shape\(mask, \(None, 4\)\)"
    )
    with pytest.raises(ValueError, match=message):
        call(frames(), MASK)


def test_samples_that_are_all_padding_are_errors_before_anything_runs():
    x = frames().astype("float16")
    x[2] = 5.1
    message = "only padding in 1 of 4 samples, the first of them sample 2"
    with pytest.raises(ValueError, match=message):
        neurons(mask_value=5.1).predict(x, verbose=0)


def test_what_needs_time_or_sequences_of_equal_length_refuses_a_mask():
    with pytest.raises(ValueError, match="The input has no time, so that no step of"):
        neurons()(frames()[:, 0], mask=MASK)
    method = Rate(last_step_statistics=True)
    last_step = spiking(network(), T, method, step_mode="single")
    with pytest.raises(ValueError, match=r"last_step_statistics=True.*padding"):
        results(last_step, frames())
    coupled = chain(LIF(threshold_stabilizer=True))
    with pytest.raises(ValueError, match="threshold_stabilizer=True"):
        spiking(coupled, T, "bptt")(frames(), mask=MASK)

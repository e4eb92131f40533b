"""Time steps that are padding: sequences of unequal length, with every method, in both
step modes.

A batch of padded sequences gives what each sequence gives alone, at its own number of
steps. What is in the padding, NaN included, changes nothing. Statistics of a batch are
those of its valid steps.
"""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_same,
    compiled,
    saved_and_loaded,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops
from masked_results import (
    EACH_ONCE,
    FEW,
    LENGTHS,
    MASK,
    STEP_MODES,
    T,
    WithMask,
    Y,
    results,
    results_of_each,
)

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate


def frames(seed=0, features=(6,), timesteps=T):
    return (
        np.random.default_rng(seed)
        .normal(0.8, 1.0, (len(LENGTHS), timesteps, *features))
        .astype("float32")
    )


def padded_with(value, x, mask=MASK):
    return np.where(
        mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, np.float32(value)
    )


def network(normalizing=False, decay=0.5):
    """Neurons with learned weights and both resets, an operation that is not affine,
    and a skip connection."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.Dense(8)(inputs)
    x = layers.BatchNormalization(momentum=0.5, epsilon=1e-3)(x) if normalizing else x
    x = rsnn.layers.ParametricLIF(decay, learn_threshold=True)(x)
    y = layers.Dense(8, activation="tanh")(x)
    y = layers.BatchNormalization(momentum=0.5, epsilon=1e-3)(y) if normalizing else y
    y = rsnn.layers.LIF(decay, 0.3, reset="hard")(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(y))


def normalizing_network():
    return network(normalizing=True)


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_steps_that_are_padding_may_be_anywhere(step_mode):
    """Padding before a sequence, and gaps: the state waits."""
    mask = np.random.default_rng(1).random((4, T)) < 0.6
    mask[:, 2] = True
    x, order = frames(), np.argsort(~mask, axis=1, kind="stable")
    first = np.take_along_axis(x, order[..., None], axis=1)
    for gradient in ("rate", "sltt"):
        anywhere = results(
            spiking(network(), T, gradient, step_mode=step_mode),
            padded_with(9.0, x, mask),
            mask=mask,
        )
        at_the_end = results(
            spiking(network(), T, gradient, step_mode=step_mode),
            first,
            mask=np.sort(~mask, axis=1) == 0,
        )
        assert_same(anywhere, at_the_end, gradient)


@pytest.mark.parametrize(("gradient", "step_mode"), EACH_ONCE, ids=str)
def test_what_is_in_the_padding_changes_nothing(gradient, step_mode):
    x = frames()
    model = spiking(normalizing_network(), T, gradient, step_mode=step_mode)
    expected, found = results_of_each(
        model, [padded_with(value, x) for value in (0.0, np.nan)]
    )
    assert all(np.isfinite(result).all() for result in expected)
    assert_same(found, expected, gradient, rtol=0.0)


@pytest.mark.parametrize(("gradient", "step_mode"), FEW)
def test_a_mask_of_ones_is_no_mask(gradient, step_mode):
    found, expected = (
        results(
            spiking(normalizing_network(), T, gradient, step_mode=step_mode),
            frames(),
            mask=mask,
        )
        for mask in (np.ones_like(MASK), None)
    )
    # A normalisation with weights sums in another order.
    assert_same(found, expected, gradient)


def test_statistics_are_those_of_the_valid_steps():
    """In multi-step mode of all of them at once, in single-step mode of those of each
    step."""
    x = frames()
    for step_mode, parts in (
        ("multi", [x[MASK]]),
        ("single", [x[MASK[:, t], t] for t in range(T)]),
    ):
        inputs = keras.Input((6,))
        layer = layers.BatchNormalization(momentum=0.5, epsilon=1e-3)
        model = spiking(
            keras.Model(inputs, rsnn.layers.LIF()(layer(inputs))),
            T,
            "rate",
            step_mode=step_mode,
        )
        results(model, padded_with(np.nan, x), loss=lambda y, outputs: ops.sum(outputs))
        mean, variance = np.zeros(6), np.ones(6)
        for part in parts:
            mean, variance = (
                0.5 * (mean + part.mean(axis=0)),
                0.5 * (variance + part.var(axis=0)),
            )
        np.testing.assert_allclose(
            to_numpy(layer.moving_mean), mean, rtol=1e-4, atol=1e-6, err_msg=step_mode
        )
        np.testing.assert_allclose(
            to_numpy(layer.moving_variance), variance, rtol=1e-4, err_msg=step_mode
        )


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_a_step_that_is_padding_for_all_samples_moves_no_average(step_mode):
    mask, x = np.arange(T) < np.array([2, 1, 2, 2])[:, None], frames()
    short = results(
        spiking(normalizing_network(), 2, "bptt", step_mode=step_mode),
        x[:, :2],
        mask=mask[:, :2],
    )
    long = results(
        spiking(normalizing_network(), T, "bptt", step_mode=step_mode), x, mask=mask
    )
    assert_same(long, short)


def test_steps_of_few_sequences_do_not_dominate_the_rate_gradient():
    """One or two sequences have no variance of their own: only ε is then in the
    denominator, but nothing depends on it."""
    mask = np.arange(5) < np.array([5, 3, 3, 3])[:, None]
    x = padded_with(
        0.0, frames(timesteps=5), np.arange(5) < np.array([5, 2, 3, 1])[:, None]
    )
    for gradient in ("rate", Rate(windows=(2, 3))):
        norms = []
        for epsilon in (1e-3, 1e-7):
            model = spiking(normalizing_network(), 5, gradient, step_mode="single")
            for layer in model.network.layers:
                layer.epsilon = epsilon
            norms.append(np.linalg.norm(results(model, x, mask=mask)[1]))
        assert norms[0] / 2 < norms[1] < norms[0] * 2, (gradient, norms)


@pytest.mark.parametrize(("gradient", "step_mode"), EACH_ONCE, ids=str)
def test_samples_that_are_all_padding_have_no_gradient(gradient, step_mode):
    model = spiking(normalizing_network(), T, gradient, step_mode=step_mode)
    masked = WithMask(model, np.zeros_like(MASK))
    _, gradients, outputs = training_results(masked, np.full((4, T, 6), np.nan), Y)
    assert not any(result.any() for result in (*gradients.values(), outputs))


class Shares(keras.layers.Layer):
    """Each feature as a share of all: NaN for a step of zeros."""

    def call(self, inputs):
        return inputs / ops.sum(inputs, axis=-1, keepdims=True)


@pytest.mark.parametrize(("gradient", "step_mode"), FEW)
def test_operations_that_are_nan_for_zeros_give_no_nan_in_padding(gradient, step_mode):
    """A mean over words, of which padding has none, and a division."""
    words = np.where(
        MASK[..., None], np.random.default_rng(0).integers(1, 9, (4, T, 3)), 0
    ).astype("int32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(
        layers.Embedding(9, 6, embeddings_initializer="ones", mask_zero=True)(inputs)
    )
    x = rsnn.layers.LIF(0.5, 0.1)(
        layers.Dense(8)(
            Shares()(layers.Dense(6, bias_initializer="zeros", use_bias=False)(x))
        )
    )
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(x)), T, gradient, step_mode=step_mode
    )
    found = results(model, words)
    assert all(np.isfinite(result).all() for result in found)
    assert all(gradient.any() for gradient in found[1:3])


def test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike():
    """Neurons without memory, on the same frame at each step: also with the statistics
    of a batch."""
    x = np.repeat(frames()[:, :1], T, axis=1)

    def results_of(gradient, step_mode):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        y = layers.BatchNormalization()(layers.Dense(8)(inputs))
        y = layers.BatchNormalization()(layers.Dense(8)(rsnn.layers.LIF(0.0, 0.5)(y)))
        network = keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF(0.0, 0.5)(y)))
        return results(spiking(network, T, gradient, step_mode=step_mode), x)

    expected = results_of("bptt", "multi")
    for gradient in ("rate", Rate(windows=2)):
        assert_same(results_of(gradient, "multi"), expected, gradient, rtol=1e-3)
    # In single-step mode each step has the statistics of the samples that it counts
    # for.
    assert_same(
        results_of(Rate(windows=T), "single"), results_of("bptt", "single"), rtol=2e-3
    )


@pytest.mark.parametrize(("gradient", "step_mode"), FEW)
def test_outputs_of_every_step_are_masked(gradient, step_mode):
    """Losses and metrics of Keras leave the padding out; `TET` takes the mean over the
    steps of each sample first."""
    x = padded_with(np.nan, frames())
    model = spiking(network(), T, gradient, step_mode=step_mode, return_sequences=True)
    outputs = model(x, mask=MASK)
    np.testing.assert_array_equal(to_numpy(outputs._keras_mask), MASK)
    outputs = to_numpy(outputs)
    assert not outputs[~MASK].any()
    # The outputs of a step depend on no later one.
    without_padding = spiking(
        model.network, T, "bptt", return_sequences=True
    ).predict_on_batch(frames())
    np.testing.assert_allclose(
        outputs[MASK], without_padding[MASK], rtol=1e-5, atol=1e-6
    )
    of_step = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None
    )
    by_step = to_numpy(
        of_step(np.repeat(Y[:, None], T, axis=1), ops.convert_to_tensor(outputs))
    )
    loss = rsnn.losses.TET(
        keras.losses.SparseCategoricalCrossentropy(from_logits=True), weight=0.0
    )
    value, gradients, _ = training_results(WithMask(model), x, Y, loss)
    assert value == pytest.approx(
        ((by_step * MASK).sum(axis=1) / LENGTHS).mean(), rel=1e-5
    )
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_fit_takes_padded_arrays(step_mode):
    """`mask_value` says what padding is; a smaller last batch, other validation data,
    evaluation and prediction with it."""
    x, mask = np.concatenate([frames(0), frames(1)])[:6], np.tile(MASK, (2, 1))[:6]
    y = np.tile(Y, 2)[:6]
    model = compiled(
        spiking(
            normalizing_network(), T, "rate", step_mode=step_mode, mask_value=np.nan
        ),
        metrics=["accuracy"],
    )
    data = padded_with(np.nan, x, mask)
    fitted = model.fit(
        data, y, batch_size=4, validation_data=(data[:2], y[:2]), verbose=0
    )
    assert all(np.isfinite(values).all() for values in fitted.history.values())
    evaluated = model.evaluate(data, y, batch_size=4, return_dict=True, verbose=0)
    found = model.predict(data, batch_size=4, verbose=0)
    np.testing.assert_allclose(
        found, to_numpy(model(x, mask=mask)), rtol=1e-4, atol=1e-5
    )
    right = np.mean(np.argmax(found, axis=-1) == y)
    assert evaluated["accuracy"] == pytest.approx(right)


def test_a_masking_layer_before_the_model_masks_steps():
    inputs = keras.Input((T, 6))
    model = spiking(normalizing_network(), T)
    outer = keras.Model(inputs, model(layers.Masking(-1.0)(inputs)))
    x = padded_with(-1.0, frames())
    np.testing.assert_allclose(
        to_numpy(outer(x)), to_numpy(model(x, mask=MASK)), rtol=1e-5, atol=1e-6
    )
    outer.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = outer.fit(x, Y, verbose=0).history["loss"]
    other = (
        compiled(spiking(normalizing_network(), T, mask_value=-1.0), "sgd")
        .fit(x, Y, verbose=0)
        .history["loss"]
    )
    np.testing.assert_allclose(found, other, rtol=1e-5)


def test_a_mask_value_is_saved():
    x = padded_with(-1.0, frames())
    model = spiking(network(), T, mask_value=-1.0)
    expected = to_numpy(saved_and_loaded(model)(x))
    np.testing.assert_array_equal(to_numpy(model(x)), expected)
    model.mask_value = None
    assert not np.allclose(to_numpy(model(x)), expected)


def masking_in_a_nested_model():
    inputs, part = (
        keras.Input((6,)),
        keras.Sequential([keras.Input((6,)), layers.Masking(-1.0), layers.Dense(4)]),
    )
    return keras.Model(inputs, rsnn.layers.LIF()(part(layers.Dense(6)(inputs))))


def masking_embedding():
    token = keras.Input((), dtype="int32")
    return keras.Model(
        token, rsnn.layers.LIF()(layers.Embedding(9, 4, mask_zero=True)(token))
    )


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (
            lambda: keras.Sequential(
                [
                    keras.Input((6,)),
                    layers.Masking(-1.0),
                    layers.Dense(4),
                    rsnn.layers.LIF(),
                ]
            ),
            "Masking",
        ),
        (masking_in_a_nested_model, "Masking"),
        (masking_embedding, "Embedding"),
    ],
    ids=["sequential", "nested", "embedding"],
)
def test_a_layer_in_the_network_that_masks_time_steps_is_an_error(make, name):
    with pytest.raises(
        ValueError,
        match=rf"must not mask time steps(?s:.)*of type {name}(?s:.)*mask_value=0\.0",
    ):
        rsnn.SpikingModel(make(), 3)


def test_layers_may_mask_rows_of_a_step_and_samples_after_the_end_of_time():
    rows = keras.Sequential(
        [
            keras.Input((3, 6)),
            layers.Masking(),
            rsnn.layers.LIF(),
            layers.GlobalAveragePooling1D(),
        ]
    )
    means = keras.Sequential(
        [keras.Input((6,)), rsnn.layers.LIF(), rsnn.layers.TimeMean(), layers.Masking()]
    )
    assert [rsnn.SpikingModel(each, 2).output_shape for each in (rows, means)] == [
        (None, 6)
    ] * 2


def test_rows_are_masked_at_each_step_by_a_mask_of_rank_three():
    """A step is padding where all of its rows are; the mask of rows reaches layers that
    use it."""
    random = np.random.default_rng(0)
    x, rows = frames(features=(3, 6)), random.random((4, T, 3)) < 0.7
    rows &= MASK[..., None]
    rows[:, 0, 0] = True
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 6))
    pooled = layers.GlobalAveragePooling1D()(
        rsnn.layers.LIF(0.5)(layers.Dense(8)(inputs))
    )
    model = spiking(keras.Model(inputs, layers.Dense(3)(pooled)), T, "bptt")
    expected = []
    for sample in range(4):
        valid = rows[sample].any(axis=-1)
        alone = rsnn.SpikingModel(model.network, int(valid.sum()))
        expected.append(
            to_numpy(alone(x[sample][valid][None], mask=rows[sample][valid][None]))[0]
        )
    np.testing.assert_allclose(
        to_numpy(model(x, mask=rows)), expected, rtol=1e-5, atol=1e-6
    )


def test_one_mask_serves_several_inputs_with_time():
    x, static = frames(), np.random.default_rng(1).random((4, 6)).astype("float32")
    inputs = [keras.Input((6,), name="frames"), keras.Input((6,), name="image")]
    y = rsnn.layers.LIF(0.5)(
        layers.BatchNormalization()(layers.Dense(8)(layers.Concatenate()(inputs)))
    )
    model = spiking(keras.Model(inputs, layers.Dense(3)(y)), T)
    expected = to_numpy(model([padded_with(0.0, x), static], mask=MASK))
    np.testing.assert_array_equal(
        to_numpy(model([padded_with(np.nan, x), static], mask=[MASK, None])), expected
    )
    by_name = {"frames": padded_with(5.0, x), "image": static}
    np.testing.assert_array_equal(
        to_numpy(model(by_name, mask={"frames": MASK, "image": None})), expected
    )


def test_padding_is_found_in_data_of_every_dtype_that_holds_it():
    """5.1 is another number in each precision; what is in integers need not be in the
    dtype that the network wants."""
    inputs = keras.Input((6,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.LIF(0.5)(inputs)),
        T,
        return_sequences=True,
        mask_value=5.1,
    )
    padded = padded_with(5.1, frames())
    for data in (
        padded.astype("float16"),
        ops.cast(padded, "bfloat16"),
        padded,
        padded.astype("float64"),
    ):
        outputs = model(data)
        np.testing.assert_array_equal(to_numpy(outputs._keras_mask), MASK)
    # Keras casts what it gets from NumPy. Without a mask, such currents cause spikes.
    np.testing.assert_array_equal(
        model.predict(padded.astype("float16"), verbose=0)[~MASK], 0.0
    )
    for dtype, value in (
        ("uint8", 255),
        ("int32", -7),
        ("bool", 1),
        ("float16", -np.inf),
    ):
        model.mask_value = value
        data = np.where(
            MASK[..., None], np.zeros((4, T, 6), dtype), np.array(value).astype(dtype)
        )
        for given in (data, ops.convert_to_tensor(data)):
            np.testing.assert_array_equal(to_numpy(model(given)._keras_mask), MASK)
    model.mask_value, padded[2] = 5.1, 5.1
    with pytest.raises(
        ValueError, match="only padding in 1 of 4 samples, the first of them sample 2"
    ):
        model.predict(padded.astype("float16"), verbose=0)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", -1.0),
        ("uint8", 300),
        ("int8", 5.5),
        ("bool", 2),
        ("int32", np.nan),
        ("float16", 1e30),
        ("float16", 1e-9),
    ],
)
def test_a_value_that_the_data_cannot_hold_is_an_error(dtype, value):
    """None of it would be found in them. An input that can hold it, or a mask, says
    what is padding."""
    data, inputs = np.zeros((4, T, 6), dtype), keras.Input((6,), name="events")
    model = compiled(
        spiking(keras.Model(inputs, rsnn.layers.LIF(0.5)(inputs)), T, mask_value=value)
    )
    said = (
        r"`mask_value` must be .* the data can hold. Received: mask_value=.* for "
        rf"input 'events' of dtype {dtype}, .* mask"
    )
    for run in (
        model.predict,
        model,
        lambda data: model(ops.convert_to_tensor(data)),
        lambda data: model.fit(data, Y),
    ):
        with pytest.raises(ValueError, match=said):
            run(data)
    assert model(data, mask=MASK).shape == (4, 6)
    assert model.predict(data[:, 0], verbose=0).shape == (4, 6), (
        "without time there is no padding"
    )
    if dtype == "uint8":
        both = [keras.Input((6,), name="events"), keras.Input((6,), name="frames")]
        model = spiking(
            keras.Model(both, rsnn.layers.LIF(0.5)(layers.Add()(both))),
            T,
            "bptt",
            mask_value=value,
        )
        model.return_sequences = True
        np.testing.assert_array_equal(
            to_numpy(model([data, padded_with(value, frames())])._keras_mask), MASK
        )


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.ones((4, T + 1), bool),
            r"`mask` of input .* must have the shape \(batch, time\).*\(4, 5\)",
        ),
        (
            MASK.tolist(),
            "`mask` must be a boolean tensor or array.*mask of type list with True "
            "in it",
        ),
        (
            {"other": MASK},
            r"`mask` must be a single mask, or masks in a structure like the "
            r"inputs.*\['other'\]",
        ),
        (np.ones(4, bool), r"must have the shape \(batch, time\)"),
        (
            MASK.astype("U"),
            r"`mask` of input .* must hold booleans. Received: a mask of dtype <U5. "
            r"False and 0 are padding",
        ),
        (
            np.where(MASK, None, 0),
            "must hold booleans. Received: a mask of dtype object",
        ),
        (
            MASK.astype("complex64"),
            "must hold booleans. Received: a mask of dtype complex64",
        ),
        (
            ops.convert_to_tensor(MASK.astype("complex64")),
            "must hold booleans. Received: a mask of dtype .*complex64",
        ),
        (
            np.where(MASK, np.nan, 0.0),
            "must hold booleans. Received: a mask with nan in it",
        ),
        (
            np.where(MASK, 2.5, 0.0),
            r"must hold booleans. Received: a mask with 2\.5 in it",
        ),
        (
            np.arange(T) < np.array([5, 0, 3, 1])[:, None],
            r"at least one time step.*1 of 4 samples, the first of them sample 1",
        ),
    ],
)
def test_masks_that_do_not_fit_are_errors(mask, message):
    with pytest.raises((TypeError, ValueError), match=message):
        spiking(network(), T)(frames(), mask=mask)


@pytest.mark.parametrize(
    "use", ["fit", "evaluate", "predict", "train_on_batch", "predict_on_batch"]
)
def test_methods_that_take_data_say_where_their_masks_come_from(use):
    labels = {} if use.startswith("predict") else {"y": Y}
    with pytest.raises(
        TypeError,
        match=rf"^`{use}` has no argument "
        r"`mask`(?s:.)*mask_value=(?s:.)*keras\.layers\.Masking",
    ):
        getattr(compiled(spiking(network(), T)), use)(frames(), **labels, mask=MASK)


def test_an_input_without_time_has_no_mask_in_time():
    with pytest.raises(
        ValueError, match="The input has no time, so that no step of it is padding"
    ):
        spiking(network(), T)(frames()[:, 0], mask=MASK)


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="other backends know the rank of each tensor"
)
def test_a_mask_of_unknown_rank_is_an_error_that_says_to_set_its_shape():
    import tensorflow as tf

    model = spiking(network(), T)

    @tf.function(
        input_signature=[tf.TensorSpec((None, T, 6)), tf.TensorSpec(None, "bool")]
    )
    def call(x, mask):
        return model(x, mask=mask)

    said = (
        r"`mask` must have a known number of axes.*Received: a mask of unknown "
        r"rank.*tf.ensure_shape\(mask, \(None, 4\)\)"
    )
    with pytest.raises(ValueError, match=said):
        call(frames(), MASK)


def test_samples_that_are_all_padding_are_errors_before_training():
    x = frames()
    x[2] = -1.0
    model = compiled(spiking(network(), T, mask_value=-1.0))
    with pytest.raises(
        ValueError, match="only padding in 1 of 4 samples, the first of them sample 2"
    ):
        model.fit(x, Y, verbose=0)


def test_what_needs_sequences_of_equal_length_refuses_a_mask():
    last_step = spiking(
        network(), T, Rate(last_step_statistics=True), step_mode="single"
    )
    with pytest.raises(ValueError, match=r"last_step_statistics=True.*padding"):
        results(last_step, frames())
    inputs = keras.Input((6,))
    coupled = spiking(
        keras.Model(inputs, rsnn.layers.LIF(threshold_stabilizer=True)(inputs)),
        T,
        "bptt",
    )
    with pytest.raises(ValueError, match="threshold_stabilizer=True"):
        coupled(frames(), mask=MASK)
    with pytest.raises(TypeError, match="`mask_value` must be a number"):
        spiking(network(), T, mask_value="padding")

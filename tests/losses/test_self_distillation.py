"""Branches on firing rates, and the loss by which they learn from each other."""

import re

import keras
import numpy as np
import pytest
from helpers import called_before, data, saved_and_loaded, spiking, to_numpy
from keras import layers
from naive_distillation import naive_loss, softmax

import keras_ratesnn as rsnn
from keras_ratesnn.losses import SelfDistillation
from keras_ratesnn.metrics import HeadAccuracy
from keras_ratesnn.models import add_branches


@pytest.mark.parametrize(
    "arguments", [(1.0, 0.3, 3.0), (0.5, 2.0, 1.0), (0.0, 1.0, 4.0)]
)
def test_the_loss_is_that_of_a_loop(arguments):
    generator = np.random.default_rng(0)
    heads, labels = generator.normal(0, 2, (12, 3, 4)), generator.integers(0, 4, 12)
    no_head_right = (heads.argmax(-1) != labels[:, None]).all(1)
    assert no_head_right.any()
    assert not no_head_right.all()
    loss = SelfDistillation(*arguments, reduction=None)
    wanted = naive_loss(labels, heads, *arguments)
    for targets in (labels, labels[:, None], np.eye(4)[labels]):
        np.testing.assert_allclose(to_numpy(loss(targets, heads)), wanted, rtol=1e-5)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    np.testing.assert_allclose(to_numpy(copy(labels, heads)), wanted, rtol=1e-5)


def test_the_teacher_has_no_gradient():
    from helpers import gradient_of

    heads = np.array([[[2.0, 0.0], [0.5, 0.0]]], "float32")
    (gradient,) = gradient_of(
        lambda heads: SelfDistillation(alpha=0.0, beta=1.0, temperature=1.0)(
            np.array([0]), heads
        ),
        [heads],
    )
    teacher = softmax(heads[0].mean(0))
    np.testing.assert_allclose(
        gradient[0],
        [softmax(head) - teacher for head in heads[0]],
        rtol=1e-4,
        atol=1e-6,
    )


def test_arguments_and_shapes_are_checked():
    with pytest.raises(ValueError, match="`temperature` must be > 0"):
        SelfDistillation(temperature=0)
    with pytest.raises(
        ValueError, match=r"`y_pred` must be the logits of all heads.*add_branches"
    ):
        SelfDistillation()(np.array([0]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="`y_true` must be integer labels"):
        SelfDistillation()(np.zeros((1, 2)), np.zeros((1, 2, 3)))


def network(shape=(8, 8, 2)):
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = rsnn.layers.LIF(threshold=0.3, name="early")(
        layers.BatchNormalization(axis=axis())(x)
    )
    x = rsnn.layers.LIF(threshold=0.2, name="late")(
        layers.Conv2D(4, 3, strides=2, padding="same")(x)
    )
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def axis():
    return 1 if keras.config.image_data_format() == "channels_first" else -1


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "single"), ("bptt", "multi")]
)
def test_branches_train_the_network_they_share_and_go_away(gradient, step_mode):
    model = spiking(network(), 2, gradient, step_mode=step_mode)
    branched = add_branches(model, ["early", "late", "pooled"])
    assert branched.output_shape == (None, 4, 3)
    settings = branched.timesteps, branched.gradient, branched.step_mode
    assert settings == (2, model.gradient, step_mode)
    metrics = [HeadAccuracy(), HeadAccuracy(0, name="first")]
    branched.compile(keras.optimizers.SGD(0.1), SelfDistillation(), metrics=metrics)
    x, y = data(shape=(8, 8, 2))
    before = to_numpy(branched.trainable_variables)
    logs = branched.fit(
        x, y, batch_size=4, verbose=0, validation_data=(x[:3], y[:3])
    ).history
    assert {"accuracy", "first", "val_accuracy"} <= set(logs)
    for value, variable in zip(before, branched.trainable_variables, strict=True):
        assert (to_numpy(variable) != value).any(), variable.path
    # The network without branches is the trained one.
    outputs = branched.predict(x, verbose=0)
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(outputs[:, -1], model.predict(x, verbose=0), **close)
    paths = [{weight.path for weight in one.variables} for one in (model, branched)]
    assert paths[0] < paths[1]
    loaded = saved_and_loaded(branched)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), outputs, **close)


def test_branches_leave_padding_out():
    inputs = keras.Input((4,))
    x = rsnn.layers.LIF(threshold=0.3, name="neurons")(layers.Dense(6)(inputs))
    model = spiking(keras.Model(inputs, layers.Dense(3)(x)), 2, mask_value=-9.0)
    branched = add_branches(model, ["neurons"])
    frames = np.random.default_rng(0).normal(size=(3, 2, 4)).astype("float32")
    expected = to_numpy(branched(frames))
    branched.timesteps = 3
    padded = np.concatenate([frames, np.full((3, 1, 4), -9.0, "float32")], axis=1)
    outputs = to_numpy(branched(padded))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sides", "blocks"), [((None, None), 3), ((None, 8), 1), ((4, None), 0)], ids=str
)
def test_sides_of_open_length_count_as_long(sides, blocks):
    inputs = keras.Input((*sides, 2))
    x = rsnn.layers.LIF(name="images")(layers.Conv2D(4, 3, padding="same")(inputs))
    network = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    branched = add_branches(spiking(network), ["images"])
    names = " ".join(layer.name for layer in branched.network.layers)
    assert len(re.findall("branch_images_block[0-9]_add", names)) == blocks
    for size in (4, 12):
        shape = [side or size for side in sides]
        assert branched.predict(np.ones((2, *shape, 2)), verbose=0).shape == (2, 2, 3)


def test_branches_shrink_images_and_take_sequences():
    inputs = keras.Input((32, 32, 1))
    x = rsnn.layers.IF(name="images")(inputs)
    rows = rsnn.layers.IF(name="rows")(layers.Reshape((32, 32))(x))
    model = spiking(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(rows))))
    branched = add_branches(model, ["images", "rows"])
    names = [layer.name for layer in branched.network.layers]
    assert "branch_images_block3_add" in names
    assert not any("rows_block" in name for name in names)
    assert branched.predict(np.ones((2, 32, 32, 1)), verbose=0).shape == (2, 3, 3)


@pytest.mark.parametrize("how", ["add", "other network", "nested", "nested Sequential"])
def test_a_branch_is_on_the_call_of_its_layer_in_this_network(how):
    model = spiking(called_before(how), 2)
    branched = add_branches(model, ["spikes"])
    x, _ = data()
    outputs = branched.predict(x, verbose=0)
    np.testing.assert_allclose(outputs[:, -1], model.predict(x, verbose=0), rtol=1e-6)
    rate = branched.get_layer("branch_spikes_rate").output
    rates = spiking(keras.Model(branched.network.inputs, rate), 2).predict(x, verbose=0)
    wanted = rates @ to_numpy(branched.get_layer("branch_spikes_logits").kernel.value)
    np.testing.assert_allclose(outputs[:, 0], wanted, rtol=1e-5, atol=1e-6)


def test_a_layer_with_several_outputs_or_calls_cannot_have_a_branch():
    inputs = keras.Input((4,))
    neurons = rsnn.layers.LIF(name="neurons")
    twice = keras.Model(inputs, neurons(neurons(inputs)))
    pair = keras.Model(inputs, [inputs * 2.0, neurons(inputs)], name="pair")
    sums = keras.Model(inputs, layers.Add()(pair(inputs)))
    for network, name, said in (
        (twice, "neurons", "name .* calls once.*'neurons', which .* 2 times.*Identity"),
        (sums, "pair", r"name layers with one output.*'pair'"),
        (sums, "neurons", r"be a list of names.*'pair'"),
    ):
        with pytest.raises(ValueError, match=f"`layer_names` must {said}"):
            add_branches(spiking(network), [name])


def test_what_cannot_have_branches_is_an_error():
    model = spiking(network())
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        add_branches(model.network, ["early"])
    for names in ([], ["unknown"], "early"):
        with pytest.raises(
            ValueError, match=r"`layer_names` must be a list of names.*'early'"
        ):
            add_branches(model, names)
    inputs = keras.Input((4,))
    outputs = rsnn.layers.LIF(name="neurons")(inputs)
    with pytest.raises(ValueError, match="`model` must have one output"):
        add_branches(spiking(keras.Model(inputs, [outputs, outputs])), ["neurons"])


def test_the_accuracy_of_a_head_is_that_of_its_logits():
    random = np.random.default_rng(0)
    heads, labels = random.normal(size=(20, 3, 4)), random.integers(0, 4, 20)
    chosen = labels == 1
    for head in (-1, 0, 1):
        config = keras.saving.serialize_keras_object(HeadAccuracy(head))
        metric = keras.saving.deserialize_keras_object(config)
        metric.update_state(labels, heads, sample_weight=chosen)
        wanted = (heads[chosen, head].argmax(-1) == 1).mean()
        assert float(metric.result()) == pytest.approx(wanted)
    with pytest.raises(TypeError, match="`head` must be an integer"):
        HeadAccuracy(1.0)

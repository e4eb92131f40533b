"""Branches on firing rates, which train the network that they share."""

import re

import keras
import numpy as np
import pytest
from helpers import chain, data, saved_and_loaded, spiking, to_numpy
from keras import layers
from numpy.testing import assert_allclose

from keras_ratesnn.layers import LIF
from keras_ratesnn.losses import SelfDistillation
from keras_ratesnn.metrics import HeadAccuracy
from keras_ratesnn.models import add_branches

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def network():
    return chain(
        layers.Conv2D(4, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        LIF(threshold=0.3, name="early"),
        layers.Conv2D(4, 3, strides=2, padding="same"),
        LIF(threshold=0.2, name="late"),
        layers.GlobalAveragePooling2D(name="pooled"),
        layers.Dense(3),
        shape=(8, 8, 2),
    )


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
    validation = x[:3], y[:3]
    logs = branched.fit(x, y, verbose=0, validation_data=validation).history
    assert {"accuracy", "first", "val_accuracy"} <= set(logs)
    for value, variable in zip(before, branched.trainable_variables, strict=True):
        assert (to_numpy(variable) != value).any(), variable.path
    # The network without branches is the trained one.
    outputs = branched.predict(x, verbose=0)
    alone = model.predict(x, verbose=0)
    assert_allclose(outputs[:, -1], alone, **CLOSE)
    # A branch is linear in the rates of its layer.
    rate = branched.get_layer("branch_pooled_rate").output
    rates = spiking(keras.Model(branched.network.inputs, rate), 2).predict(x, verbose=0)
    kernel, bias = branched.get_layer("branch_pooled_logits").get_weights()
    assert_allclose(outputs[:, 2], rates @ kernel + bias, **CLOSE)
    paths = [{weight.path for weight in one.variables} for one in (model, branched)]
    assert paths[0] < paths[1]
    loaded = saved_and_loaded(branched)
    assert_allclose(loaded.predict(x, verbose=0), outputs, **CLOSE)


@pytest.mark.parametrize(
    ("sides", "blocks"),
    [((None, 8), 1), ((4, None), 0), ((32, 32), 3)],
)
def test_branches_shrink_images_of_which_open_sides_count_as_long(sides, blocks):
    neurons = LIF(name="images")
    images = layers.Conv2D(4, 3, padding="same"), neurons
    pooled = layers.GlobalAveragePooling2D(), layers.Dense(3)
    model = spiking(chain(*images, *pooled, shape=(*sides, 2)))
    branched = add_branches(model, ["images"])
    names = " ".join(layer.name for layer in branched.network.layers)
    assert len(re.findall("branch_images_block[0-9]_add", names)) == blocks
    for size in (4, 12):
        x = np.ones((2, *(side or size for side in sides), 2))
        assert branched.predict(x, verbose=0).shape == (2, 2, 3)


def test_what_cannot_have_branches_is_an_error():
    inputs, neurons = keras.Input((4,)), LIF(name="neurons")
    spikes = neurons(inputs)
    twice = keras.Model(inputs, neurons(spikes))
    pair = keras.Model(inputs, [inputs * 2.0, spikes], name="pair")
    sums = keras.Model(inputs, layers.Add()(pair(inputs)))
    a_list = "`layer_names` must be a list of names.*"
    for made, names, said in (
        (twice, ["neurons"], "name .* calls once.*'neurons', .* 2 times.*Identity"),
        (sums, ["pair"], "`layer_names` must name layers with one output.*'pair'"),
        (sums, ["neurons"], f"{a_list}'pair'"),
        (pair, ["neurons"], "`model` must have one output"),
        (network(), ["unknown"], f"{a_list}'early'"),
    ):
        with pytest.raises(ValueError, match=said):
            add_branches(spiking(made), names)


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

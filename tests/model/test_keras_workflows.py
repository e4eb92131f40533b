"""A SpikingModel is a Keras model and supports the usual Keras workflows."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    CROSSENTROPY,
    assert_close,
    both_step_modes,
    chain,
    compiled,
    data,
    loss_and_gradients,
    mlp,
    naive_lif,
    not_on,
    rate_and_bptt,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops
from numpy.testing import assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF

X, Y = data()


def assert_all_close(ours, theirs, **tolerance):
    assert_close(ours, theirs, **{"rtol": 1e-4, "atol": 1e-6, **tolerance})


def crossentropy(logits):
    return float(CROSSENTROPY(Y, logits))


@not_on(
    "tensorflow", "TensorFlow's convolutions give it a wrong shape (docs/upstream.md)"
)
@both_step_modes
def test_a_batch_without_samples_has_outputs_without_samples(step_mode):
    convolutions = layers.Conv2D(4, 1, strides=2), layers.SeparableConv2D(4, 3)
    neurons = layers.BatchNormalization(), LIF()
    last = layers.Flatten(), layers.Dense(3)
    network = chain(*convolutions, *neurons, *last, shape=(6, 6, 2))
    model = spiking(network, 2, step_mode=step_mode)
    for time in ((), (2,)):
        nothing = np.zeros((0, *time, 6, 6, 2), "float32")
        assert model.predict_on_batch(nothing).shape == (0, 3)


@rate_and_bptt
def test_weights_of_samples_and_of_classes_are_applied_with_padding_too(gradient):
    """Compiled as a whole where a backend can be, and eagerly, with equal results."""
    frames, _ = data(shape=(3, 6), seed=1)
    frames[2:6, 1:] = np.nan
    weights = np.array([CLASS_WEIGHTS[label] for label in Y])
    model = spiking(gradient=gradient, mask_value=np.nan)
    logits = model.predict(frames, verbose=0)
    plain = keras.losses.sparse_categorical_crossentropy(Y, logits, from_logits=True)
    wanted = np.mean(weights * to_numpy(plain))
    start, losses, changes = model.get_weights(), [], []
    whole = {"jit_compile": BACKEND != "torch"}
    for engine, options in (
        ({"run_eagerly": True}, {"class_weight": CLASS_WEIGHTS}),
        (whole, {"sample_weight": weights}),
        (whole, {"sample_weight": 2.0 * weights}),
    ):
        model.set_weights(start)
        compiled(model, **engine)
        fitted = model.fit(frames, Y, batch_size=len(Y), verbose=0, **options)
        losses += fitted.history["loss"]
        changes.append(list(map(np.subtract, model.get_weights(), start)))
    assert losses == pytest.approx([wanted, wanted, 2.0 * wanted], rel=1e-5)
    by_classes, by_samples, twice = changes
    assert max(np.abs(change).max() for change in by_samples) > 1e-3
    assert_all_close(by_classes, by_samples)
    assert_all_close(twice, [2.0 * change for change in by_samples])


CLASS_WEIGHTS = {0: 0.5, 1: 2.0, 2: 0.0}


def with_a_layer_of_two_graphs():
    dense, neurons = layers.Dense(6, name="in_both"), LIF()
    return spiking(chain(chain(dense, neurons), dense, neurons, layers.Dense(3)))


@pytest.mark.runs_once
def test_a_file_that_keras_cannot_load_is_warned_of_and_its_weights_can_be_loaded(
    tmp_path,
):
    model, again = with_a_layer_of_two_graphs(), with_a_layer_of_two_graphs()
    path = tmp_path / "model.keras"
    message = "load_model will not load this file: nested models share in_both"
    with pytest.warns(UserWarning, match=message):
        model.save(path)
    again.load_weights(path)
    outputs = [one.predict(X, verbose=0) for one in (again, model)]
    assert_array_equal(*outputs)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_that_do_not_fit_are_an_error_that_names_the_layers(tmp_path):
    model, wider = spiking(), spiking(mlp(classes=4))
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    message = (
        r"`filepath` must be .*Received: .*model.weights.h5'.* does not fit "
        r"\[<Dense name=dense_3"
    )
    with pytest.raises(ValueError, match=message):
        wider.load_weights(path)
    with pytest.warns(UserWarning, match="could not be loaded"):
        wider.load_weights(path, skip_mismatch=True)
    assert_all_close(wider.get_weights()[:2], model.get_weights()[:2], rtol=0, atol=0)


# Inputs and outputs.
FRAMES, _ = data(shape=(3, 4), seed=1)


def test_a_static_and_a_temporal_input_in_one_model():
    image, events = keras.Input((6,)), keras.Input((4,))
    x = layers.Concatenate()([LIF()(layers.Dense(8)(image)), layers.Dense(8)(events)])
    network = keras.Model([image, events], layers.Dense(3)(LIF()(x)))
    model = compiled(spiking(network))
    outputs = model.predict([X, FRAMES], verbose=0)
    repeated = [np.repeat(X[:, None], 3, axis=1), FRAMES]
    assert_all_close([outputs], [model.predict(repeated, verbose=0)])
    loss = model.train_on_batch([X, FRAMES], Y)
    assert loss == pytest.approx(crossentropy(outputs), rel=1e-5)


ORDERS = {
    "list": list,
    "dict": dict,
    "dict in a list": lambda named: [dict(named)],
    "list of dicts": lambda named: [dict([each]) for each in named],
}


@pytest.mark.parametrize("made", ORDERS)
def test_dicts_are_read_by_name_whatever_their_order_and_other_entries(made):
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    inputs_of_network = [left, right]
    if made != "list":
        inputs_of_network = ORDERS[made]([("right", right), ("left", left)])
    same = layers.Dense(6, kernel_initializer="identity")
    difference = layers.Subtract()([same(left), LIF()(2.0 * right)])
    model = compiled(spiking(keras.Model(inputs_of_network, difference)))
    x, z = np.ones_like(X), np.zeros_like(X)
    inputs = {"a": X, "left": x, "right": z, "z": X}
    if made == "dict in a list":
        inputs = [inputs]
    elif made == "list of dicts":
        inputs = [{"a": X, "right": z}, {"left": x, "z": X}]
    assert_array_equal(to_numpy(model(inputs)), x)
    if made == "dict":
        assert_array_equal(model.predict(inputs, verbose=0), x)
    elif made.startswith("list"):
        loss = pytest.approx([crossentropy(x)], rel=1e-5)
        assert model.fit(inputs, Y, verbose=0).history["loss"] == loss


def structured(structure, label, size):
    return {"label": label, "size": size} if structure == "dict" else [label, size]


def two_outputs(structure):
    inputs = keras.Input((6,))
    hidden = LIF()(layers.Dense(8)(inputs))
    label = layers.Dense(3, name="label")(hidden)
    size = layers.Dense(1, name="size")(hidden)
    return keras.Model(inputs, structured(structure, label, size))


@pytest.mark.parametrize(
    ("gradient", "structure"), [("rate", "dict"), ("bptt", "list")]
)
def test_losses_metrics_and_labels_of_several_outputs_by_name(gradient, structure):
    """As with the same network without time, whose history has the same names."""
    losses = {"label": CROSSENTROPY, "size": "mse"}
    options = {
        "metrics": {"size": ["mae"]},
        "loss_weights": {"label": 1.0, "size": 0.5},
    }
    labels = {"label": Y, "size": X[:, :1]}
    model = spiking(two_outputs(structure), gradient=gradient)
    names = []
    for either in (model, model.network):
        either.compile("sgd", losses, **options)
        fitted = either.fit(X, labels, validation_data=(X, labels), verbose=0)
        names.append(set(fitted.history))
    assert names[0] == names[1]
    assert "val_label_loss" in names[0]
    outputs = model.predict(X, verbose=0)
    label, size = outputs.values() if structure == "dict" else outputs
    wanted = crossentropy(label) + 0.5 * np.mean((size - X[:, :1]) ** 2)
    loaded = saved_and_loaded(model)
    for use in (model.test_on_batch, loaded.test_on_batch, model.train_on_batch):
        assert use(X, labels)[0] == pytest.approx(wanted, rel=1e-5)


@rate_and_bptt
@both_step_modes
def test_layers_that_are_called_twice_have_membranes_of_their_own_and_sum_gradients(
    gradient, step_mode
):
    """Once in a network inside of another."""

    def results(share):
        def dense(units=6, seed=3):
            drawn = keras.initializers.GlorotUniform(seed)
            return layers.Dense(units, use_bias=False, kernel_initializer=drawn)

        first, neurons = dense(), LIF(0.5, 0.2)
        again = (first, neurons) if share else (dense(), LIF(0.5, 0.2))
        network = chain(chain(first, neurons), *again, dense(3, seed=4))
        model = spiking(network, gradient=gradient, step_mode=step_mode)
        loss, gradients = loss_and_gradients(model, X, Y)
        return np.asarray(loss), list(gradients.values())

    loss, shared = results(True)
    expected, (first, second, head) = results(False)
    assert np.any(first)
    assert_all_close([loss, *shared], [expected, first + second, head])


@rate_and_bptt
@pytest.mark.parametrize("place", ["neurons", "activity", "kernel"])
def test_a_regularizer_counts_once(place, gradient):
    """That of activity is of the rate, or of all spikes in BPTT."""
    # Spikes of the input itself, so that all values can be computed by hand.
    inputs, neurons, dense = keras.Input((6,)), LIF(), layers.Dense(2)
    layer = neurons if place == "neurons" else dense
    name = "kernel_regularizer" if place == "kernel" else "activity_regularizer"
    setattr(layer, name, keras.regularizers.L2(0.1))
    model = spiking(keras.Model(inputs, dense(neurons(inputs))), gradient=gradient)
    loss, _ = loss_and_gradients(model, X, Y, lambda y, outputs: 0.0 * ops.sum(outputs))
    rows, _, _ = naive_lif(np.repeat(X[None], 3, axis=0))
    kernel = to_numpy(dense.kernel)
    rows = rows @ kernel if place == "activity" else rows
    rows = rows.mean(axis=0) if gradient == "rate" else rows.reshape(30, -1)
    wanted = np.sum(rows**2) / len(rows)
    wanted = np.sum(kernel**2) if place == "kernel" else wanted
    assert loss == pytest.approx(0.1 * wanted, rel=1e-5)


def test_layers_added_to_a_trained_network_are_checked():
    network = keras.Sequential([keras.Input((6,)), layers.Dense(4), LIF()])
    model = compiled(spiking(network, timesteps=3))
    model.fit(X, Y, verbose=0)
    network.add(rsnn.layers.PSN(timesteps=5))
    with pytest.raises(ValueError, match="`timesteps` must be 5"):
        model.predict(X, verbose=0)
    for _ in range(2):
        network.pop()
    with pytest.raises(ValueError, match="`network` must contain"):
        model(X)
    network.add(LIF())
    compiled(model).fit(X, Y, verbose=0)


@pytest.mark.parametrize("is_called", [True, False])
def test_a_spiking_model_is_a_layer_of_a_bigger_model(is_called):
    part = spiking(mlp(classes=5), name="part")
    whole = keras.Model(part.inputs, layers.Dense(3)(part.outputs[0]))
    if is_called:
        whole = chain(layers.Rescaling(2.0), part, layers.Dense(3))
    compiled(whole)
    before = part.get_weights()
    whole.fit(X, Y, verbose=0)
    assert not any(map(np.array_equal, part.get_weights(), before))
    outputs = whole.predict(X, verbose=0)
    inside = part(2.0 * X if is_called else X)
    assert_all_close([outputs], [whole.layers[-1](inside)])
    loaded = saved_and_loaded(whole)
    assert_all_close([loaded.predict(X, verbose=0)], [outputs])


def test_its_shapes_are_those_of_its_only_input_and_output():
    model = spiking()
    for return_sequences, shape in ((False, (None, 3)), (True, (None, 3, 3))):
        model.return_sequences = return_sequences
        assert (model.input_shape, model.output_shape) == ((None, 6), shape)
        for one in ((6,), (3, 6)):
            assert model(keras.Input(one)).shape == shape
            assert model.compute_output_shape((None, *one)) == shape


def test_its_summary_shows_the_layers_of_the_network():
    lines = []
    model = spiking(mlp(name="hidden"))
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert "hidden (LIF)" in "\n".join(lines)


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_it_has_the_inputs_and_outputs_of_a_functional_model(structure):
    network = two_outputs(structure)
    model = spiking(network)
    for name in ("inputs", "input_shape", "output_shape"):
        assert getattr(model, name) == getattr(network, name)
    model.return_sequences, model.timesteps = True, 2
    assert model.output_shape == [(None, 2, 3), (None, 2, 1)]
    shapes = keras.tree.map_structure(np.shape, model.predict(X, verbose=0))
    assert shapes == structured(structure, (10, 2, 3), (10, 2, 1))


def test_layers_of_the_network_are_found_by_name_and_index():
    inner = mlp()
    network = chain(inner, layers.Dense(4, name="hidden"), layers.Dense(2))
    model = spiking(network)
    assert model.get_layer(inner.name) is inner
    assert model.get_layer(index=-1) is network.layers[-1]
    assert model.get_layer(network.name) is network
    cut = spiking(keras.Model(model.inputs, LIF()(model.get_layer("hidden").output)))
    assert cut.predict(X, verbose=0).shape == (10, 4)
    for arguments in ({"name": "nowhere"}, {"index": 99}):
        with pytest.raises(ValueError, match="layer"):
            model.get_layer(**arguments)


@pytest.mark.runs_once
# It calls what Python deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_keras_tuner_tries_numbers_of_steps_and_methods(tmp_path):
    keras_tuner = pytest.importorskip(
        "keras_tuner", reason="the extra [test] installs it"
    )

    def build(trial):
        timesteps = trial.Choice("timesteps", [2, 3])
        gradient = trial.Choice("gradient", ["rate", "bptt"])
        return compiled(spiking(None, timesteps, gradient))

    tuner = keras_tuner.RandomSearch(
        build, "val_loss", max_trials=2, seed=0, directory=tmp_path
    )
    tuner.search(X, Y, validation_data=(X, Y), verbose=0)
    best = tuner.get_best_hyperparameters()[0]
    (model,) = tuner.get_best_models()
    assert model.timesteps == best.get("timesteps")

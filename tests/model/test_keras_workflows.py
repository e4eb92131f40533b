"""A SpikingModel is a Keras model and supports the usual Keras workflows."""

import collections
import functools
import itertools

import helpers
import keras
import numpy as np
import pytest
from helpers import assert_close, compiled, mlp, saved_and_loaded, spiking, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF

every_gradient = pytest.mark.parametrize("gradient", ["rate", "bptt"])
every_mode = pytest.mark.parametrize(
    "run_eagerly", [False, True], ids=["compiled", "eager"]
)
# Not each with each: that a gradient is the same compiled and eagerly has a test of its
# own.
every_gradient_and_mode = pytest.mark.parametrize(
    ("gradient", "run_eagerly"), [("rate", False), ("bptt", True)]
)
X, Y = helpers.data()


def step_of(model, **kwargs):
    """The change of each weight in one epoch of one batch, starting with the weights of
    the seed."""
    before = model.get_weights()
    model.fit(X, Y, batch_size=len(X), verbose=0, **kwargs)
    return list(map(np.subtract, model.get_weights(), before))


def assert_all_close(ours, theirs, **tolerance):
    assert_close(ours, theirs, **{"rtol": 1e-4, "atol": 1e-6, **tolerance})


def crossentropy(logits, labels):
    logits = logits.astype("float64")
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels].mean()


# Training and inference.
@every_gradient_and_mode
def test_fit_learns(gradient, run_eagerly):
    model = compiled(
        spiking(gradient=gradient), run_eagerly=run_eagerly, metrics=["accuracy"]
    )
    options = {"batch_size": 4, "validation_split": 0.2}
    history = model.fit(X, Y, epochs=4, verbose=0, **options).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history["loss"][-1] < history["loss"][0]


@every_mode
def test_evaluate_is_the_loss_of_predict_for_any_batch_size(run_eagerly):
    model = compiled(spiking(), run_eagerly=run_eagerly)
    logits = model.predict(X, batch_size=4, verbose=0)
    whole = model.predict(X, batch_size=10, verbose=0)
    assert_all_close([logits], [whole])
    loss = model.evaluate(X, Y, batch_size=4, verbose=0)
    assert loss == pytest.approx(crossentropy(logits, Y), rel=1e-5)


@every_gradient_and_mode
def test_single_batches(gradient, run_eagerly):
    model = compiled(spiking(gradient=gradient), run_eagerly=run_eagerly)
    before = model.test_on_batch(X, Y)
    assert before == pytest.approx(
        crossentropy(to_numpy(model.predict_on_batch(X)), Y), rel=1e-5
    )
    assert model.train_on_batch(X, Y) == pytest.approx(before, rel=1e-5)
    assert model.test_on_batch(X, Y) != before


@pytest.mark.skipif(
    helpers.BACKEND == "tensorflow",
    reason="TensorFlow's convolutions give it a wrong shape (docs/upstream.md)",
)
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_batch_without_samples_has_outputs_without_samples(step_mode):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = LIF()(layers.BatchNormalization()(x))
    x = layers.Conv2D(4, 1, strides=2)(x)
    x = LIF()(layers.SeparableConv2D(4, 3, strides=2)(x))
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = spiking(keras.Model(inputs, x), 2, step_mode=step_mode)
    for time in ((), (2,)):
        nothing = np.zeros((0, *time, 6, 6, 2), "float32")
        assert model.predict_on_batch(nothing).shape == (0, 3)


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [
        ("rate", "multi"),
        ("bptt", "single"),
        pytest.param("rate", "single", marks=pytest.mark.slow),
        pytest.param("bptt", "multi", marks=pytest.mark.slow),
    ],
)
def test_a_step_compiled_as_a_whole_equals_the_eager_one(
    gradient, step_mode, monkeypatch
):
    if helpers.BACKEND == "torch":
        import torch

        # All that does not need a C++ compiler.
        compiler = functools.partial(torch.compile, backend="aot_eager")
        monkeypatch.setattr(torch, "compile", compiler)

    def step(**options):
        keras.utils.set_random_seed(1)
        x = inputs = keras.Input((6, 6, 4))
        # Of one shape: what runs eagerly is compiled once for each shape on JAX.
        for _ in range(2):
            x = layers.Conv2D(4, 3, padding="same")(x)
            x = LIF()(layers.BatchNormalization()(x))
        network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
        model = spiking(network, gradient=gradient, step_mode=step_mode)
        compiled(model, **options)
        before = model.get_weights()
        x, y = helpers.data(10, (6, 6, 4))
        history = model.fit(x, y, batch_size=5, verbose=0).history
        changes = map(np.subtract, model.get_weights(), before)
        return history["loss"], list(changes)

    loss, changes = step(jit_compile=True)
    expected_loss, expected_changes = step(run_eagerly=True)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_all_close(changes, expected_changes)


@every_gradient_and_mode
def test_sample_weights_are_applied(gradient, run_eagerly):
    model = compiled(spiking(gradient=gradient), run_eagerly=run_eagerly)
    start = model.get_weights()

    def step(**kwargs):
        model.set_weights(start)
        return step_of(model, **kwargs)

    plain = step()
    assert max(np.abs(change).max() for change in plain) > 1e-3
    twice = step(sample_weight=np.full(10, 2.0))
    assert_all_close(twice, [2 * change for change in plain])
    by_class = {0: 0.5, 1: 2.0, 2: 0.0}
    by_sample = np.array([by_class[label] for label in Y])
    assert_all_close(step(class_weight=by_class), step(sample_weight=by_sample))


def test_callbacks(tmp_path):
    model = compiled(spiking(), metrics=["accuracy"])
    best = tmp_path / "best.keras"
    callbacks = [
        keras.callbacks.ModelCheckpoint(best, monitor="loss", save_best_only=True),
        keras.callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=1e9),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.0),
    ]
    fitted = model.fit(X, Y, epochs=5, callbacks=callbacks, verbose=0)
    assert fitted.epoch == [0, 1]
    loaded = keras.saving.load_model(best)
    loss, _ = loaded.evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(fitted.history["loss"][0], rel=1e-5)


def test_summary_shows_the_layers_of_the_network():
    model, texts = spiking(mlp()), []
    for _ in range(2):
        lines = []
        model.summary(print_fn=lines.append)
        texts.append("\n".join(lines))
        assert model.output_shape == (None, 3)
    assert texts[0] == texts[1]
    for part in ("LIF", "Dense", "Total params: 83"):
        assert part in texts[0]


# Optimizers.


def test_clipped_gradients_take_steps_of_the_norm():
    model = compiled(spiking(), keras.optimizers.SGD(1.0, clipnorm=1e-3))
    norms = [np.linalg.norm(change) for change in step_of(model)]
    assert norms == pytest.approx([1e-3] * 4, rel=1e-2)


# It calls what Python deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_keras_tuner_tries_numbers_of_steps_and_methods(tmp_path):
    keras_tuner = pytest.importorskip(
        "keras_tuner", reason="the extra [test] installs it"
    )

    def build(trial):
        return compiled(
            spiking(
                timesteps=trial.Choice("timesteps", [2, 3]),
                gradient=trial.Choice("gradient", ["rate", "bptt"]),
            ),
            keras.optimizers.SGD(trial.Float("learning_rate", 0.01, 0.1)),
            metrics=["accuracy"],
        )

    tuner = keras_tuner.RandomSearch(
        build, "val_accuracy", max_trials=2, seed=0, directory=tmp_path
    )
    tuner.search(X, Y, epochs=1, validation_data=(X, Y), verbose=0)
    scores = [trial.score for trial in tuner.oracle.trials.values()]
    best = tuner.get_best_hyperparameters()[0].values
    (model,) = tuner.get_best_models()
    assert len(scores) == 2
    assert (model.timesteps, repr(model.gradient)) == (
        best["timesteps"],
        repr(rsnn.gradients.get(best["gradient"])),
    )
    model.compile(loss=model.loss, metrics=["accuracy"])
    assert model.evaluate(X, Y, verbose=0)[1] == pytest.approx(max(scores))


def test_weights_load_from_a_file_into_a_new_model(tmp_path):
    model = spiking(convolutional())
    model.save_weights(tmp_path / "model.weights.h5")
    other = spiking(convolutional(), gradient="bptt", timesteps=2)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_all_close(other.get_weights(), model.get_weights(), rtol=0, atol=0)


def with_a_layer_of_two_graphs():
    inputs, dense, neurons = keras.Input((6,)), layers.Dense(6, name="in_both"), LIF()
    block = keras.Sequential([keras.Input((6,)), dense, neurons])
    return spiking(keras.Model(inputs, layers.Dense(3)(neurons(dense(block(inputs))))))


def test_a_file_that_keras_cannot_load_is_warned_of_and_its_weights_can_be_loaded(
    tmp_path,
):
    model, other, path = (
        with_a_layer_of_two_graphs(),
        with_a_layer_of_two_graphs(),
        tmp_path / "model.keras",
    )
    with pytest.warns(
        UserWarning,
        match="load_model will not load this file: nested models share in_both",
    ):
        model.save(path)
    other.load_weights(path)
    np.testing.assert_array_equal(
        other.predict(X, verbose=0), model.predict(X, verbose=0)
    )


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_that_do_not_fit_are_an_error_that_names_the_layers(tmp_path):
    model, other = spiking(), spiking(mlp(classes=4))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(
        ValueError,
        match=r"`filepath` must be .*Received: .*model.weights.h5'.* does not fit "
        r"\[<Dense name=dense_3",
    ):
        other.load_weights(tmp_path / "model.weights.h5")
    with pytest.warns(UserWarning, match="could not be loaded"):
        other.load_weights(tmp_path / "model.weights.h5", skip_mismatch=True)
    assert_all_close(other.get_weights()[:2], model.get_weights()[:2], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_a_config_makes_the_same_model_each_time(kind):
    network = (
        mlp()
        if kind == "functional"
        else keras.Sequential([keras.Input((6,)), LIF(decay=0.7), layers.Dense(3)])
    )
    model = spiking(
        network, timesteps=5, gradient="bptt", return_sequences=True, name="mine"
    )
    config = model.get_config()
    rsnn.SpikingModel.from_config(config)
    again = rsnn.SpikingModel.from_config(config)
    assert again.get_config() == model.get_config()
    assert (again.name, again.timesteps, again.return_sequences) == ("mine", 5, True)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        again.predict(X, verbose=0), model.predict(X, verbose=0)
    )


def test_the_weights_are_those_of_the_network():
    network = mlp()
    compiled(spiking(network)).fit(X, Y, verbose=0)
    model = spiking(network)
    assert [variable.path for variable in model.trainable_variables] == [
        variable.path for variable in network.trainable_variables
    ]
    assert_all_close(model.get_weights(), network.get_weights(), rtol=0, atol=0)


# Inputs and outputs.
FRAMES, _ = helpers.data(shape=(3, 4), seed=1)


def two_inputs():
    image, events = keras.Input((6,), name="image"), keras.Input((4,), name="events")
    x = layers.Concatenate()([LIF()(layers.Dense(8)(image)), layers.Dense(8)(events)])
    return keras.Model([image, events], layers.Dense(3)(LIF()(x)))


def test_a_static_and_a_temporal_input_in_one_model():
    model = compiled(spiking(two_inputs()))
    repeated = [np.repeat(X[:, None], 3, axis=1), FRAMES]
    outputs = model.predict([X, FRAMES], verbose=0)
    assert_all_close([outputs], [model.predict(repeated, verbose=0)])
    history = model.fit([X, FRAMES], Y, epochs=8, batch_size=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


ORDERS = {
    "list": list,
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "dict in a list": lambda named: [dict(named)],
    "list of dicts": lambda named: [dict([each]) for each in named],
}


@pytest.mark.parametrize(
    ("made", "use"),
    [
        *((made, "call") for made in ORDERS),
        ("dict", "predict"),
        ("list", "fit"),
        ("list of dicts", "fit"),
    ],
)
def test_dicts_are_read_by_name_whatever_their_order_and_other_entries(made, use):
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    structured = (
        [left, right]
        if made == "list"
        else ORDERS[made]([("right", right), ("left", left)])
    )
    same = layers.Dense(6, kernel_initializer="identity")
    model = compiled(
        spiking(
            keras.Model(structured, layers.Subtract()([same(left), LIF()(2.0 * right)]))
        )
    )
    x, z = np.ones_like(X), np.zeros_like(X)
    extra = [("a", X), ("left", x), ("right", z), ("z", X)]
    if made == "list of dicts":
        inputs = [{"a": X, "right": z}, {"left": x, "z": X}]
    else:
        inputs = [dict(extra)] if made == "dict in a list" else dict(extra)
    if use == "fit":
        assert model.fit(inputs, Y, verbose=0).history["loss"] == pytest.approx(
            [crossentropy(x, Y)], rel=1e-5
        )
    else:
        outputs = model(inputs) if use == "call" else model.predict(inputs, verbose=0)
        np.testing.assert_array_equal(to_numpy(outputs), x)


def test_one_input_by_name():
    inputs = keras.Input((6,), name="image")
    model = spiking(keras.Model(inputs, layers.Dense(3)(LIF()(inputs))))
    np.testing.assert_array_equal(
        model.predict({"image": X}, verbose=0), model.predict(X, verbose=0)
    )


def structured(structure, label, size):
    return {"label": label, "size": size} if structure == "dict" else [label, size]


def two_outputs(structure):
    inputs = keras.Input((6,))
    hidden = LIF()(layers.Dense(8)(inputs))
    label = layers.Dense(3, name="label")(hidden)
    size = layers.Dense(1, name="size")(hidden)
    return keras.Model(inputs, structured(structure, label, size))


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("gradient", "structure"), [("rate", "dict"), ("bptt", "list")]
)
def test_several_outputs_with_several_losses(gradient, structure):
    model = spiking(two_outputs(structure), gradient=gradient)
    losses = structured(structure, LOGITS, "mse")
    model.compile("sgd", losses, loss_weights=structured(structure, 1.0, 0.5))
    outputs = model.predict(X, verbose=0)
    if structure == "dict":
        outputs = [outputs["label"], outputs["size"]]
    label, size = outputs
    sizes = X[:, :1]
    wanted = crossentropy(label, Y) + 0.5 * np.mean((size - sizes) ** 2)
    y = structured(structure, Y, sizes)
    for use in (model.test_on_batch, model.train_on_batch):
        assert use(X, y)[0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_losses_metrics_and_labels_of_several_outputs_by_name(structure):
    """As with the same network without time, whose history has the same names."""
    losses, metrics = {"label": LOGITS, "size": "mse"}, {"size": ["mae"]}
    labels = {"label": Y, "size": X[:, :1]}
    model = spiking(two_outputs(structure))
    histories = []
    for either in (model, model.network):
        weights = {"label": 1.0, "size": 0.5}
        either.compile("sgd", losses, metrics=metrics, loss_weights=weights)
        fitted = either.fit(X, labels, validation_data=(X, labels), verbose=0)
        histories.append(fitted.history)
    assert set(histories[0]) == set(histories[1])
    assert "val_label_loss" in histories[0]
    wanted = model.evaluate(X, labels, verbose=0)
    loaded = saved_and_loaded(model).evaluate(X, labels, verbose=0)
    np.testing.assert_allclose(loaded, wanted, rtol=1e-5)


def test_every_step_of_several_outputs():
    model = spiking(two_outputs("dict"), return_sequences=True)
    outputs = model.predict(X, verbose=0)
    assert {name: output.shape for name, output in outputs.items()} == {
        "label": (10, 3, 3),
        "size": (10, 3, 1),
    }


# Networks.
def convolutional(**conv):
    inputs = keras.Input((4, 4, 1))
    x = LIF()(
        layers.BatchNormalization(name="norm")(
            layers.Conv2D(4, 3, padding="same", name="conv", **conv)(inputs)
        )
    )
    x = LIF()(
        layers.BatchNormalization()(
            layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        )
    )
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def active():
    """Neurons that spike often enough for every weight to have a gradient."""
    return LIF(threshold=0.2, decay=0.5)


def dense_block(width, inputs, name=None):
    return keras.Sequential(
        [keras.Input((inputs,)), layers.Dense(width), active()], name=name
    )


def nested():
    inner_inputs = keras.Input((8,))
    inner = keras.Model(
        inner_inputs, dense_block(5, 8)(dense_block(8, 8)(inner_inputs)), name="inner"
    )
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(inner(dense_block(8, 6)(inputs))))


def flat():
    inputs = x = keras.Input((6,))
    for width in (8, 8, 5):
        x = active()(layers.Dense(width)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def sharing():
    inputs = keras.Input((6,))
    dense, lif = layers.Dense(6), active()
    x = lif(dense(inputs))
    return keras.Model(inputs, layers.Dense(3)(lif(dense(x))))


def residual():
    inputs = keras.Input((6,))
    x = layers.Dense(6)(inputs)
    x = layers.Add()([x, layers.Dense(6)(active()(x))])
    x = x + layers.Dense(6)(active()(x))
    return keras.Model(inputs, layers.Dense(3)(active()(x)))


def with_ops():
    inputs = keras.Input((6,))
    x = active()(ops.tanh(layers.Dense(6)(inputs)) * 2.0 + 0.5)
    x = ops.concatenate([x, ops.relu(ops.reshape(x, (-1, 6)) - 0.5)], axis=-1)
    return keras.Model(
        inputs,
        layers.Dense(3)(
            active()(
                ops.matmul(x, ops.ones((12, 5))) - ops.mean(x, axis=-1, keepdims=True)
            )
        ),
    )


def with_embedding():
    inputs = keras.Input((6,), dtype="int32")
    x = active()(
        layers.Embedding(
            20, 4, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0)
        )(inputs)
    )
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def with_layer_normalization():
    inputs = keras.Input((6,))
    x = active()(layers.LayerNormalization()(layers.Dense(8)(inputs)))
    return keras.Model(inputs, layers.Dense(3)(layers.LayerNormalization()(x)))


def with_max_pooling():
    inputs = keras.Input((6,))
    x = layers.Conv2D(4, 2)(layers.Reshape((3, 2, 1))(inputs))
    x = layers.MaxPooling2D((2, 1))(active()(x))
    return keras.Model(inputs, layers.Dense(3)(active()(layers.Flatten()(x))))


def with_attention():
    inputs = keras.Input((6,))
    x = active()(layers.Dense(4)(layers.Reshape((6, 1))(inputs)))
    x = layers.MultiHeadAttention(2, 2)(x, x)
    return keras.Model(
        inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(active()(x)))
    )


DETERMINISTIC = [
    nested,
    sharing,
    residual,
    with_ops,
    with_embedding,
    with_layer_normalization,
    with_max_pooling,
    with_attention,
]


def inputs_for(network):
    return np.abs(X * 5).astype("int32") if network.inputs[0].dtype == "int32" else X


@pytest.mark.parametrize(
    ("make", "gradient"), list(zip(DETERMINISTIC, itertools.cycle(("rate", "bptt"))))
)
def test_the_loss_of_training_is_the_loss_of_evaluation(make, gradient):
    network = make()
    x = inputs_for(network)
    wanted = crossentropy(spiking(network).predict(x, verbose=0), Y)
    loss, gradients = helpers.loss_and_gradients(
        spiking(network, gradient=gradient), x, Y
    )
    assert loss == pytest.approx(wanted, rel=1e-5)
    # The bias of an attention's keys has no effect, whatever the gradient.
    assert [
        path
        for path, array in gradients.items()
        if not array.any() and "key/bias" not in path
    ] == []


@every_gradient
def test_a_nested_network_is_the_flat_one(gradient):
    models = [spiking(make(), gradient=gradient) for make in (nested, flat)]
    # The same order of layers, so of weights; their names differ.
    models[1].set_weights(models[0].get_weights())
    np.testing.assert_allclose(
        *(model.predict(X, verbose=0) for model in models), rtol=1e-5, atol=1e-6
    )
    gradients = [
        list(helpers.loss_and_gradients(model, X, Y)[1].values()) for model in models
    ]
    assert_all_close(*gradients)


def test_a_neuron_used_twice_keeps_a_membrane_for_each_use():
    def results(share):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,))
        first = LIF()
        second = first if share else LIF()
        x = second(layers.Dense(8)(first(layers.Dense(8)(inputs))))
        model = spiking(keras.Model(inputs, layers.Dense(3)(x)))
        loss, gradients = helpers.loss_and_gradients(model, X, Y)
        return [np.asarray(loss), *gradients.values()]

    assert_all_close(results(True), results(False))


def test_a_shared_layer_gets_the_sum_of_its_gradients():
    def gradients(share):
        def dense(units, seed=3):
            drawn = keras.initializers.GlorotUniform(seed)
            return layers.Dense(units, use_bias=False, kernel_initializer=drawn)

        inputs, first = keras.Input((6,)), dense(6)
        second = first if share else dense(6)
        x = LIF()(second(LIF()(first(inputs))))
        model = spiking(keras.Model(inputs, dense(3, seed=4)(x)))
        _, gradients = helpers.loss_and_gradients(model, X, Y)
        return list(gradients.values())

    first, second, head = gradients(share=False)
    assert_all_close(gradients(share=True), [first + second, head])


# Regularisation.
IMAGES, _ = helpers.data(shape=(4, 4, 1), seed=2)


@every_gradient
@pytest.mark.parametrize("place", ["neurons", "activity", "kernel"])
def test_a_regularizer_counts_once(place, gradient):
    """That of activity is of the rate, or of all spikes in BPTT."""
    penalty = {place: keras.regularizers.L2(0.1)}
    # Spikes of the input itself, so that all values can be computed by hand.
    inputs = keras.Input((4, 4, 1))
    x = LIF(activity_regularizer=penalty.get("neurons"))(inputs)
    conv = layers.Conv2D(
        2,
        3,
        activity_regularizer=penalty.get("activity"),
        kernel_regularizer=penalty.get("kernel"),
    )
    model = spiking(keras.Model(inputs, conv(x)), gradient=gradient)
    loss, _ = helpers.loss_and_gradients(
        model, IMAGES, Y, lambda y, outputs: 0.0 * ops.sum(outputs)
    )
    spikes, _, _ = helpers.naive_lif(np.repeat(IMAGES[None], 3, axis=0))
    rows = spikes.reshape(-1, 4, 4, 1)
    if place == "activity":
        rows = to_numpy(conv(rows.astype("float32")))
    if gradient == "rate":
        rows = rows.reshape(3, 10, *rows.shape[1:]).mean(axis=0)
    wanted = np.sum(rows**2) / len(rows)
    if place == "kernel":
        wanted = np.sum(to_numpy(conv.kernel) ** 2)
    assert loss == pytest.approx(0.1 * wanted, rel=1e-5)


# Frozen parts.


@every_gradient
def test_a_frozen_batch_normalization_keeps_and_uses_its_statistics(gradient):
    network = convolutional()
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
            layer.moving_mean.assign(ops.full((4,), -0.2))
    model = compiled(spiking(network, gradient=gradient))
    statistics = [v for v in model.variables if "moving" in v.path]
    before = [to_numpy(variable) for variable in statistics]
    evaluated = model.evaluate(IMAGES, Y, verbose=0)
    assert model.train_on_batch(IMAGES, Y) == pytest.approx(evaluated, rel=1e-5)
    assert_close(statistics, before, rtol=0)


@every_gradient
def test_moving_statistics_are_updated_once_per_batch_and_only_in_training(gradient):
    model = compiled(
        spiking(convolutional(), gradient=gradient), keras.optimizers.SGD(0.0)
    )
    (first,) = [
        variable for variable in model.variables if variable.path == "norm/moving_mean"
    ]
    model.evaluate(IMAGES, Y, verbose=0)
    model.predict(IMAGES, verbose=0)
    assert (to_numpy(first) == 0).all()
    model.fit(IMAGES, Y, batch_size=10, verbose=0)
    currents = to_numpy(model.network.get_layer("conv")(IMAGES))
    np.testing.assert_allclose(
        to_numpy(first), 0.01 * currents.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6
    )


def test_all_layers_of_a_model_are_frozen_and_thawed():
    part = mlp(width=4)
    network = keras.Sequential([keras.Input((6,)), part, LIF(), layers.Dense(3)])
    model = spiking(network)
    wanted = len(model.trainable_variables)
    part.layers[1].trainable = False
    assert len(model.trainable_variables) == wanted - 2
    for trainable, number in ((False, 0), (True, wanted)):
        model.trainable = trainable
        assert len(model.trainable_variables) == number


def test_layers_added_to_a_trained_network_are_checked():
    network = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4), LIF(), layers.Dense(3)]
    )
    model = compiled(spiking(network, timesteps=3))
    model.fit(X, Y, verbose=0)
    network.add(rsnn.layers.PSN(timesteps=5))
    with pytest.raises(ValueError, match="`timesteps` must be 5"):
        model.predict(X, verbose=0)
    network.pop()
    for _ in range(2):
        network.pop()
    with pytest.raises(ValueError, match="`network` must contain"):
        model(X)
    network.add(LIF())
    network.add(layers.Dense(3))
    compiled(model).fit(X, Y, verbose=0)


def test_a_spiking_model_is_a_layer_of_a_bigger_model():
    inputs = keras.Input((6,))
    part = spiking(mlp(classes=5), name="part")
    x = part(layers.Rescaling(2.0)(inputs))
    whole = compiled(keras.Model(inputs, layers.Dense(3)(x)))
    before = part.get_weights()
    whole.fit(X, Y, verbose=0)
    assert not any(map(np.array_equal, part.get_weights(), before))
    outputs = saved_and_loaded(whole).predict(X, verbose=0)
    assert_all_close([outputs], [whole.predict(X, verbose=0)])


def test_a_time_distributed_model_is_called_on_each_part():
    sequences, _ = helpers.data(shape=(4, 6))
    inputs, model = keras.Input((4, 6)), spiking()
    x = layers.TimeDistributed(model)(inputs)
    whole = compiled(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    parts = [model.predict(sequences[:, index], verbose=0) for index in range(4)]
    outputs = whole.predict(sequences, verbose=0)
    assert_all_close([outputs], [np.mean(parts, axis=0)])
    before = model.get_weights()
    whole.fit(sequences, Y, verbose=0)
    assert not any(map(np.array_equal, model.get_weights(), before))


def test_its_shapes_are_those_of_its_only_input_and_output():
    sequential = keras.Sequential([keras.Input((6,)), LIF(), layers.Dense(3)])
    for network in (mlp(), sequential):
        model = spiking(network)
        assert (model.input_shape, model.output_shape) == ((None, 6), (None, 3))
        model.return_sequences = True
        assert model.output_shape == (None, 3, 3)
    assert spiking(two_inputs()).input_shape == [(None, 6), (None, 4)]


def test_its_symbolic_output_has_the_shape_of_its_output():
    for return_sequences, shape in ((False, (None, 3)), (True, (None, 3, 3))):
        model = spiking(return_sequences=return_sequences)
        assert model(keras.Input((6,))).shape == shape
        assert model(keras.Input((3, 6))).shape == shape
        assert (
            model.compute_output_shape((None, 6))
            == model.compute_output_shape([None, 3, 6])
            == shape
        )


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_it_has_the_inputs_and_outputs_of_a_functional_model(structure):
    network = two_outputs(structure)
    model = spiking(network)
    assert (model.inputs, model.input_shape) == (network.inputs, network.input_shape)
    assert [output.shape for output in model.outputs] == [
        output.shape for output in network.outputs
    ]
    assert model.output_shape == network.output_shape
    model.return_sequences = True
    assert model.output_shape == [
        (None, 3, shape[-1]) for shape in network.output_shape
    ]
    model.timesteps = 2
    assert model.output_shape == [
        (None, 2, shape[-1]) for shape in network.output_shape
    ]


def test_a_head_on_its_outputs_is_a_model():
    model = spiking(mlp(classes=5))
    whole = compiled(keras.Model(model.inputs, layers.Dense(3)(model.outputs[0])))
    whole.fit(X, Y, verbose=0)
    assert_all_close(
        [whole.predict(X, verbose=0)], [to_numpy(whole.layers[-1](model(X)))]
    )
    loaded = saved_and_loaded(whole)
    assert_all_close([loaded.predict(X, verbose=0)], [whole.predict(X, verbose=0)])


def test_layers_of_the_network_are_found_by_name_and_index():
    network = nested()
    model = spiking(network)
    inner = model.get_layer("inner")
    assert inner is network.get_layer("inner")
    assert inner.get_layer(index=-1) is inner.layers[-1]
    assert model.get_layer(index=-1) is network.layers[-1]
    assert model.get_layer(network.name) is network
    for arguments in (
        {"name": "nowhere"},
        {"index": 99},
        {},
        {"name": "inner", "index": 0},
    ):
        with pytest.raises(ValueError, match="layer"):
            model.get_layer(**arguments)


def test_a_network_can_be_cut_at_a_layer():
    model = spiking(convolutional())
    body = keras.Model(model.inputs, model.get_layer("conv").output)
    other = spiking(
        keras.Model(model.inputs, layers.Dense(2)(layers.Flatten()(LIF()(body.output))))
    )
    assert other.get_layer("conv") is model.get_layer("conv")
    assert other.predict(IMAGES, verbose=0).shape == (10, 2)

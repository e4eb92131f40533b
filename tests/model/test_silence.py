"""What would go wrong in silence is one warning, and right programs get none."""

import copy
import functools
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    CROSSENTROPY,
    Batches,
    assert_close,
    both_step_modes,
    chain,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn

X = np.random.default_rng(0).random((8, 6)).astype("float32")

Y = np.arange(8) % 3


def network(*last, threshold=0.5):
    """Neurons, then a layer without an activation, then `last`."""
    neurons = rsnn.layers.LIF(threshold=threshold)
    return chain(layers.Dense(5), neurons, layers.Dense(3), *last)


def raised_by(function):
    """The warnings of a function; Keras' and NumPy's own are left out."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        function()
    raised = [one for one in raised if one.category is UserWarning]
    return [one for one in raised if "`shuffle=True`" not in str(one.message)]


def warned(function):
    return [str(one.message) for one in raised_by(function)]


def model_of(network, loss=CROSSENTROPY, timesteps=3, **kwargs):
    model = rsnn.SpikingModel(network, timesteps, **kwargs)
    model.compile("sgd", loss)
    return model


def softmax():
    return network(layers.Softmax())


def averaged(*first):
    last = layers.Reshape((1, 3)), *first, layers.GlobalAveragePooling1D()
    return network(*last)


def firing():
    return network(rsnn.layers.LIF(name="last"))


def counting():
    return network(rsnn.layers.LIF(), layers.Rescaling(3.0))


def readout():
    return network(rsnn.layers.LeakyReadout())


def two_outputs():
    hidden = network()
    probabilities = layers.Softmax()(hidden.outputs[0])
    outputs = {"a": probabilities, "b": layers.Dense(3)(probabilities)}
    return keras.Model(hidden.inputs, outputs)


def own_loss(y, outputs):
    return ops.mean(ops.square(ops.nan_to_num(y) - outputs), axis=-1)


SPARSE = "sparse_categorical_crossentropy"

LOGITS_HELD = "holds logits"

LOSSES = [
    (network, SPARSE, LOGITS_HELD, "SparseCategoricalCrossentropy(from_logits=True)"),
    (network, keras.losses.binary_crossentropy, "BinaryCrossentropy(from_logits=True)"),
    (averaged, SPARSE, LOGITS_HELD),
    (readout, "kl_divergence", LOGITS_HELD, "the activation"),
    (network, rsnn.losses.TET(SPARSE), LOGITS_HELD, "from_logits=True"),
    (softmax, CROSSENTROPY, "holds probabilities", "from_logits=False"),
    (firing, SPARSE, "firing rates of 'last'", "keras.layers.Dense"),
    (firing, CROSSENTROPY, "firing rates of 'last'", "Dense", "Rescaling(timesteps)"),
    (counting, SPARSE, LOGITS_HELD),
    (two_outputs, {"a": CROSSENTROPY, "b": CROSSENTROPY}, "output 'a'"),
    # What fits is not warned of.
    (network, CROSSENTROPY),
    (counting, CROSSENTROPY),
    (softmax, SPARSE),
    (lambda: averaged(layers.Softmax()), SPARSE),
    (firing, "mse"),
    (network, own_loss),
    (network, None),
    (lambda: network(layers.ReLU()), SPARSE),
    (two_outputs, {"a": SPARSE}),
    # Keras refuses another number of losses later.
    (two_outputs, [SPARSE, CROSSENTROPY, CROSSENTROPY]),
]


@both_step_modes
def test_nan_passes_normalization_and_pooling_to_the_outputs_of_its_sample(step_mode):
    """In training batch normalisation, and only that, passes it to all samples."""
    pooling = layers.AveragePooling2D(2), layers.MaxPooling2D(2), layers.Flatten()
    parts = (
        layers.Conv2D(4, 3, padding="same"),
        layers.LayerNormalization(),
        rsnn.layers.LIF(),
        *pooling,
        layers.Dense(3),
    )
    x = np.random.default_rng(0).random((3, 2, 4, 4, 1))
    x[0, 0, 0, 0], x[1, 1, 3, 3] = np.nan, np.inf
    for first, spreads in (
        (layers.Rescaling(2.0), False),
        (layers.BatchNormalization(), True),
    ):
        network = chain(first, *parts, shape=(4, 4, 1))
        model = rsnn.SpikingModel(network, 2, step_mode=step_mode)
        assert np.isfinite(to_numpy(model(np.ones_like(x)))).all()
        outputs = [model.predict(x, verbose=0), to_numpy(model(x, training=True))]
        for found, in_all in zip(outputs, (False, spreads), strict=True):
            assert np.isnan(found[:2]).all()
            assert np.isnan(found[2]).all() == in_all


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_takes_outputs_for_what_they_are_not_is_warned_of_once(case):
    make, loss, *fragments = case
    model = rsnn.SpikingModel(make(), 3)
    messages = warned(lambda: model.compile("sgd", loss))
    assert len(messages) == bool(fragments)
    for fragment in fragments:
        assert fragment in messages[0]
    assert warned(lambda: model.compile("sgd", loss)) == []


def rescaled(**kwargs):
    """A model that scales its inputs itself."""
    layer = layers.Rescaling(name="scaled", **kwargs)
    return model_of(chain(layer, rsnn.layers.LIF(), layers.Dense(3)), timesteps=2)


BYTES = {"scale": 1 / 255}


@pytest.mark.parametrize(
    ("method", "arguments", "x", "largest"),
    [
        ("fit", BYTES, X, "255"),
        ("evaluate", {"scale": [0.01, 0.01, 0.02, 0.01, 0.01, 0.01]}, X, "50"),
        ("predict", BYTES, X, "255"),
        ("predict", BYTES, np.round(255 * X), None),
        ("predict", BYTES, X - 0.5, None),
        ("predict", {"scale": 0.0}, X, None),
        ("predict", {"scale": 2.0, "offset": -1.0}, X, None),
    ],
)
def test_images_that_are_scaled_twice_are_warned_of_once(method, arguments, x, largest):
    model, labels = rescaled(**arguments), () if method == "predict" else (Y,)
    messages = warned(lambda: getattr(model, method)(x, *labels))
    assert len(messages) == (largest is not None)
    for message in messages:
        assert "'scaled'" in message
        assert f"0 to {largest}" in message
    assert warned(lambda: getattr(model, method)(x, *labels)) == []


ONE_HOT = keras.losses.CategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("loss", "y", "sequences", "message"),
    [
        (CROSSENTROPY, Y, True, "`y` must have a time axis"),
        ("mse", X[:, :3], True, "`y` must have a time axis"),
        (CROSSENTROPY, np.eye(3)[Y], False, "CategoricalCrossentropy"),
        (ONE_HOT, Y, False, "SparseCategoricalCrossentropy"),
        ("mse", Y[:, None], False, r"mean_squared_error.*to_categorical\(y, 3\)"),
    ],
)
def test_labels_that_do_not_fit_the_loss_are_an_error_that_says_what_to_do(
    loss, y, sequences, message
):
    model = model_of(network(), loss, return_sequences=sequences)
    # In TensorFlow's graph the size of a batch is not known.
    shapes = [f"y of shape {(size, *y.shape[1:])}" for size in (8, None)]
    for use in (model.fit, model.evaluate, model.test_on_batch):
        with pytest.raises(ValueError, match=message) as raised:
            use(X, y)
        assert any(shape in str(raised.value) for shape in shapes)


def test_labels_of_samples_are_not_compared_with_steps():
    """Keras would do so in silence where there are as many samples as steps, 8."""
    model = rsnn.SpikingModel(network(), 8, return_sequences=True)
    loss = rsnn.losses.TET(CROSSENTROPY)
    model.compile("sgd", loss, metrics=["accuracy"])
    message = r"time axis for the metric.*AnytimeAccuracy\(timesteps=8\)"
    for use in (model.evaluate, model.fit):
        with pytest.raises(ValueError, match=message):
            use(X, Y, verbose=0)
    # Labels with an axis are compared with the steps of their samples.
    right = model.predict(X, verbose=0).argmax(-1) == Y[:, None]
    accuracy = model.evaluate(X, Y[:, None], verbose=0)[1]
    assert accuracy == pytest.approx(right.mean())

    def mean(labels, outputs):
        return ops.mean(outputs, axis=(1, 2))

    wrapped = keras.metrics.MeanMetricWrapper(mean)
    model.compile("sgd", loss, metrics=[rsnn.metrics.AnytimeAccuracy(8), mean, wrapped])
    model.evaluate(X, Y, verbose=0)


def test_weights_of_samples_are_not_taken_for_those_of_steps():
    """Keras would do so in silence where there are as many samples as steps, 8."""
    model = model_of(network(), timesteps=8, return_sequences=True)
    y, weights = np.repeat(Y[:, None], 8, axis=1), np.arange(8.0)
    message = r"`sample_weight` must have a time axis.*weights\[:, None\], 8, axis=1"
    for use in (model.evaluate, model.fit):
        with pytest.raises(ValueError, match=message):
            use(X, y, sample_weight=weights, verbose=0)
    repeated = np.repeat(weights[:, None], 8, axis=1)
    assert np.isfinite(model.evaluate(X, y, sample_weight=repeated, verbose=0))


TEXTS = np.array(["a", "b", "c"])


@pytest.mark.parametrize(
    ("y", "received"),
    [
        (TEXTS[Y], "dtype <U1"),
        (["a", "b", "c", "a"] * 2, "'a' of type str, in a list"),
        (Y + 1, "Received: 3, the label of sample 2"),
        (np.where(Y == 1, np.nan, Y), "Received: nan, the label of sample 1"),
    ],
    ids=["texts", "list", "from 1", "NaN"],
)
def test_labels_that_are_no_classes_are_an_error(y, received):
    model = model_of(network())
    for use in (
        lambda: model.fit(X, y, verbose=0),
        lambda: model.evaluate(X, y, verbose=0),
        lambda: model.fit(X, Y, validation_data=(X, y), verbose=0),
    ):
        with pytest.raises(ValueError, match=rf"^`y` must be.*{received}"):
            use()


def test_labels_of_no_class_are_accepted_if_they_are_ignored():
    loss = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=-1)
    model = model_of(network(), loss)
    assert np.isfinite(model.evaluate(X, Y - 1, verbose=0))


def generator(x, y):
    while True:
        yield x[:4], y[:4]
        yield x[4:], y[4:]


def batches_of_backend(*arrays):
    if BACKEND == "torch":
        from torch.utils import data

        pairs = list(zip(*map(ops.convert_to_tensor, arrays), strict=True))
        return data.DataLoader(pairs, 4)
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays).batch(4)


BATCHES = [generator, Batches, batches_of_backend]


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_labels_that_are_no_classes_are_an_error_in_the_first_batch_of_what_is_no_array(
    batches,
):
    model = model_of(network())
    before = [to_numpy(variable) for variable in model.variables]
    message = "`y` must be labels from 0 to 2.*Received: 3, the label of sample . of "
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message + "the first batch"):
            use(batches(X, Y + 1), verbose=0)
    assert_close(model.variables, before, rtol=0)


def with_nan(array, at):
    array = array.copy()
    array[at] = np.nan
    return array


class Fills(layers.Layer):
    def call(self, inputs):
        return ops.nan_to_num(inputs)


def filling():
    return chain(Fills(), network())


NUMBERS = X[:, :3]

FRAMES = with_nan(np.repeat(X[:, None], 3, axis=1), (slice(2, 4), 2))


@pytest.mark.parametrize(
    ("make", "loss", "x", "y", "problem"),
    [
        (network, CROSSENTROPY, with_nan(X, (5, 2)), Y, "`x` has NaN in sample 5"),
        (network, "mse", X, with_nan(NUMBERS, 4), "NaN in the labels of sample 4"),
        # What has a meaning.
        (network, CROSSENTROPY, FRAMES, Y, None),
        (filling, CROSSENTROPY, with_nan(X, (5, 2)), Y, None),
        (network, own_loss, X, with_nan(NUMBERS, (4, 1)), None),
    ],
    ids=["inputs", "labels", "padding", "filled", "loss of users"],
)
def test_nan_is_warned_of_once(make, loss, x, y, problem):
    model = model_of(make(), loss, mask_value=np.nan if x is FRAMES else None)
    messages = warned(lambda: model.fit(x, y, verbose=0))
    assert len(messages) == (problem is not None)
    assert problem is None or problem in messages[0]


@pytest.mark.usefixtures("look_for_silence")
def test_warnings_wait_for_a_run_that_is_right_and_copies_warn_anew():
    """Those before the run are of the line that asks for it."""
    neurons = rsnn.layers.LIF(threshold=1e6)
    network = chain(layers.Rescaling(1 / 255), neurons, layers.Dense(3))
    model = model_of(network, timesteps=2)
    for each in (model, copy.deepcopy(model)):

        def refused(model=each):
            with pytest.raises(ValueError, match="Received: 3, the label"):
                model.fit(X, Y + 1, verbose=0)

        assert raised_by(refused) == []
        fit = functools.partial(each.fit, X, Y, epochs=2, verbose=0)
        scaled, silent = raised_by(fit)
        assert "are scaled already" in str(scaled.message)
        assert scaled.filename == __file__
        assert "No neuron of" in str(silent.message)


def deep(last_threshold=0.5):
    """Two layers of neurons with batch normalisation, whose moving averages are those
    of no data."""
    parts = []
    for index, threshold in enumerate((0.5, last_threshold)):
        neurons = rsnn.layers.LIF(threshold=threshold, name=f"neurons_{index}")
        parts += [layers.Dense(8), layers.BatchNormalization(), neurons]
    return chain(*parts, layers.Dropout(0.1), layers.Dense(3))


@pytest.mark.usefixtures("look_for_silence")
@pytest.mark.parametrize(
    ("batches", "step_mode"), [(None, "single"), *((kind, "multi") for kind in BATCHES)]
)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_a_layer_that_does_not_spike_is_warned_of_once(batches, step_mode):
    model = model_of(deep(1e6), step_mode=step_mode)
    x, y = (X, Y) if batches is None else (batches(X, Y), None)
    options = {"steps_per_epoch": 2} if batches is generator else {}

    def fit():
        model.fit(x, y, epochs=2, verbose=0, **options)

    (message,) = warned(fit)
    assert "No neuron of 'neurons_1' spikes after the first epoch" in message
    assert "8 samples" in message
    assert "Lower their threshold" in message
    assert "BatchNormalization" not in message
    assert warned(fit) == []


@pytest.mark.usefixtures("look_for_silence")
@pytest.mark.parametrize(
    ("make", "x", "y", "reason"),
    [
        (lambda: network(threshold=1e6), X, NUMBERS, "Put a BatchNormalization before"),
        (deep, with_nan(X, (1, 2)), NUMBERS, "`x` has values that are NaN"),
        (deep, X, with_nan(NUMBERS, 1), "are NaN or infinite. The weights "),
        (deep, X, NUMBERS, None),
    ],
    ids=["no normalization", "inputs", "labels", "layers that spike"],
)
def test_the_reason_why_neurons_do_not_spike_is_named(make, x, y, reason):
    model = model_of(make(), "mse")
    batches = ((x, y) for _ in range(9))
    messages = warned(lambda: model.fit(batches, steps_per_epoch=1, verbose=0))
    assert len(messages) == (reason is not None)
    for message in messages:
        assert reason in message
        if make is deep:
            assert "No neuron of 'neurons_0', 'neurons_1' spikes" in message
            assert "threshold" not in message
            assert "BatchNormalization" not in message


PIXELS = np.round(255 * X)
LIF = rsnn.layers.LIF


@pytest.mark.usefixtures("look_for_silence")
@pytest.mark.parametrize(
    ("x", "first", "neurons", "is_large"),
    [
        (PIXELS.astype("uint8"), [], LIF, True),
        (PIXELS, [], functools.partial(rsnn.layers.PSN, 3), True),
        (PIXELS, [layers.Rescaling(1 / 255)], LIF, False),
        (PIXELS, [layers.Normalization(mean=128, variance=5000)], LIF, False),
        (PIXELS, [layers.BatchNormalization()], LIF, False),
        (PIXELS, [], lambda: LIF(threshold=255.0), False),
        (np.round(16 * X), [], LIF, False),
        (np.random.default_rng(0).poisson(1.0, (8, 3, 6)), [], LIF, False),
    ],
)
def test_images_that_are_not_scaled_are_warned_of_by_their_currents(
    x, first, neurons, is_large
):
    """Scaled ones are not, nor are small integers, nor counts of events."""
    keras.utils.set_random_seed(0)
    named = neurons()
    model = model_of(chain(*first, layers.Dense(64), named, layers.Dense(3)))
    messages = [text for text in warned(lambda: model.fit(x, Y)) if "curr" in text]
    assert len(messages) == is_large
    for message in messages:
        assert f"The currents of {named.name!r} are more than 16 times" in message
        assert "keras.layers.Rescaling(1 / 255)" in message


class Counting(rsnn.SpikingModel):
    """Counts how often its loss is computed in Python: on TensorFlow and JAX in each
    trace."""

    losses_computed = 0

    def compute_loss(self, *args, **kwargs):
        self.losses_computed += 1
        return super().compute_loss(*args, **kwargs)


def test_looking_for_silence_changes_nothing_of_the_training(look_for_silence):
    """Nor a list of callbacks of users."""

    def trained(is_looking):
        look_for_silence(is_looking)
        keras.utils.set_random_seed(3)
        model = Counting(deep(), 3)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), CROSSENTROPY)
        callbacks = keras.callbacks.CallbackList([], add_history=True, model=model)
        before = list(callbacks.callbacks)
        batches = [(np.roll(X, index, axis=0), np.roll(Y, index)) for index in range(9)]
        options = {"steps_per_epoch": 2, "epochs": 2, "shuffle": False, "verbose": 0}
        model.fit((batch for batch in batches), callbacks=callbacks, **options)
        assert callbacks.callbacks == before
        values = [to_numpy(variable) for variable in model.variables]
        return values, model.losses_computed

    without, count = trained(False)
    looked, count_looked = trained(True)
    assert count == count_looked
    assert_close(looked, without, rtol=0)


@pytest.mark.backends(1)
@pytest.mark.parametrize(
    ("name", "near"),
    [("pytorch", "torch"), ("JAX", "jax"), ("tensorflw", "tensorflow")],
)
def test_an_unknown_backend_is_an_error_that_names_the_nearest(name, near):
    done = subprocess.run(
        [sys.executable, "-c", "import keras_ratesnn"],
        env={**os.environ, "KERAS_BACKEND": name},
        capture_output=True,
        text=True,
    )
    assert (
        f"ImportError: Keras has no such backend. Received: KERAS_BACKEND={name!r}. "
        f"Use {near!r}" in done.stderr
    )


@pytest.mark.backends(1)
def test_a_backend_that_is_not_installed_is_an_error_that_names_the_variable():
    program = "import sys; sys.modules['tensorflow'] = None; import keras_ratesnn"
    environment = {
        name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert (
        "ImportError: Keras runs on tensorflow here, which is not installed. Received: "
        "KERAS_BACKEND=None" in done.stderr
    )
    assert "export KERAS_BACKEND=jax" in done.stderr

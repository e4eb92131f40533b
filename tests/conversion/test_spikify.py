"""spikify: which activations are replaced or kept, that nothing else changes, and
calibration of trained networks."""

import functools

import helpers
import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import spikify
from keras_ratesnn.layers import IF, ILIF, LIF, Neuron

pytestmark = pytest.mark.runs_once

X, _ = helpers.data()
LOSS = keras.losses.SparseCategoricalCrossentropy()
quiet = functools.partial(spikify, verbose=False)


def functional(hidden, shape=(6,)):
    """Dense, `hidden`, Dense with softmax."""
    last = layers.Dense(3, activation="softmax", name="outputs")
    parts = layers.Dense(8, name="before"), hidden, last
    return helpers.chain(*parts, shape=shape, name="inputs")


def two_layers(x):
    x = layers.ReLU(name="first")(x)
    return layers.Dense(4, activation="gelu", name="second")(x)


def replaced(model):
    return [change.name for change in model.spikify_report.replaced]


def activations(model):
    return [change.activation for change in model.spikify_report.replaced]


def stays(model):
    return {change.name: change.reason for change in model.spikify_report.kept}


def report(model):
    return str(model.spikify_report).splitlines()


def assert_arrays_equal(values, expected):
    keras.tree.map_structure(assert_array_equal, values, expected)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


# What is replaced.
NAMES = ["relu", "relu6", "leaky_relu", "silu", "gelu", "hard_sigmoid", "elu", "selu"]
MORE_NAMES = ["swish", "hard_silu", "hard_swish", "celu", "mish", "softplus", "tanh"]


def test_activation_layers_and_functions_become_neurons_and_layers_keep_their_names():
    def hidden(x):
        for name in (*NAMES, *MORE_NAMES):
            x = layers.Activation(name, name=f"layer_{name}")(x)
        for layer in (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU):
            x = layer(name=layer.__name__)(x)
        for name in (*NAMES, "hard_silu"):
            x = getattr(ops, name)(x)
        for name in NAMES:
            x = getattr(keras.activations, name)(x)
        return ops.relu(x=x)

    network = functional(hidden)
    model = quiet(network, 2)
    functions = [*NAMES, "hard_silu", *NAMES, "relu"]
    assert activations(model)[-len(functions) :] == functions
    operations = model.network.operations
    assert {type(layer) for layer in operations[2:-1]} == {IF}
    layer_names = [layer.name for layer in network.layers]
    names = [operation.name for operation in operations]
    assert [name for name in names if name in layer_names] == layer_names


def test_an_activation_argument_becomes_a_neuron_after_the_layer():
    """If it is a layer, its own weights go with it."""
    inputs = keras.Input((6, 6, 2))
    with_activation = [
        layers.Dense(4, activation="relu"),
        layers.EinsumDense("bhwc,cd->bhwd", (6, 6, 4), activation="gelu"),
        layers.Conv2D(4, 3, activation="swish"),
        layers.SeparableConv2D(4, 3, activation="elu"),
        layers.Conv2DTranspose(4, 3, activation=layers.LeakyReLU(0.1)),
        layers.Conv2D(4, 3, activation=layers.PReLU("ones")),
    ]
    parts = [layers.Flatten()(layer(inputs)) for layer in with_activation]
    x = layers.Activation(layers.ReLU(6.0), name="layer")(layers.Concatenate()(parts))
    network = keras.Model(inputs, layers.Dense(3, activation=layers.Softmax())(x))
    model = quiet(network, 2)
    assert {"leaky_relu", "prelu", "relu(max_value=6)"} <= {*activations(model)}
    assert list(stays(model).values()) == ["output"]
    get_layer = model.network.get_layer
    for layer in with_activation:
        copy = get_layer(layer.name)
        assert copy.activation is keras.activations.linear
        assert get_layer(f"{layer.name}_neuron").input is copy.output
        assert layer.activation is not keras.activations.linear
        weights = copy.get_weights()
        assert_arrays_equal(weights, layer.get_weights()[: len(weights)])


def test_nested_models_are_changed_inside_and_once_if_they_are_called_twice():
    hidden = [layers.Dense(4, activation="relu"), layers.ReLU()]
    inner = keras.Sequential([keras.Input((6,)), *hidden], name="inner")
    inputs = keras.Input((6,))
    tower = keras.Model(inputs, ops.gelu(inner(inputs)), name="tower")
    inputs = {name: keras.Input((6,), name=name) for name in ("a", "b")}
    x = layers.Concatenate()([tower(inputs["a"]), tower(inputs["b"])])
    network = keras.Model(inputs, layers.Dense(3)(x))
    model = quiet(network, 2, calibrate={"a": X, "b": 2 * X})
    assert activations(model) == ["relu", "relu", "gelu"]
    nested = model.network.get_layer("tower").get_layer("inner")
    assert isinstance(nested, keras.Sequential)
    assert model.count_params() == network.count_params()
    assert model.predict({"a": X, "b": X}, verbose=0).shape == (10, 3)


# What stays.
def gated_by(gate):
    """Squeeze and excite."""

    def hidden(x):
        x = layers.Conv2D(4, 3, activation="relu", name="signal")(x)
        pooled = layers.GlobalAveragePooling2D()(x)
        squeezed = layers.Dense(2, activation="relu", name="reduce")(pooled)
        expanded = gate(layers.Dense(4, name="expand")(squeezed))
        gated = layers.Multiply()([x, layers.Reshape((1, 1, 4))(expanded)])
        return layers.Flatten()(gated)

    return hidden


def gated_linear_unit(x):
    x = layers.ReLU(name="first")(x)
    return layers.Dense(8)(x) * layers.Dense(8, activation="silu", name="gate")(x)


def highway(x):
    gate = layers.Dense(8, activation="sigmoid", name="gate")(x)
    signal = layers.Dense(8, activation="relu", name="signal")(x)
    return signal * gate + x * (1.0 - gate)


def sequence(x):
    x = layers.Reshape((4, 2))(x)
    x = layers.MultiHeadAttention(1, 2, name="attention")(x, x)
    x = layers.Dense(4, activation="relu", name="hidden")(x)
    return layers.LSTM(4, name="recurrence")(x)


def softmaxes(x):
    x = ops.log_softmax(ops.softmax(layers.ReLU(name="first")(x)))
    return layers.Softmax(name="layer")(x)


def relu_gate(x):
    return layers.ReLU(6.0, name="gate")(x + 3.0) * (1.0 / 6.0)


GATE = {"gate": "gate"}
INSIDE = {"attention": "inside a layer", "recurrence": "inside a layer"}
SOFTMAXES = dict.fromkeys(["softmax", "log_softmax", "layer"], "softmax")
SIGMOID = layers.Activation("sigmoid", name="gate")


@pytest.mark.parametrize(
    ("hidden", "shape", "names", "reasons"),
    [
        (gated_by(SIGMOID), (6, 6, 2), ["signal", "reduce"], GATE),
        (gated_by(relu_gate), (6, 6, 2), ["signal", "reduce"], GATE),
        (gated_linear_unit, (6,), ["first"], GATE),
        (highway, (6,), ["signal"], GATE),
        (sequence, (6,), ["hidden"], INSIDE),
        (softmaxes, (6,), ["first"], SOFTMAXES),
        (layers.Activation("sigmoid", name="bend"), (6,), ["bend"], {}),
        (lambda x: LIF()(layers.ReLU(name="first")(x)), (6,), ["first"], {}),
    ],
)
def test_gates_softmaxes_neurons_and_what_is_inside_layers_stay(
    hidden, shape, names, reasons
):
    model = quiet(functional(hidden, shape), 2)
    assert replaced(model) == names
    assert stays(model) == {**reasons, "outputs": "output"}


def test_a_masked_signal_is_hidden():
    inputs, mask = keras.Input((6,)), keras.Input((6,))
    x = layers.ReLU(name="signal")(inputs) * mask
    network = keras.Model([inputs, mask], layers.Dense(3)(x))
    assert replaced(quiet(network, 2)) == ["signal"]


@pytest.mark.parametrize(
    "join", [layers.Concatenate(), functools.partial(ops.concatenate, axis=-1)]
)
def test_the_activation_of_an_output_or_of_a_part_stays_unless_it_feeds_further_layers(
    join,
):
    """Scores beside boxes, as in the heads of YOLO, through reshapes and casts."""
    inputs = keras.Input((4,))
    x = layers.Dense(8, activation="relu", name="features")(inputs)
    one = layers.Dense(4, activation="relu", name="one")(x)
    one = ops.cast(layers.Reshape((2, 2))(one), "float32")
    scores = layers.Dense(2, "sigmoid", name="scores")(x)
    joined = join([layers.Dense(4, name="boxes")(x), scores])
    joined = layers.Activation("linear")(joined)
    outputs = [x, one, joined[:, :4], joined[:, 4:]]
    model = quiet(keras.Model(inputs, outputs), 2)
    assert replaced(model) == ["features"]
    assert stays(model) == {"one": "output", "scores": "output"}
    further = keras.Model(inputs, layers.Dense(1)(joined))
    assert replaced(quiet(further, 2)) == ["features", "scores"]


# That nothing else changes.
def test_layers_inside_a_layer_stay_frozen():
    layer = layers.TimeDistributed(layers.Dense(8))
    parts = layer, layers.ReLU(), layers.BatchNormalization(), layers.Dense(2)
    network = helpers.chain(*parts, shape=(3, 6))
    layer.layer.trainable = False
    frozen = quiet(network, 2)
    folded = rsnn.deploy.fold_batch_normalization(frozen, verbose=False)
    for model in (frozen, folded):
        assert len(model.trainable_variables) == len(network.trainable_variables)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("calibrate", [None, X])
@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(4, "relu", activity_regularizer="l2"),
        layers.ReLU(activity_regularizer="l2"),
    ],
)
def test_an_activity_regularizer_stays_with_the_activities(layer, calibrate):
    def loss(model):
        model(X, training=True)
        return to_numpy(sum(model.losses))

    network = functional(layer)
    model = quiet(network, 64, calibrate=calibrate, percentile=100.0)
    layers_inside = model.network.layers
    (regularized,) = [one for one in layers_inside if one.activity_regularizer]
    if calibrate is None:
        assert isinstance(regularized, Neuron)
    else:
        assert isinstance(regularized, layers.Rescaling)
        assert loss(model) == pytest.approx(loss(network), rel=0.1)


def test_weights_names_frozen_layers_and_the_original_model_are_kept():
    def hidden(x):
        x = layers.Conv2D(8, 3, name="frozen", trainable=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.PReLU(shared_axes=[1, 2], name="learned")(x)
        return gated_by(layers.Activation("sigmoid"))(x)

    def state():
        paths = [weight.path for weight in network.weights]
        return paths, network.get_weights(), to_numpy(network(ones))

    network, ones = functional(hidden, (8, 8, 2)), np.ones((4, 8, 8, 2))
    random = np.random.default_rng(1)
    for weight in network.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape))
    before = state()
    model = quiet(network, 2)
    same = [weight for weight in network.weights if "learned" not in weight.path]
    for new, old in zip(model.network.weights, same, strict=True):
        assert new.path == old.path
        assert new is not old
        assert_array_equal(to_numpy(new.value), to_numpy(old.value))
    assert not model.network.get_layer("frozen").trainable
    assert model.network.name == network.name
    helpers.compiled(model, loss=LOSS).fit(ones, np.zeros(4), verbose=0)
    assert_arrays_equal(state(), before)


# The user's choice.
def test_neuron_may_be_a_class_a_partial_or_a_function_of_the_operation():
    network = functional(two_layers)
    changes = quiet(network, 2, neuron=LIF).spikify_report.replaced
    assert {type(change.neuron) for change in changes} == {LIF}
    halved = quiet(network, 2, neuron=functools.partial(LIF, threshold=0.5))
    assert halved.network.get_layer("second_neuron").threshold == 0.5
    asked = []

    def choose(operation):
        asked.append(operation)
        return LIF(decay=0.5) if operation.name == "second" else None

    chosen = quiet(network, 2, neuron=choose)
    assert asked == [network.get_layer("first"), network.get_layer("second")]
    assert isinstance(chosen.network.get_layer("first"), layers.ReLU)
    assert chosen.network.get_layer("second_neuron").decay == 0.5
    assert stays(chosen)["first"] == "left by `neuron`"


def test_the_report_lists_all_changes_and_is_printed(capsys):
    model = spikify(functional(two_layers), 2)
    assert capsys.readouterr().out == f"{model.spikify_report}\n"
    assert report(model) == [
        "spikify: 2 of 3 activations became neurons.",
        "  relu -> IF: first",
        "  gelu -> IF: second",
        "  softmax stays (output): outputs",
        "  not calibrated: train the network, or pass calibrate=, a batch of inputs, "
        "if its weights are trained",
    ]


def test_inactive_activations_are_not_calibrated_and_are_reported():
    network = functional(lambda x: layers.ReLU(name="alive")(x + ops.relu(x - 100.0)))
    model = quiet(network, 3, calibrate=X)
    silent, alive = model.spikify_report.replaced
    assert (silent.threshold is None, alive.threshold is None) == (True, False)
    assert f"never positive: {silent.name}" in str(model.spikify_report)


def test_the_report_names_what_is_not_linear_in_spikes():
    def hidden(x):
        x = layers.MaxPooling1D(1, name="of_inputs")(layers.Reshape((-1, 1))(x))
        x = layers.AveragePooling1D(2)(layers.ReLU()(layers.Conv1D(4, 1)(x)))
        x = layers.MaxPooling1D(2, name="of_spikes")(x)
        x = layers.LayerNormalization(name="normalized")(x)
        dropped = layers.Dropout(0.5)(layers.Dense(4, activation="relu")(x))
        x = layers.Flatten()(layers.Multiply(name="product")([x, dropped]))
        return rsnn.layers.TimeMean()(x)

    network = functional(hidden)
    line = (
        "  not linear in the spikes of a step, so that outputs differ more than by "
        "rounding: of_spikes, normalized, product"
    )
    assert line in report(quiet(network, 2, calibrate=X))
    for model in (quiet(network, 2), quiet(network, 1, calibrate=X)):
        assert "not linear" not in str(model.spikify_report)


# What is wrong is said.
UNBUILT = keras.Sequential([layers.Dense(3, activation="relu")])
WITHOUT_HIDDEN = functional(layers.Identity())
TWICE = functional(lambda x: ops.relu(ops.relu(x) - 1.0))
NAMED_AS_NEURONS = functional(
    lambda x: layers.Dense(3, name="a_neuron")(layers.Dense(4, "relu", name="a")(x))
)
NEURONS = LIF()
NO_GRAPH = "`model` must be a Functional or Sequential"
NOTHING = r"must have a hidden activation that neurons can replace[\s\S]*"
BATCH = "`calibrate` must be a batch"


@pytest.mark.parametrize(
    ("model", "neuron", "error", "message"),
    [
        (keras.Model(), IF, TypeError, NO_GRAPH),
        (helpers.spiking(), IF, TypeError, NO_GRAPH),
        (UNBUILT, IF, ValueError, "`model` must know its input shape"),
        (WITHOUT_HIDDEN, IF, ValueError, NOTHING + r"softmax stays \(output\): outp"),
        (TWICE, lambda _: None, ValueError, NOTHING + "left by `neuron`"),
        (TWICE, lambda _: NEURONS, ValueError, "new neuron layer each time"),
        (
            NAMED_AS_NEURONS,
            IF,
            ValueError,
            "after 'a'. Received: a layer 'a_neuron'. R",
        ),
        (TWICE, layers.ReLU, TypeError, "`neuron` must return a neuron layer or No"),
        (TWICE, NEURONS, TypeError, "`neuron` must be a callable that returns a new"),
    ],
)
def test_a_model_that_cannot_be_converted_is_an_error(model, neuron, error, message):
    with pytest.raises(error, match=message):
        quiet(model, 2, neuron=neuron)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("percentile", 101, ValueError, "`percentile` must be > 0 and <= 100"),
        ("calibrate", np.ones((2, 5)), ValueError, BATCH),
        ("calibrate", [np.ones((2, 6))] * 2, ValueError, BATCH + ".* has 1 input,"),
        ("calibrate", {"wrong": np.ones((2, 6))}, ValueError, BATCH + ".* without"),
        ("calibrate", [[1.0] * 6], TypeError, BATCH + ".* float"),
        ("calibrate", np.full((2, 6), np.nan), ValueError, "must give finite activat"),
    ],
)
def test_a_wrong_argument_is_an_error(name, value, error, message):
    with pytest.raises(error, match=message):
        quiet(functional(ops.relu), 3, **{name: value})


# Calibration.
@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    "activation", [layers.ReLU(), ops.relu], ids=["layer", "operation without masks"]
)
def test_a_network_that_masks_its_tokens_can_be_calibrated(activation):
    embedding = layers.Embedding(7, 3, "random_normal", mask_zero=True)
    hidden = layers.Dense(4, bias_initializer="ones"), activation
    parts = embedding, *hidden, layers.GlobalAveragePooling1D(), layers.Dense(2)
    network = helpers.chain(*parts, shape=(8,), dtype="int32")
    tokens = np.random.default_rng(0).integers(1, 7, (16, 8))
    tokens[:, 2:] = 0
    model = quiet(network, 64, calibrate=tokens, percentile=100.0)
    expected = to_numpy(network(tokens))
    assert_allclose(to_numpy(model(tokens)), expected, atol=0.02)


integers = functools.partial(ILIF, 4, 1.0, threshold=0.5)


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    ("timesteps", "neuron"),
    [
        (1, functools.partial(IF, initial_membrane=0.5)),
        (5, functools.partial(IF, threshold=0.25)),
        (3, functools.partial(integers, normalize=True)),
    ],
)
def test_calibrated_neurons_are_shifted_relu_rounded_to_levels_and_clipped(
    timesteps, neuron
):
    last = layers.Dense(64, kernel_initializer="identity")
    network = helpers.chain(layers.ReLU(name="relu"), last, shape=(64,))
    x = 3.0 * normal(50, 64)
    model = quiet(network, timesteps, neuron=neuron, calibrate=x, percentile=90)
    (change,) = model.spikify_report.replaced
    assert change.threshold == pytest.approx(np.percentile(x[x > 0], 90))
    settings = neuron().get_config()
    is_integer = "levels" in settings
    levels = timesteps * settings.get("levels", 1)
    level = change.threshold / levels
    offset = model.network.get_layer("relu_current").offset
    charge = settings["initial_membrane"] + timesteps * offset
    position = np.clip(x / level + charge / settings["threshold"], 0, levels)
    # Binary neurons round down, integer ones to the nearest level.
    tie = 0.5 if is_integer else 0.0
    lowest = np.floor(position + tie)
    is_clear = np.abs((position - tie + 0.5) % 1 - 0.5) > 1e-3
    outputs, expected = model.predict(x, verbose=0), lowest * level
    assert_allclose(outputs[is_clear], expected[is_clear], rtol=1e-5)
    if is_integer:
        # The mean of relu, by a current that clipping takes away.
        assert expected.mean() == pytest.approx(np.maximum(x, 0).mean(), rel=0.02)


@pytest.mark.on_each_backend
def test_activations_too_small_for_their_scale_in_half_precision_are_calibrated():
    keras.config.set_dtype_policy("mixed_float16")
    large = keras.initializers.Identity(2.0**20)
    last = layers.Dense(64, kernel_initializer=large, dtype="float32")
    small = layers.Rescaling(2.0**-20), layers.ReLU()
    network, x = helpers.chain(*small, last, shape=(64,)), normal(50, 64)
    model = quiet(network, 32, calibrate=x, percentile=100.0)
    assert_allclose(model.predict(x, verbose=0), np.maximum(x, 0), atol=0.15)


@pytest.mark.parametrize(
    "neuron",
    [None, functools.partial(LIF, decay=0.8), functools.partial(ILIF, 4, 1.0)],
)
def test_the_mean_output_of_calibrated_neurons_is_that_of_the_activations_in_each_layer(
    neuron,
):
    def outputs(network, suffix=""):
        tensors = [network.get_layer(f"{name}{suffix}").output for name in names]
        return keras.Model(network.inputs, tensors)

    def means(model):
        return [output.mean() for output in model.predict(x[:40], verbose=0)]

    names = ("first", "second", "third")
    inputs = x = keras.Input((8, 8, 1))
    for name in names:
        x = layers.Conv2D(8, 3, padding="same")(x)
        x = layers.ReLU(name=name)(layers.BatchNormalization()(x))
    network = keras.Model(inputs, layers.Conv2D(1, 1)(x))
    x = normal(160, 8, 8, 1)
    model = quiet(network, 4, neuron=neuron, calibrate=x, percentile=95)
    spiking = rsnn.SpikingModel(outputs(model.network, "_output"), 4)
    assert means(spiking) == pytest.approx(means(outputs(network)), rel=0.1)


@pytest.mark.on_each_backend
def test_inputs_by_unsorted_names_are_calibrated_as_any():
    def shift(names):
        keras.utils.set_random_seed(0)
        parts = {name: keras.Input((4,), name=name) for name in names}
        joined = layers.Concatenate()([parts["image"], parts["text"]])
        x = layers.Dense(8, activation="relu", name="hidden")(joined)
        network = keras.Model(parts, layers.Dense(2)(x))
        values = {"image": normal(64, 4), "text": normal(64, 4) ** 2}
        model = quiet(network, 4, calibrate=values)
        return model.network.get_layer("hidden_neuron_current").offset

    offset = shift(("text", "image"))
    assert offset == pytest.approx(shift(("image", "text")), rel=1e-5)
    assert offset != 0.0


def test_a_network_of_single_step_order_alone_is_calibrated_without_shifts():
    inputs = keras.Input((4, 6))
    rows = ops.reshape(layers.ReLU(name="first")(layers.Dense(5)(inputs)), (-1, 5))
    x = ops.reshape(layers.ReLU(name="second")(layers.Dense(5)(rows)), (-1, 4, 5))
    network = keras.Model(inputs, layers.Dense(2)(x))
    x = np.random.default_rng(0).random((16, 4, 6), dtype="float32")
    model = quiet(network, 2, step_mode="single", neuron=IF, calibrate=x)
    for name in ("first", "second"):
        assert model.network.get_layer(f"{name}_current").offset == 1 / 4
    assert model.predict(x, verbose=0).shape == (16, 4, 2)
    with pytest.raises(ValueError, match='set step_mode="single"'):
        quiet(network, 2, calibrate=x)


@pytest.mark.parametrize(("start", "offset"), [(0.0, 1 / 8), (0.25, 1 / 16), (0.5, 0)])
def test_neurons_that_are_called_twice_are_calibrated_without_a_shift(start, offset):
    relu = layers.ReLU(name="relu")
    network = functional(lambda x: relu(layers.Dense(8)(relu(x))))
    neuron = functools.partial(IF, initial_membrane=start)
    model = quiet(network, 4, neuron=neuron, calibrate=X)
    assert model.network.get_layer("relu_current").offset == offset


# Whole networks.
SMALL = {"alpha": 0.25, "include_preprocessing": False}
FAMILIES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
"""The families of keras.applications that run on PyTorch, and the size of their
images."""


@pytest.mark.parametrize(
    ("name", "size", "arguments", "gates"),
    [
        ("MobileNetV3Small", 32, SMALL, 9),
        *(
            pytest.param(name, size, {}, None, marks=pytest.mark.slow)
            for name, size in FAMILIES.items()
        ),
    ],
)
def test_every_family_of_applications_converts_and_trains(name, size, arguments, gates):
    make = getattr(keras.applications, name)
    network = make(weights=None, classes=10, input_shape=(size, size, 3), **arguments)
    model = quiet(network, 2)
    reasons = list(stays(model).values())
    assert set(reasons) <= {"gate", "output"}
    assert gates in (None, reasons.count("gate"))
    model.compile("sgd", LOSS, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(normal(2, size, size, 3), np.arange(2)))

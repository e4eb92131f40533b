"""spikify: which activations are replaced or kept, that nothing else changes, and
calibration of trained networks."""

import functools
import re

import helpers
import keras
import numpy as np
import pytest
from helpers import BACKEND, saved_and_loaded, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import spikify
from keras_ratesnn.conversion._hidden_activations import find_activations
from keras_ratesnn.layers import IF, ILIF, LIF, Neuron

pytestmark = pytest.mark.runs_once

X, Y = helpers.data()
LOSS = keras.losses.SparseCategoricalCrossentropy()


def functional(hidden, inputs_shape=(6,)):
    """Dense, `hidden`, Dense with softmax."""
    inputs = keras.Input(inputs_shape, name="inputs")
    x = hidden(layers.Dense(8, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="outputs")(x))


def quiet(model, timesteps=3, **kwargs):
    return spikify(model, timesteps, verbose=False, **kwargs)


def roles(model):
    return {
        (found.operation.name, found.function): found.role
        for found in find_activations(model)
    }


def names(model):
    return [operation.name for operation in model.network.operations]


# What is replaced.
@pytest.mark.parametrize(
    "activation",
    [
        layers.ReLU,
        functools.partial(layers.ReLU, max_value=6.0),
        layers.LeakyReLU,
        layers.PReLU,
        layers.ELU,
        *(
            functools.partial(layers.Activation, name)
            for name in (
                "relu",
                "relu6",
                "leaky_relu",
                "silu",
                "swish",
                "gelu",
                "hard_silu",
                "hard_swish",
                "hard_sigmoid",
            )
        ),
        *(
            functools.partial(layers.Activation, name)
            for name in ("elu", "selu", "celu", "mish", "softplus", "tanh")
        ),
    ],
)
def test_an_activation_layer_becomes_a_neuron_of_its_name(activation):
    network = functional(activation(name="hidden"))
    model = quiet(network)
    assert isinstance(model.network.get_layer("hidden"), IF)
    assert names(model) == [operation.name for operation in network.operations]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(
            (ops, name)
            for name in (
                "relu",
                "relu6",
                "leaky_relu",
                "silu",
                "gelu",
                "hard_silu",
                "hard_sigmoid",
                "elu",
                "selu",
            )
        ),
        *(
            (keras.activations, name)
            for name in (
                "relu",
                "relu6",
                "leaky_relu",
                "silu",
                "gelu",
                "hard_sigmoid",
                "elu",
                "selu",
            )
        ),
    ],
)
def test_a_function_becomes_a_neuron(module, name):
    model = quiet(functional(getattr(module, name)))
    assert [change.activation for change in model.spikify_report.replaced] == [name]
    assert [type(operation) for operation in model.network.operations] == [
        layers.InputLayer,
        layers.Dense,
        IF,
        layers.Dense,
    ]
    assert model.predict(X, verbose=0).shape == (10, 3)


def test_a_function_called_by_keyword_becomes_a_neuron():
    assert quiet(functional(lambda x: ops.relu(x=x))).predict(X, verbose=0).shape == (
        10,
        3,
    )


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(4, activation="relu", name="hidden"),
        layers.EinsumDense(
            "bhwc,cd->bhwd", (6, 6, 4), activation="gelu", name="hidden"
        ),
        layers.Conv2D(4, 3, activation="swish", name="hidden"),
        layers.DepthwiseConv2D(3, activation="relu6", name="hidden"),
        layers.SeparableConv2D(4, 3, activation="elu", name="hidden"),
        layers.Conv2DTranspose(4, 3, activation="leaky_relu", name="hidden"),
    ],
)
def test_an_activation_argument_becomes_a_neuron_after_the_layer(layer):
    inputs = keras.Input((6, 6, 2))
    network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layer(inputs))))
    model = quiet(network)
    assert names(model)[1:3] == ["hidden", "hidden_neuron"]
    assert model.network.get_layer("hidden").activation is keras.activations.linear
    assert layer.activation is not keras.activations.linear


def test_an_activation_argument_may_be_a_layer():
    """Its own weights go with it; at an output it stays."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation=layers.LeakyReLU(0.1), name="first")(inputs)
    x = layers.Dense(8, activation=layers.PReLU("ones"), name="second")(x)
    x = layers.Activation(layers.ReLU(6.0), name="third")(x)
    network = keras.Model(
        inputs, layers.Dense(3, activation=layers.Softmax(), name="outputs")(x)
    )
    model = quiet(network)
    assert roles(network) == {
        **{
            ("first", "leaky_relu"): "hidden",
            ("second", "prelu"): "hidden",
            ("third", "relu(max_value=6)"): "hidden",
        },
        ("outputs", "softmax"): "output",
    }
    assert names(model)[1:] == [
        "first",
        "first_neuron",
        "second",
        "second_neuron",
        "third",
        "outputs",
    ]
    for name in ("first", "second", "outputs"):
        copied = model.network.get_layer(name).get_weights()
        original = network.get_layer(name).get_weights()[:2]
        assert all(
            (ours == its).all() for ours, its in zip(copied, original, strict=True)
        )


def test_nested_models_are_changed_inside():
    inner = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, activation="relu"), layers.ReLU()],
        name="inner",
    )
    middle_input = keras.Input((8,))
    middle = keras.Model(middle_input, ops.gelu(inner(middle_input)), name="middle")
    model = quiet(functional(middle))
    assert [change.activation for change in model.spikify_report.replaced] == [
        "relu",
        "relu",
        "gelu",
    ]
    assert isinstance(
        model.network.get_layer("middle").get_layer("inner"), keras.Sequential
    )
    assert model.predict(X, verbose=0).shape == (10, 3)


def test_a_model_called_twice_is_changed_once():
    tower = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, activation="relu")], name="tower"
    )
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    network = keras.Model(
        {"a": a, "b": b}, layers.Dense(3)(layers.Concatenate()([tower(a), tower(b)]))
    )
    model = quiet(network, calibrate={"a": X, "b": 2 * X})
    assert len(model.spikify_report.replaced) == 1
    assert model.count_params() == network.count_params()
    assert model.predict({"a": X, "b": X}, verbose=0).shape == (10, 3)


# What stays.
def squeeze_excite(x, gate):
    x = layers.Conv2D(4, 3, activation="relu", name="signal")(x)
    squeezed = layers.Dense(2, activation="relu", name="reduce")(
        layers.GlobalAveragePooling2D()(x)
    )
    return layers.Multiply()(
        [x, layers.Reshape((1, 1, 4))(gate(layers.Dense(4, name="expand")(squeezed)))]
    )


@pytest.mark.parametrize(
    "gate",
    [
        layers.Activation("sigmoid", name="gate"),
        layers.Activation("hard_sigmoid", name="gate"),
        lambda x: layers.ReLU(6.0, name="gate")(x + 3.0) * (1.0 / 6.0),
    ],
)
def test_the_gate_of_squeeze_and_excite_stays_and_nothing_else(gate):
    inputs = keras.Input((6, 6, 2))
    found = roles(
        keras.Model(
            inputs, layers.Dense(3)(layers.Flatten()(squeeze_excite(inputs, gate)))
        )
    )
    assert {name: role for (name, _), role in found.items()} == {
        "signal": "hidden",
        "reduce": "hidden",
        "gate": "gate",
    }


def test_the_gate_of_a_gated_linear_unit_stays():
    def gated(x):
        return layers.Dense(8)(x) * layers.Dense(8, activation="silu", name="gate")(x)

    assert roles(functional(gated)) == {
        ("gate", "silu"): "gate",
        ("outputs", "softmax"): "output",
    }


def test_a_gated_signal_is_hidden_for_any_gate():
    def highway(x):
        gate = layers.Dense(8, activation="sigmoid", name="gate")(x)
        return layers.Dense(8, activation="relu", name="signal")(x) * gate + x * (
            1.0 - gate
        )

    assert roles(functional(highway)) == {
        ("gate", "sigmoid"): "gate",
        ("signal", "relu"): "hidden",
        ("outputs", "softmax"): "output",
    }


def test_a_masked_signal_is_hidden():
    inputs, mask = keras.Input((6,)), keras.Input((6,))
    network = keras.Model(
        [inputs, mask],
        layers.Dense(3)(layers.Multiply()([layers.ReLU(name="signal")(inputs), mask])),
    )
    assert roles(network) == {("signal", "relu"): "hidden"}


def test_a_sigmoid_that_gates_nothing_is_hidden():
    assert (
        roles(functional(layers.Activation("sigmoid", name="bend")))["bend", "sigmoid"]
        == "hidden"
    )


def test_attention_and_recurrence_stay():
    def sequence(x):
        x = layers.Reshape((4, 2))(x)
        x = layers.MultiHeadAttention(1, 2, name="attention")(x, x)
        return layers.LSTM(4, name="recurrence")(
            layers.Dense(4, activation="relu", name="hidden")(x)
        )

    found = roles(functional(sequence))
    assert {name for (name, _), role in found.items() if role == "inside a layer"} == {
        "attention",
        "recurrence",
    }
    assert found["hidden", "relu"] == "hidden"


@pytest.mark.parametrize("function", [ops.softmax, ops.log_softmax, layers.Softmax()])
def test_a_softmax_inside_stays(function):
    assert set(roles(functional(function)).values()) == {"softmax", "output"}


def test_the_activation_of_an_output_stays_through_reshapes_and_casts():
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    one = ops.cast(
        layers.Reshape((2, 2))(layers.Dense(4, activation="relu", name="one")(x)),
        "float32",
    )
    two = layers.Activation("sigmoid", name="two")(layers.Dense(2)(x))
    found = roles(keras.Model(inputs, [one, two]))
    assert {name: role for (name, _), role in found.items()} == {
        "hidden": "hidden",
        "one": "output",
        "two": "output",
    }


@pytest.mark.parametrize(
    "join",
    [layers.Concatenate(), lambda parts: ops.concatenate(parts, -1)],
    ids=["layer", "function"],
)
def test_the_activation_of_a_part_of_an_output_stays(join):
    """Scores beside boxes, as in the heads of YOLO; a part that feeds a further layer
    is hidden."""
    inputs = keras.Input((4,))
    scores, boxes = (
        layers.Dense(2, "sigmoid", name="scores")(inputs),
        layers.Dense(4, name="boxes")(inputs),
    )
    joined = layers.Activation("linear")(join([boxes, scores]))
    outputs = {"boxes": joined[:, :4], "scores": joined[:, 4:]}
    assert roles(keras.Model(inputs, outputs)) == {("scores", "sigmoid"): "output"}
    assert roles(keras.Model(inputs, layers.Dense(1)(joined))) == {
        ("scores", "sigmoid"): "hidden"
    }


def test_an_output_that_feeds_further_layers_is_hidden():
    inputs = keras.Input((6,))
    features = layers.Dense(8, activation="relu", name="features")(inputs)
    assert (
        roles(keras.Model(inputs, [features, layers.Dense(2)(features)]))[
            "features", "relu"
        ]
        == "hidden"
    )


def test_existing_neurons_are_kept():
    model = quiet(functional(lambda x: LIF(name="own")(layers.ReLU(name="hidden")(x))))
    assert isinstance(model.network.get_layer("own"), LIF)
    assert isinstance(model.network.get_layer("hidden"), IF)


# That nothing else changes.
@keras.saving.register_keras_serializable("test_spikify")
class Scaled(layers.Layer):
    """A dense layer inside a layer that has a weight of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(8)

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return self.dense(inputs) * self.scale


@pytest.mark.parametrize(
    "make", [Scaled, lambda: layers.TimeDistributed(layers.Dense(8))]
)
def test_layers_inside_a_layer_stay_frozen(make):
    inputs = keras.Input((3, 6))
    layer = make()
    network = keras.Model(
        inputs,
        layers.Dense(2)(layers.BatchNormalization()(layers.ReLU()(layer(inputs)))),
    )
    (layer.dense if isinstance(layer, Scaled) else layer.layer).trainable = False
    frozen = quiet(network, 2)
    assert len(frozen.trainable_variables) == len(network.trainable_variables)
    folded = rsnn.fold_batch_normalization(frozen, verbose=False)
    assert len(folded.trainable_variables) == len(network.trainable_variables)


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
    regularized = [
        each for each in model.network.layers if each.activity_regularizer is not None
    ]
    assert len(regularized) == 1
    assert isinstance(
        regularized[0], layers.Rescaling if calibrate is not None else Neuron
    )
    if calibrate is not None:
        assert loss(model) == pytest.approx(loss(network), rel=0.1)


def test_a_layer_with_the_name_of_new_neurons_is_an_error_that_names_it():
    inputs = keras.Input((6,))
    x = layers.Dense(3, name="a_neuron")(
        layers.Dense(4, activation="relu", name="a")(inputs)
    )
    with pytest.raises(
        ValueError, match=r"neurons after 'a'. Received: a layer 'a_neuron'. Rename"
    ):
        quiet(keras.Model(inputs, x))


def test_weights_names_frozen_layers_and_the_original_model_are_kept():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, name="frozen", trainable=False)(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = squeeze_excite(
        layers.PReLU(shared_axes=[1, 2], name="learned")(x),
        layers.Activation("sigmoid"),
    )
    network = keras.Model(
        inputs, layers.Dense(3, name="outputs")(layers.Flatten()(x)), name="network"
    )
    for weight in network.weights:
        weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    before = (
        [weight.path for weight in network.weights],
        to_numpy(network.get_weights()),
        to_numpy(network(np.ones((1, 8, 8, 2)))),
    )

    model = quiet(network)
    kept = [weight for weight in network.weights if "learned" not in weight.path]
    assert [weight.path for weight in model.network.weights] == [
        weight.path for weight in kept
    ]
    for new, old in zip(model.network.weights, kept, strict=True):
        np.testing.assert_array_equal(to_numpy(new.value), to_numpy(old.value))
        assert new is not old
    assert not model.network.get_layer("frozen").trainable
    assert model.network.name == "network"

    helpers.compiled(model).fit(np.ones((4, 8, 8, 2)), np.zeros(4), verbose=0)
    after = (
        [weight.path for weight in network.weights],
        to_numpy(network.get_weights()),
        to_numpy(network(np.ones((1, 8, 8, 2)))),
    )
    keras.tree.map_structure(np.testing.assert_array_equal, before[1:], after[1:])
    assert before[0] == after[0]


@pytest.mark.on_each_backend
def test_a_spikified_model_is_saved_and_loaded():
    model = quiet(functional(ops.relu), calibrate=X)
    loaded = saved_and_loaded(model)
    np.testing.assert_array_equal(
        loaded.predict(X, verbose=0), model.predict(X, verbose=0)
    )


@pytest.mark.on_each_backend
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_gradient_and_step_mode_are_passed_on(gradient, step_mode):
    model = quiet(
        functional(ops.relu),
        timesteps=2,
        gradient=gradient,
        step_mode=step_mode,
        calibrate=X,
    )
    assert (model.timesteps, model.step_mode) == (2, step_mode)
    assert type(model.gradient) is rsnn.gradients.BY_NAME[gradient]
    _, gradients = helpers.loss_and_gradients(model, X, Y, LOSS)
    assert all(
        np.isfinite(gradient).all() and gradient.any()
        for gradient in gradients.values()
    )


# The user's choice.
def test_neuron_may_be_a_class_a_partial_or_a_function_of_the_operation():
    network = functional(
        lambda x: layers.Dense(4, activation="gelu", name="second")(
            layers.ReLU(name="first")(x)
        )
    )
    assert {
        type(change.neuron)
        for change in quiet(network, neuron=LIF).spikify_report.replaced
    } == {LIF}
    halved = quiet(network, neuron=functools.partial(LIF, threshold=0.5))
    assert halved.network.get_layer("second_neuron").threshold == 0.5

    asked = []

    def choose(operation):
        asked.append(operation)
        return LIF(decay=0.5) if operation.name == "second" else None

    chosen = quiet(network, neuron=choose)
    assert asked == [network.get_layer("first"), network.get_layer("second")]
    assert isinstance(chosen.network.get_layer("first"), layers.ReLU)
    assert chosen.network.get_layer("second_neuron").decay == 0.5
    assert {change.name: change.reason for change in chosen.spikify_report.kept}[
        "first"
    ] == "left by `neuron`"


def test_the_report_lists_all_changes(capsys):
    model = spikify(
        functional(
            lambda x: layers.Dense(4, activation="gelu", name="second")(
                layers.ReLU(name="first")(x)
            )
        ),
        2,
    )
    assert capsys.readouterr().out == f"{model.spikify_report}\n"
    assert str(model.spikify_report).splitlines() == [
        "spikify: 2 of 3 activations became neurons.",
        "  relu -> IF: first",
        "  gelu -> IF: second",
        "  softmax stays (output): outputs",
        "  not calibrated: train the network, or pass calibrate=, a batch of inputs, "
        "if its weights are trained",
    ]


def test_the_report_says_where_negative_values_and_those_of_negative_inputs_are_lost():
    network = functional(
        lambda x: layers.PReLU(name="second")(
            layers.Dense(4, activation="tanh", name="first")(x)
        )
    )
    report = str(quiet(network, calibrate=X).spikify_report).splitlines()
    assert (
        "  negative values of tanh are lost, for which neurons do not spike: first"
        in report
    )
    assert (
        "  negative values of prelu are lost, for which neurons do not spike: second"
        in report
    )
    assert not any("not calibrated" in line for line in report)
    positive = functional(
        lambda x: layers.Dense(4, activation="softplus", name="second")(
            keras.activations.sigmoid(x)
        )
    )
    for line in str(quiet(positive).spikify_report).splitlines()[-3:-1]:
        assert re.fullmatch(
            "  values of (sigmoid|softplus) for inputs of 0 and less are lost: .+", line
        )
    assert "negative" not in str(quiet(functional(layers.ReLU())).spikify_report)


def test_the_report_says_by_what_a_relu_differs_and_what_its_neurons_do_not_do():
    def hidden(x):
        x = layers.Dense(4)(layers.ReLU(6.0, negative_slope=0.1, name="first")(x))
        x = keras.activations.relu(x, threshold=0.5)
        return layers.Dense(4, activation=layers.ReLU(max_value=2.0), name="third")(x)

    model = quiet(functional(hidden))
    described = [
        "relu(negative_slope=0.1, max_value=6)",
        "relu(threshold=0.5)",
        "relu(max_value=2)",
    ]
    assert [change.activation for change in model.spikify_report.replaced] == described
    lines = str(model.spikify_report).splitlines()
    assert (
        f"  negative values of {described[0]} are lost, for which neurons do not "
        "spike: first" in lines
    )
    assert any(
        line.startswith(
            "  neurons spike also below the threshold of relu(threshold=0.5): "
        )
        for line in lines
    )
    assert not any(described[2] in line for line in lines if "IF" not in line)


def test_the_report_names_what_is_not_linear_in_spikes():
    def hidden(x):
        x = layers.MaxPooling1D(1, name="of_inputs")(layers.Reshape((-1, 1))(x))
        x = layers.BatchNormalization()(
            layers.AveragePooling1D(2)(layers.ReLU()(layers.Conv1D(4, 1)(x)))
        )
        x = layers.LayerNormalization(name="normalized")(
            layers.MaxPooling1D(2, name="of_spikes")(2 * x[:, 1:])
        )
        x = layers.Multiply(name="product")(
            [x, layers.Dropout(0.5)(layers.Dense(4, activation="relu")(x))]
        )
        return layers.GlobalMaxPooling1D(name="of_means")(
            rsnn.layers.TimeMean()(layers.Flatten()(x))[:, None]
        )

    network = functional(hidden)
    line = (
        "  not linear in the spikes of a step, so that outputs differ more than by "
        "rounding: of_spikes, normalized, product"
    )
    assert line in str(quiet(network, 2, calibrate=X).spikify_report).splitlines()
    for timesteps, data in ((2, None), (1, X)):
        assert "not linear" not in str(
            quiet(network, timesteps, calibrate=data).spikify_report
        )


@pytest.mark.parametrize(("verbose", "bar"), [(1, "2/2"), (2, "2/2 - 0s"), (0, None)])
def test_a_calibration_shows_its_progress(capsys, verbose, bar):
    network = functional(lambda x: layers.ReLU()(layers.Dense(4)(layers.ReLU()(x))))
    shape = (16, *network.inputs[0].shape[1:])
    model = spikify(
        network,
        2,
        calibrate=np.random.default_rng(0).normal(size=shape),
        verbose=verbose,
    )
    out = capsys.readouterr().out
    if bar is None:
        assert out == ""
    else:
        assert bar in out
        assert out.endswith(f"{model.spikify_report}\n")


# What is wrong is said.
def test_nothing_to_replace_is_an_error():
    with pytest.raises(
        ValueError, match="must have a hidden activation that neurons can replace"
    ) as raised:
        quiet(functional(layers.Identity()))
    assert "softmax stays (output): outputs" in str(raised.value)
    with pytest.raises(ValueError, match="left by `neuron`"):
        quiet(functional(ops.relu), neuron=lambda operation: None)


def test_a_model_without_a_graph_is_an_error():
    class Subclassed(keras.Model):
        pass

    for model in (Subclassed(), layers.Dense(3), helpers.spiking(), None):
        with pytest.raises(
            TypeError, match="`model` must be a Functional or Sequential"
        ):
            quiet(model)
    with pytest.raises(ValueError, match="`model` must know its input shape"):
        quiet(keras.Sequential([layers.Dense(3, activation="relu")]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"neuron": "LIF"}, TypeError, "`neuron` must be a callable"),
        ({"neuron": LIF()}, TypeError, "`neuron` must be a callable"),
        (
            {"neuron": layers.ReLU},
            TypeError,
            "`neuron` must return a neuron layer or None",
        ),
        ({"percentile": 0}, ValueError, "`percentile` must be > 0 and <= 100"),
        ({"percentile": 101}, ValueError, "`percentile` must be > 0 and <= 100"),
        ({"percentile": "99"}, TypeError, "`percentile` must be a real number"),
        ({"timesteps": 0}, ValueError, "`timesteps` must be 1 or more"),
        ({"gradient": "rates"}, ValueError, "`gradient` must be one of"),
        ({"calibrate": np.ones(6)}, ValueError, "`calibrate` must be a batch"),
        ({"calibrate": np.ones((0, 6))}, ValueError, "`calibrate` must be a batch"),
        ({"calibrate": np.ones((2, 5))}, ValueError, "`calibrate` must be a batch"),
        ({"calibrate": np.ones((2, 4, 6))}, ValueError, "`calibrate` must be a batch"),
        (
            {"calibrate": [np.ones((2, 6)), np.ones((2, 6))]},
            ValueError,
            "`calibrate` must be a batch.* has 1 input,",
        ),
        (
            {"calibrate": {"wrong": np.ones((2, 6))}},
            ValueError,
            "`calibrate` must be a batch.* without",
        ),
        ({"calibrate": [[1.0] * 6]}, TypeError, "`calibrate` must be a batch.* float"),
        (
            {"calibrate": "data"},
            TypeError,
            "`calibrate` must be a batch.*'data' of type str",
        ),
        (
            {"calibrate": np.array([["a"] * 6])},
            TypeError,
            "`calibrate` must be a batch",
        ),
        (
            {"calibrate": np.array([[None] * 6])},
            TypeError,
            "`calibrate` must be a batch",
        ),
        (
            {"calibrate": np.ones((2, 6), "complex64")},
            TypeError,
            "`calibrate` must be a batch",
        ),
        (
            {"calibrate": keras.KerasTensor((None, 6))},
            TypeError,
            "`calibrate` must be a batch",
        ),
        (
            {"calibrate": np.full((2, 6), np.nan)},
            ValueError,
            "`calibrate` must give finite activations",
        ),
    ],
)
def test_a_wrong_argument_is_an_error(arguments, error, message):
    with pytest.raises(error, match=message):
        quiet(functional(ops.relu), **arguments)


def test_the_same_neuron_twice_is_an_error():
    neuron = LIF()
    with pytest.raises(ValueError, match="new neuron layer each time"):
        quiet(functional(lambda x: ops.relu(ops.relu(x) - 1.0)), neuron=lambda: neuron)


# Calibration.
@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    "activation", [layers.ReLU(), ops.relu], ids=["layer", "operation without masks"]
)
def test_a_network_that_masks_its_tokens_can_be_calibrated(activation):
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(7, 3, "random_normal", mask_zero=True)(inputs)
    x = activation(layers.Dense(4, bias_initializer="ones")(x))
    network = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    tokens = np.random.default_rng(0).integers(1, 7, (16, 8))
    tokens[:, 2:] = 0
    model = quiet(network, 64, calibrate=tokens, percentile=100.0)
    np.testing.assert_allclose(
        helpers.to_numpy(model(tokens)), helpers.to_numpy(network(tokens)), atol=0.02
    )


@pytest.mark.on_each_backend
@pytest.mark.parametrize("timesteps", [1, 2, 5, 8])
@pytest.mark.parametrize(("threshold", "initial_membrane"), [(1.0, 0.5), (0.25, 0.0)])
def test_calibrated_neurons_are_shifted_relu_rounded_to_levels_and_clipped(
    timesteps, threshold, initial_membrane
):
    inputs = keras.Input((64,))
    network = keras.Model(
        inputs,
        layers.Dense(64, kernel_initializer="identity")(
            layers.ReLU(name="relu")(inputs)
        ),
    )
    x = np.random.default_rng(0).normal(0.0, 3.0, (50, 64)).astype("float32")
    start = threshold * initial_membrane
    neuron = functools.partial(IF, threshold=threshold, initial_membrane=start)
    model = quiet(network, timesteps, neuron=neuron, calibrate=x, percentile=90)
    (change,) = model.spikify_report.replaced
    assert change.threshold == pytest.approx(np.percentile(x[x > 0], 90))
    level = change.threshold / timesteps
    charge = start + timesteps * model.network.get_layer("relu_current").offset
    position = np.clip(x / level + charge / threshold, 0, timesteps)
    away_from_ties = np.abs(position - np.round(position)) > 1e-3
    expected = np.floor(position) * level
    np.testing.assert_allclose(
        model.predict(x, verbose=0)[away_from_ties], expected[away_from_ties], rtol=1e-5
    )


@pytest.mark.on_each_backend
def test_activations_too_small_for_their_scale_in_half_precision_are_calibrated():
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((64,))
    small = layers.ReLU()(layers.Rescaling(2.0**-20)(inputs))
    outputs = layers.Dense(
        64, kernel_initializer=keras.initializers.Identity(2.0**20), dtype="float32"
    )(small)
    network = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(50, 64)).astype("float32")
    model = quiet(network, 32, calibrate=x, percentile=100.0)
    np.testing.assert_allclose(model.predict(x, verbose=0), np.maximum(x, 0), atol=0.15)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("timesteps", "initial_membrane"), [(1, 0.0), (1, 0.2), (3, 0.0)]
)
def test_calibrated_integer_neurons_are_relu_rounded_to_all_their_levels_and_clipped(
    timesteps, initial_membrane, normalize
):
    inputs = keras.Input((64,))
    network = keras.Model(
        inputs,
        layers.Dense(64, kernel_initializer="identity")(
            layers.ReLU(name="relu")(inputs)
        ),
    )
    x = np.random.default_rng(0).normal(0.0, 3.0, (50, 64)).astype("float32")
    neuron = functools.partial(
        ILIF,
        4,
        1.0,
        threshold=0.5,
        normalize=normalize,
        initial_membrane=initial_membrane,
    )
    model = quiet(network, timesteps, neuron=neuron, calibrate=x, percentile=90)
    (change,) = model.spikify_report.replaced
    level = change.threshold / (4 * timesteps)
    charge = (
        initial_membrane + timesteps * model.network.get_layer("relu_current").offset
    )
    position = np.clip(x / level + charge / 0.5, 0, 4 * timesteps)
    away_from_ties = np.abs(position % 1 - 0.5) > 1e-3
    expected = np.round(position) * level
    np.testing.assert_allclose(
        model.predict(x, verbose=0)[away_from_ties], expected[away_from_ties], rtol=1e-5
    )
    # As `mean_shifts` finds it: the mean of relu, by a current that clipping takes
    # away.
    assert expected.mean() == pytest.approx(np.maximum(x, 0).mean(), rel=0.02)


@pytest.mark.parametrize(
    "neuron",
    [None, IF, functools.partial(LIF, decay=0.8), functools.partial(ILIF, 4, 1.0)],
)
def test_the_mean_output_of_calibrated_neurons_is_that_of_the_activations_in_each_layer(
    neuron,
):
    inputs = keras.Input((8, 8, 1))
    x = inputs
    for name in ("first", "second", "third"):
        x = layers.ReLU(name=name)(
            layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
        )
    network = keras.Model(inputs, layers.Conv2D(1, 1)(x))
    images = np.random.default_rng(0).normal(size=(160, 8, 8, 1)).astype("float32")
    model = quiet(network, 4, neuron=neuron, calibrate=images, percentile=95)
    names = ("first", "second", "third")
    ordinary = keras.Model(
        inputs, [network.get_layer(name).output for name in names]
    ).predict(images[:40], verbose=0)
    spiking = keras.Model(
        model.network.inputs,
        [model.network.get_layer(f"{name}_output").output for name in names],
    )
    outputs = rsnn.SpikingModel(spiking, 4).predict(images[:40], verbose=0)
    for wanted, found in zip(ordinary, outputs, strict=True):
        assert found.mean() == pytest.approx(np.maximum(wanted, 0).mean(), rel=0.1)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_inputs_by_unsorted_names_are_calibrated_as_any(step_mode):
    def shifts(names):
        keras.utils.set_random_seed(0)
        parts = {name: keras.Input((4,), name=name) for name in names}
        x = layers.Dense(8, activation="relu", name="hidden")(
            layers.Concatenate()([parts["image"], parts["text"]])
        )
        network = keras.Model(parts, layers.Dense(2)(x))
        random = np.random.default_rng(0)
        values = {
            name: random.random((64, 4), dtype="float32") for name in ("image", "text")
        }
        model = quiet(network, 4, calibrate=values, step_mode=step_mode)
        return model.network.get_layer("hidden_neuron_current").offset

    found = shifts(("text", "image"))
    assert found == pytest.approx(shifts(("image", "text")), rel=1e-5)
    assert found != 0.0


def test_a_network_of_single_step_order_alone_is_calibrated_without_shifts():
    inputs = keras.Input((4, 6))
    folded = ops.reshape(layers.ReLU(name="first")(layers.Dense(5)(inputs)), (-1, 5))
    x = ops.reshape(layers.ReLU(name="second")(layers.Dense(5)(folded)), (-1, 4, 5))
    network = keras.Model(inputs, layers.Dense(2)(x))
    images = np.random.default_rng(0).random((16, 4, 6), dtype="float32")
    model = quiet(network, 2, step_mode="single", neuron=IF, calibrate=images)
    assert [
        model.network.get_layer(f"{name}_current").offset
        for name in ("first", "second")
    ] == [1 / 4, 1 / 4]
    assert model.predict(images, verbose=0).shape == (16, 4, 2)
    with pytest.raises(ValueError, match='set step_mode="single"'):
        quiet(network, 2, calibrate=images)


def test_neurons_that_are_called_twice_are_calibrated_without_a_shift():
    relu = layers.ReLU(name="relu")
    inputs = keras.Input((6,))
    network = keras.Model(inputs, layers.Dense(3)(relu(layers.Dense(6)(relu(inputs)))))
    for initial_membrane, offset in ((0.0, 1 / 8), (0.25, 1 / 16), (0.5, 0.0)):
        model = quiet(
            network,
            4,
            neuron=lambda start=initial_membrane: IF(initial_membrane=start),
            calibrate=X,
        )
        assert model.network.get_layer("relu_current").offset == offset


def test_calibration_converges_to_the_network_with_the_levels_of_one_step():
    inputs = keras.Input((6,))
    hidden = layers.Dense(16, activation="relu")(
        layers.Dense(8, activation="relu")(inputs)
    )
    network = keras.Model(inputs, layers.Dense(3)(hidden))
    exact, errors = network.predict(X, verbose=0), []
    for levels in (2, 8, 32):
        model = quiet(
            network,
            1,
            neuron=functools.partial(ILIF, levels),
            calibrate=X,
            percentile=100,
        )
        errors.append(np.abs(model.predict(X, verbose=0) - exact).max())
        np.testing.assert_allclose(
            rsnn.unroll(model).predict(X, verbose=0),
            model.predict(X, verbose=0),
            atol=1e-5,
        )
    assert errors[-1] < errors[0] / 8
    assert sorted(errors, reverse=True) == errors


@pytest.mark.parametrize(("neuron", "better"), [(IF, 8), (None, 6)])
def test_calibration_converges_to_the_network_with_time(neuron, better):
    inputs = keras.Input((6,))
    hidden = layers.Dense(16, activation="relu")(
        layers.Dense(8, activation="relu")(inputs)
    )
    network = keras.Model(inputs, layers.Dense(3)(hidden))
    exact = network.predict(X, verbose=0)
    errors = []
    for timesteps in (2, 8, 32):
        model = quiet(network, timesteps, neuron=neuron, calibrate=X, percentile=100)
        errors.append(np.abs(model.predict(X, verbose=0) - exact).max())
    assert errors[-1] < errors[0] / better
    assert sorted(errors, reverse=True) == errors


def test_inactive_activations_are_not_calibrated_and_are_reported():
    network = functional(lambda x: layers.ReLU(name="alive")(x + ops.relu(x - 100.0)))
    report = quiet(network, calibrate=X).spikify_report
    assert [change.threshold is None for change in report.replaced] == [True, False]
    assert f"never positive: {report.replaced[0].name}" in str(report)


# Networks of keras.applications.
def paths(network):
    """The paths of its weights; Keras numbers those that a layer leaves without a name,
    as LayerScale does."""
    return [re.sub(r"/variable(_\d+)?$", "", weight.path) for weight in network.weights]


def check_gradients(network, x, classes=10, **kwargs):
    """Finite, non-zero gradients in every kernel that the network trains; and its
    weights, all of them, unchanged."""
    model = quiet(network, timesteps=2, **kwargs)
    assert paths(model.network) == paths(network)
    loss, gradients = helpers.loss_and_gradients(
        model, x, np.arange(len(x)) % classes, LOSS
    )
    assert np.isfinite(loss)
    kernels = {
        weight.path for weight in network.trainable_weights if len(weight.shape) > 1
    }
    assert kernels
    assert kernels <= set(gradients)
    assert [path for path in kernels if not np.isfinite(gradients[path]).all()] == []
    assert [path for path in kernels if not gradients[path].any()] == []
    return model


def images(samples=4):
    return (
        np.random.default_rng(0).uniform(0, 255, (samples, 32, 32, 3)).astype("float32")
    )


def settled(network, x):
    """The network as after training: moving statistics are those of its data, without
    random drops."""
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
        elif isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    network(x, training=True)
    return network


def application(name, **kwargs):
    return getattr(keras.applications, name)(
        weights=None, classes=10, input_shape=(32, 32, 3), **kwargs
    )


@pytest.mark.on_each_backend
def test_inverted_bottlenecks_train_every_kernel():
    """Two blocks of a MobileNetV2, the second with a skip connection."""
    inputs, x = helpers.inverted_bottlenecks()
    outputs = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = check_gradients(
        keras.Model(inputs, outputs), images()[:, :8, :8] / 127.5 - 1.0
    )
    assert len(model.spikify_report.replaced) == 4


def gates_of(model):
    return {
        change.name for change in model.spikify_report.kept if change.reason == "gate"
    }


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    ("name", "arguments", "replaced", "gates"),
    [
        pytest.param("MobileNet", {"alpha": 0.25}, 27, 0, marks=pytest.mark.slow),
        pytest.param(
            *(
                "MobileNetV3Small",
                {"alpha": 0.25, "include_preprocessing": False},
                33,
                9,
            ),
            # XLA compiles it for a minute and a half.
            marks=[pytest.mark.slow] if BACKEND == "jax" else [],
        ),
    ],
)
def test_small_applications_convert_and_train_and_their_gates_are_named(
    name, arguments, replaced, gates
):
    model = quiet(application(name, **arguments), timesteps=2)
    assert len(model.spikify_report.replaced) == replaced
    assert len(gates_of(model)) == gates
    model.compile("sgd", LOSS, run_eagerly=True)
    assert np.isfinite(model.train_on_batch(images()[:2] / 127.5 - 1.0, np.arange(2)))


FAMILIES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
"""The families of keras.applications that run on PyTorch, and the size of their
images."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), FAMILIES.items())
def test_every_family_of_applications_converts_and_trains(name, size):
    network = getattr(keras.applications, name)(
        weights=None, classes=10, input_shape=(size, size, 3)
    )
    model = quiet(network, timesteps=2)
    assert {change.reason for change in model.spikify_report.kept} <= {"gate", "output"}
    model.compile("sgd", LOSS, run_eagerly=True)
    x = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3)).astype("float32")
    assert np.isfinite(model.train_on_batch(x, np.arange(2)))


@pytest.mark.slow
def test_mobilenet_trains_every_kernel():
    model = check_gradients(
        application("MobileNetV2", alpha=0.35), images() / 127.5 - 1.0
    )
    assert len(model.spikify_report.replaced) == 35


@pytest.mark.on_each_backend
def test_transformer_block_trains_every_kernel():
    inputs = keras.Input((6, 8))
    x = layers.Dense(16, activation="relu")(inputs)
    normalized = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 8)(normalized, normalized)
    hidden = layers.Dense(32, activation="gelu", name="mlp")(
        layers.LayerNormalization()(x)
    )
    x = layers.GlobalAveragePooling1D()(x + layers.Dense(16)(hidden))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    x = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")
    for arguments in ({}, {"calibrate": x}):
        model = check_gradients(network, x, classes=3, **arguments)
        assert isinstance(model.network.get_layer("mlp_neuron"), Neuron)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale", "replaced"),
    [("ResNet50", 127.5, 49), ("DenseNet121", 127.5, 121), ("ConvNeXtTiny", 1.0, 18)],
)
def test_large_networks_train_every_kernel_from_scratch(name, scale, replaced):
    model = check_gradients(application(name), images() / scale)
    assert len(model.spikify_report.replaced) == replaced


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "scale", "replaced"),
    [
        ("ResNet50", 127.5, 49),
        ("VGG16", 127.5, 15),
        ("EfficientNetB0", 1.0, 49),
        ("DenseNet121", 127.5, 121),
        ("ConvNeXtTiny", 1.0, 18),
        ("MobileNetV3Small", 1.0, 33),
    ],
)
def test_large_networks_train_every_kernel_after_calibration(name, scale, replaced):
    x = images() / scale
    model = check_gradients(settled(application(name), x), x, calibrate=x)
    assert len(model.spikify_report.replaced) == replaced


# A trained network.
@pytest.mark.slow
def test_trained_digits_keep_their_accuracy_after_conversion_and_fine_tuning():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32") / 16.0
    train, test = slice(0, 1400), slice(1400, None)

    inputs = keras.Input((8, 8, 1))
    features = inputs
    for filters in (16, 32):
        features = layers.Conv2D(filters, 3, padding="same", use_bias=False)(features)
        features = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(features))
        features = layers.AveragePooling2D(2)(features)
    features = layers.Dense(64, activation="relu")(layers.Flatten()(features))
    network = keras.Model(inputs, layers.Dense(10)(features))

    def accuracy(model, epochs=0):
        helpers.compiled(
            model,
            keras.optimizers.Adam(1e-3 if model is network else 3e-4),
            metrics=["accuracy"],
        )
        if epochs:
            model.fit(x[train], y[train], batch_size=64, epochs=epochs, verbose=0)
        return model.evaluate(x[test], y[test], batch_size=512, verbose=0)[1]

    before = accuracy(network, epochs=30)
    print(f"\nnetwork {before:.4f}")
    for timesteps, floor in ((2, 0.6), (4, 0.85), (8, 0.9)):
        model = quiet(network, timesteps, calibrate=x[:500])
        converted, tuned = accuracy(model), accuracy(model, epochs=5)
        print(f"T={timesteps}: converted {converted:.4f}, after 5 epochs {tuned:.4f}")
        assert converted > floor
        assert tuned > before - 0.03

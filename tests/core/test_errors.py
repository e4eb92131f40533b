"""Errors are raised early, with the right type, and name the argument, the value, and
what to do."""

import functools
import math
import resource
import warnings

import helpers
import keras
import numpy as np
import pytest
from helpers import compiled, mlp, only_on, rate_and_bptt, saved_and_loaded, spiking
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis, callbacks, deploy, events, metrics, surrogates
from keras_ratesnn._model.weight_checks import check_finite
from keras_ratesnn.layers import (
    IF,
    ILIF,
    LIF,
    Delay,
    Encoder,
    ILIFCell,
    LayerKind,
    LeakyReadout,
    LIFCell,
    Neuron,
    NeuronCell,
    OnlineRenormalization,
    ParametricLIF,
    TimeMean,
    TimeMixing,
    neurons,
)

ZEROS, LABELS = np.zeros((10, 6), "float32"), np.zeros(10, "int64")


def assert_refused(use, error, *fragments):
    """The message of the error."""
    with pytest.raises(error) as raised:
        use()
    message = str(raised.value)
    missing = [fragment for fragment in fragments if fragment not in message]
    assert missing == [], message
    return message


@pytest.mark.parametrize("value", [0, 4.0, True])
def test_timesteps_are_a_positive_integer(value):
    model = spiking()
    is_number = type(value) is int
    error = ValueError if is_number else TypeError
    rule = "1 or more" if is_number else "an integer"
    fragments = ["`timesteps` must be ", f"timesteps={value!r}", rule]
    assert_refused(lambda: spiking(timesteps=value), error, *fragments)
    assert_refused(lambda: setattr(model, "timesteps", value), error, *fragments)
    assert model.timesteps == 3
    assert type(spiking(timesteps=np.int64(4)).timesteps) is int


@only_on("tensorflow", "only TensorFlow makes errors of traced code again")
def test_wrong_shapes_are_value_errors_in_a_function_of_tensorflow_too():
    import tensorflow as tf

    call = tf.function(spiking().__call__)
    x = np.ones((4, 5, 6), "float32")
    assert_refused(
        lambda: call(x), ValueError, "one frame for each of timesteps=3", "(4, 5, 6)"
    )


def test_a_setting_that_is_refused_stays():
    model = spiking()
    for name in ("gradient", "step_mode"):
        before = getattr(model, name)
        message = f"`{name}` must be one of"
        assert_refused(
            functools.partial(setattr, model, name, "x"), ValueError, message
        )
        assert getattr(model, name) is before


@pytest.mark.parametrize("make", [LIF, LIFCell])
def test_a_reset_value_that_a_soft_reset_would_ignore_is_refused_or_dropped(make):
    """It is dropped from an old config."""
    message = '`v_reset` must be 0.0 with reset="soft"'
    assert_refused(lambda: make(v_reset=-0.5), ValueError, message, 'reset="hard"')
    hard = make(reset="hard", v_reset=-0.5)
    assert make.from_config(hard.get_config()).v_reset == -0.5
    soft = make.from_config({**hard.get_config(), "reset": "soft"})
    assert (soft.reset, soft.v_reset) == ("soft", 0.0)


OTHER_NAMES = [
    (
        LIF,
        "tau",
        2.0,
        "here decay=0.5. If the input is scaled by 1/τ, too, as in SpikingJelly unless "
        "decay_input=False",
    ),
    (LIF, "tau_mem", 10.0, "here decay=0.9"),
    (LIF, "init_tau", 2, "ParametricLIF(decay=...)"),
    (ILIF, "beta", 0.9, "decay=0.9"),
    (LIF, "alpha", 2.0, "surrogates.ATan(alpha=2.0)"),
    (LIF, "v_threshold", 1.0, "threshold=1.0"),
    (LIF, "reset_mechanism", "subtract", 'reset="soft"'),
    (LIF, "backend", "cupy", "KERAS_BACKEND"),
    (LIF, "num_steps", 4, "SpikingModel(network, timesteps=4)"),
    (LIF, "return_membrane", True, "analysis.observed(model, membranes=[name])"),
    (LIF, "init_hidden", True, "Leave the argument out"),
    (LIF, "units", 32, "keras.layers.Dense(32)"),
    (spiking, "T", 4, "timesteps=4"),
    (spiking, "return_membrane", True, "analysis.observed"),
    (spiking, "method", "bptt", 'gradient="rate"'),
    (spiking, "stepmode", "single", 'step_mode="multi"'),
]


@pytest.mark.parametrize(("make", "name", "value", "advice"), OTHER_NAMES)
def test_names_of_other_libraries_are_translated(make, name, value, advice):
    """As an argument, and as an attribute."""
    owner = "SpikingModel" if make is spiking else make.__name__
    use = functools.partial(make, **{name: value})
    received = f"{name}={value!r}"
    message = assert_refused(use, TypeError, received, advice)
    assert message.startswith(f"{owner} has no argument `{name}`")
    use = functools.partial(setattr, make(), name, value)
    message = assert_refused(use, AttributeError, received, advice)
    assert message.startswith(f"{owner} has no attribute `{name}`")


def test_layers_and_models_may_have_attributes_of_their_own():
    class Own(LIF):
        def __init__(self, tau):
            super().__init__(decay=1 - 1 / tau)
            self.tau = tau

    class OwnModel(rsnn.SpikingModel):
        def __init__(self, network, method):
            super().__init__(network, 3, method)
            self.method = self.notes = method

    assert Own(2.0).tau == 2.0
    model = OwnModel(mlp(), "bptt")
    assert model.method == model.notes == "bptt"


FIXED = {
    "decay": 0.5,
    "threshold": 0.5,
    "reset": "hard",
    "surrogate": "atan",
    "learn_threshold": True,
}


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (LIF, FIXED),
        (ParametricLIF, {"decay": 0.25, "per_channel": True, "axis": 1}),
    ],
)
def test_arguments_of_a_built_neuron_are_fixed(kind, arguments):
    neuron = kind()
    neuron(ZEROS)
    for argument, value in arguments.items():
        before = getattr(neuron, argument)
        for owner in (neuron, neuron.cell):
            use = functools.partial(setattr, owner, argument, value)
            named = f"`{argument}` of", f"{argument}={value!r}", repr(owner.name)
            assert_refused(use, AttributeError, *named, "is fixed", "new layer")
        assert getattr(neuron, argument) == before


def test_arguments_of_a_custom_cell_are_fixed_but_its_own_attributes_are_not():
    class Mine(NeuronCell):
        def step(self, inputs, state):
            return inputs, self.fire(inputs), state

    cell = Mine()
    cell.threshold, cell.gain = cell.threshold, 1.0
    Neuron(cell)(ZEROS)
    cell.gain, cell.trainable = 2.0, False
    for argument, value in (("threshold", 0.5), ("surrogate", "atan")):
        use = functools.partial(setattr, cell, argument, value)
        assert_refused(use, AttributeError, f"`{argument}` of Mine")


# What is refused by one message each.
class Doubling(rsnn.SpikingModel):
    def call(self, inputs, training=None, mask=None):
        return super().call(2 * inputs, training, mask)


def doubling():
    return Doubling(mlp(), 3)


OWN_CALL = [
    ValueError,
    "`model` must not have a `call` of its own",
    "of the class Doubling",
    "into layers of the network",
]

CELL_AS_LAYER = [
    ValueError,
    "cannot be a layer of a network",
    "LIFCell 'mine'",
    "keras_ratesnn.layers.LIF()",
    "Neuron(LIFCell())",
]

NO_NETWORK = [
    TypeError,
    "`network` must be a Functional or Sequential",
    "keras.Model(inputs, outputs)",
    "keras.Sequential([keras.Input",
]

UNKNOWN_GRADIENT = ["`gradient` must be one of", "'rate'", "'bptt'"]


def renormalized():
    norm = layers.BatchNormalization(renorm=True, name="norm")
    return helpers.chain(LIF(), norm, LIF())


UNWRITTEN = [NotImplementedError]

UNKNOWN_RESET = [ValueError, "`reset` must be one of 'soft', 'hard'"]


def functional(make):
    inputs = keras.Input((6,))
    return keras.Model(inputs, make()(inputs), name="mine")


def with_optional_input():
    left = keras.Input((6,), name="left")
    extra = keras.Input((6,), name="extra", optional=True)
    outputs = LIF()(layers.Dense(3)(left))
    network = keras.Model({"left": left, "extra": extra}, outputs)
    spiking(network)({"left": ZEROS, "extra": None})


class OwnStep(LIFCell):
    def step(self, inputs, state):
        return super().step(inputs, 0.5 * state)


def image_without_channels():
    network = helpers.chain(layers.Conv2D(2, 3), LIF(), shape=(4, 4, 1))
    spiking(network)(np.zeros((10, 4, 4), "float32"))


REFUSED = [
    (
        lambda: spiking(gradient="rate-2"),
        ValueError,
        *UNKNOWN_GRADIENT,
        "gradient='rate-2'",
        "GradientMethod",
        "Use keras_ratesnn.gradients.Rate(windows=2)",
    ),
    (lambda: spiking(gradient="stbp"), ValueError, *UNKNOWN_GRADIENT, "Use 'bptt'."),
    (lambda: spiking(gradient="rates"), ValueError, *UNKNOWN_GRADIENT, "Use 'rate'."),
    (lambda: LIF(surrogate="arctan"), ValueError, "Use 'atan'."),
    (lambda: LIF(surrogate="Fast-Sigmoid"), ValueError, "Use 'fast_sigmoid'."),
    (
        lambda: rsnn.SpikingModel(mlp()),
        TypeError,
        "needs `timesteps`",
        "For still images start with 4",
    ),
    (
        lambda: spiking(mask_value=0.0)(ZEROS),
        ValueError,
        "`mask_value`",
        "data without time, of shape (10, 6)",
        "model.mask_value = None",
    ),
    (lambda: LIF()([[0.5, 1.0]]), TypeError, "[[0.5, 1.0]]", "np.asarray"),
    (
        lambda: spiking(gradient=rsnn.gradients.BPTT),
        TypeError,
        *UNKNOWN_GRADIENT,
        "add the parentheses",
    ),
    (
        lambda: setattr(spiking(), "network", mlp()),
        AttributeError,
        "`network` of a SpikingModel cannot be replaced. Received: network=<",
        "SpikingModel(network, timesteps)",
    ),
    (
        lambda: compiled(spiking(renormalized())).fit(ZEROS, LABELS, verbose=0),
        ValueError,
        "'norm'",
        "renorm=True",
        "renorm=False",
    ),
    # What runs a network by itself.
    (lambda: doubling().step(ZEROS), *OWN_CALL),
    (lambda: analysis.firing_rates(doubling(), ZEROS), *OWN_CALL),
    (
        lambda: deploy.predict_until_sure(doubling(), ZEROS, confidence=0.9),
        *OWN_CALL,
    ),
    # Neurons.
    (
        lambda: LIF(threshold_stabilizer=True, reset_delay=True),
        ValueError,
        "`threshold_stabilizer=True`",
        "Received: reset_delay=True, too",
    ),
    (
        lambda: IF(threshold_stabilizer=True),
        TypeError,
        "LIF(threshold_stabilizer=True)",
    ),
    (
        lambda: LIF(threshold=0.5, reset="hard", v_reset=0.5),
        ValueError,
        "`v_reset` must be < 0.5. Received: v_reset=0.5",
    ),
    (lambda: LIF(v_reset=None), TypeError, 'reset="soft"'),
    (
        lambda: LIF(surrogate=surrogates.ATan),
        TypeError,
        "one of 'sigmoid'",
        "add the parentheses",
    ),
    (
        lambda: spiking(functional(lambda: Neuron(OwnStep())), gradient="ottt"),
        ValueError,
        "must know the decay factor of the spike trace",
        "cell OwnStep",
        "Define `trace_decay()`",
    ),
    (lambda: LIF(reset="zero"), *UNKNOWN_RESET, "reset='zero'", "hard"),
    (lambda: LIF(reset="subtract"), *UNKNOWN_RESET, "reset='subtract'", "soft"),
    (lambda: LIF(reset="none"), *UNKNOWN_RESET, "reset='none'", "LeakyReadout"),
    (lambda: LIF(tau=0), TypeError, "decay = 1 − 1/τ.", "tau=0"),
    (
        lambda: keras.Sequential([keras.Input((6,)), LIFCell(name="mine")]),
        *CELL_AS_LAYER,
    ),
    (lambda: keras.Sequential([LIFCell(name="mine")])(ZEROS), *CELL_AS_LAYER),
    (
        lambda: Neuron(layers.LSTMCell(3)),
        TypeError,
        "`cell` must be a NeuronCell",
        "LSTMCell",
        "LIFCell()",
    ),
    (
        lambda: setattr(LeakyReadout(), "beta", 0.9),
        AttributeError,
        "LeakyReadout has no attribute `beta`",
        "decay=0.9",
    ),
    # Networks.
    (lambda: spiking(Subclassed()), *NO_NETWORK, "Subclassed"),
    (lambda: spiking(LIF()), *NO_NETWORK, "LIF"),
    (
        lambda: spiking(keras.Sequential([layers.Dense(3), LIF()], name="mine")),
        ValueError,
        "`network` must know its input shape",
        "mine",
        "keras.Input(shape)",
    ),
    (
        lambda: spiking(functional(lambda: layers.Dense(3))),
        ValueError,
        "must contain a neuron layer",
        "'mine'",
        "keras_ratesnn.layers.LIF() after its layers",
    ),
    (
        lambda: rsnn.layers.affine(layers.Dense(3)),
        TypeError,
        "`layer_class` must be a subclass of keras.layers.Layer",
    ),
    # Inputs.
    (
        image_without_channels,
        ValueError,
        "must have shape",
        "(batch, 4, 4, 1)",
        "(batch, 3, 4, 4, 1)",
        "(10, 4, 4)",
    ),
    (
        with_optional_input,
        ValueError,
        "Input 'extra' of the network must be a tensor or an array. Received: None",
    ),
    (
        lambda: spiking(two_inputs(nested_dict))([{"left": ZEROS}, {"wright": ZEROS}]),
        ValueError,
        "The network's inputs are named",
        "['right']",
        "'wright'",
    ),
    (
        lambda: rsnn.describe(spiking(two_inputs()), [ZEROS, ZEROS[:9]]),
        ValueError,
        "the same number in all arrays. Received: 10 samples, 9 samples",
    ),
    (
        lambda: spiking(two_inputs())([ZEROS, ZEROS], mask=np.ones((10, 3))),
        ValueError,
        "A single `mask` for several inputs masks time steps",
    ),
    # What a subclass must have.
    (lambda: NeuronCell().over_time(ZEROS), *UNWRITTEN, "all time steps"),
    (lambda: Encoder().encode(ZEROS, 0, 3), *UNWRITTEN, "encode(inputs"),
    (lambda: TimeMixing().step(ZEROS, ()), *UNWRITTEN, "`step(inputs"),
    (lambda: rsnn.gradients.GradientMethod().call(None), *UNWRITTEN, "`call(run)`"),
    (lambda: surrogates.Surrogate().derivative(0.0), *UNWRITTEN, "derivative"),
    # Arguments of functions.
    (
        lambda: spiking().load_weights("weights.txt"),
        ValueError,
        "File format not supported: filepath=weights.txt",
    ),
    (
        lambda: ILIFCell().fire(ZEROS, 0.5),
        ValueError,
        "`threshold` must be None",
        "threshold=0.5",
    ),
    (
        lambda: events.write_aedat("recording.aedat", None),
        TypeError,
        "`events` must be an Events. Received: events=None",
        "read_aedat",
    ),
    (
        lambda: rsnn.describe(spiking(), 10**5000, verbose=False),
        ValueError,
        "must be arrays or tensors. Received: an integer of",
    ),
    (
        lambda: metrics.AnytimeAccuracy(2).update_state(None, OUTPUTS),
        TypeError,
        "`y_true` must be a tensor or an array of numbers. Received: y_true=None",
    ),
    (
        lambda: metrics.HeadAccuracy(2).update_state(LABELS, OUTPUTS),
        ValueError,
        "have the head=2. Received: shape (10, 2, 3)",
    ),
]


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_has_one_message_that_says_what_to_do(case):
    use, error, *fragments = case
    assert_refused(use, error, *fragments)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Leaky", "LIF(decay=beta, reset_delay=True)"),
        (
            "RLeaky",
            "Recurrent(LIF(decay=beta, reset_delay=True), keras.layers.Dense(units))",
        ),
        ("LIFNode", 'reset="hard"'),
        ("lif", "Use LIF, of keras_ratesnn.layers."),
        ("Unknown", "has no attribute 'Unknown'."),
    ],
)
def test_neurons_of_other_libraries_are_translated(name, ours):
    for module in (rsnn, rsnn.layers):
        start = f"module '{module.__name__}' has no attribute '{name}'"
        use = functools.partial(getattr, module, name)
        assert_refused(use, AttributeError, start, ours)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((2, 6, 4, 5), "x = np.moveaxis(x, 1, -1)"),
        ((2, 3, 6, 4, 5), "x = np.moveaxis(x, 2, -1)"),
        ((3, 2, 4, 5, 6), "x = np.moveaxis(x, 0, 1)"),
        ((2, 7, 4, 5, 6), "model.timesteps = 7"),
    ],
)
def test_data_with_other_axes_are_an_error_whose_advice_makes_them_fit(shape, advice):
    network = helpers.chain(LIF(), layers.Dense(3), shape=(4, 5, 6))
    model = spiking(network)
    told = {"model": model, "np": np, "x": np.zeros(shape, "float32")}
    said = advice.removeprefix("x = ") + "."
    assert_refused(lambda: model(told["x"]), ValueError, f"{shape}", said)
    exec(advice, told)
    assert model(told["x"]).shape == (2, 4, 5, 3)


# Networks.
class Subclassed(keras.Model):
    """A model with an unknown graph."""

    def __init__(self):
        super().__init__()
        self.lif = LIF(name="inner")

    def call(self, inputs):
        return self.lif(inputs)


class Block(layers.Layer):
    """A custom layer that holds a neuron in some way."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        return inputs


def inner():
    return LIF(name="inner")


def nested(layer):
    return helpers.chain(layer, shape=(5, 4))


HIDING = {
    "attribute": lambda: Block(inner()),
    "cell": lambda: Block(inner().cell),
    "time mixing": lambda: Block(Delay(3, name="inner")),
    "time mean": lambda: Block(TimeMean(name="inner")),
    "subclassed model": Subclassed,
    "TimeDistributed": lambda: layers.TimeDistributed(inner()),
    "custom layer in a nested model": lambda: nested(Block(inner())),
    "another SpikingModel": lambda: spiking(nested(inner()), name="outer"),
}


def test_an_input_is_found_by_the_name_of_its_layer_and_of_its_tensor():
    model = spiking()
    expected = model.predict(ZEROS, verbose=0)
    names = {model.network.layers[0].name, model.network.inputs[0].name}
    assert len(names) == 2
    for name in names:
        outputs = model.predict({name: ZEROS}, verbose=0)
        assert_array_equal(outputs, expected)


@pytest.mark.parametrize("name", HIDING)
def test_a_hidden_neuron_is_found_and_named(name):
    inputs = keras.Input((5, 4))
    network = keras.Model(inputs, LIF()(HIDING[name]()(inputs)))
    assert_refused(
        lambda: spiking(network),
        ValueError,
        "must not hide neurons or time means inside other layers",
        "could not be run over time",
        "not Dense(10, activation=LIF())",
        "Functional or Sequential",
        "'cell'" if name == "cell" else "'inner'",
    )


# Inputs.
USES = {
    "call": lambda model, x, y: model(x),
    "predict": lambda model, x, y: model.predict(x, verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
}

WRONG_SHAPES = [(10, 5), (10, 4, 6), (10, 3, 6, 1)]


@pytest.mark.parametrize("use", USES)
def test_an_input_that_does_not_fit_gets_both_shapes_that_would_and_nothing_else(use):
    """Afterwards the model still works."""
    model = compiled(spiking(), metrics=["accuracy"])
    expected = model.predict(ZEROS, verbose=0)
    fragments = "(batch, 6)", "(batch, 3, 6)", "one frame for each of timesteps=3"
    for shape in WRONG_SHAPES if use == "predict" else WRONG_SHAPES[:1]:
        x = np.zeros(shape, "float32")
        wrong = functools.partial(USES[use], model, x, LABELS)
        message = assert_refused(wrong, ValueError, *fragments)
        assert message.startswith("Input ")
        advice = message.partition(f"{', '.join(map(str, shape[1:]))}).")[2]
        steps = f" Has it {shape[1]} time steps? Set model.timesteps = {shape[1]}."
        assert advice == (steps if shape[2:] == (6,) else "")
    if use in ("fit", "evaluate"):
        # They cannot be checked in advance.
        batches = helpers.Batches(ZEROS[:, :5], LABELS)
        wrong = functools.partial(getattr(model, use), batches, verbose=0)
        assert_refused(wrong, ValueError, *fragments)
    assert_array_equal(model.predict(ZEROS, verbose=0), expected)


NAMELESS = {
    "Input 'input_layer": lambda model: USES["predict"](model, ZEROS[:, :5], None),
    "The inputs of the network, ['input_layer": lambda model: rsnn.describe(model, 5),
    "The network has 1 input, named ['input_layer": lambda model: model([ZEROS, ZEROS]),
    "The network's inputs are named ['input_layer": lambda model: model({"x": ZEROS}),
}


def test_an_input_without_a_name_is_called_by_its_layer():
    for model in (spiking(), rsnn.spikify(plain(), 3, verbose=0)):
        for start, use in NAMELESS.items():
            message = assert_refused(functools.partial(use, model), ValueError)
            assert message.startswith(start)
            assert "keras_tensor" not in message


@only_on("tensorflow", "tf.data")
def test_the_error_for_a_data_set_of_unknown_rank_says_to_set_its_shape():
    import tensorflow as tf

    signature = tf.TensorSpec(None, "float32"), tf.TensorSpec((None,), "int64")
    data = tf.data.Dataset.from_generator(
        lambda: iter([(ZEROS, LABELS)]), output_signature=signature
    )
    assert_refused(
        lambda: compiled(spiking()).evaluate(data, verbose=0),
        ValueError,
        "unknown rank",
        "tf.ensure_shape(x, (None, 6))",
        "(None, 3, 6)",
    )


@pytest.mark.parametrize("use", ["fit", "evaluate"])
def test_errors_of_a_custom_cell_are_raised_while_keras_builds_metrics(use):
    class Unfinished(NeuronCell):
        """A cell without a step."""

    model = spiking(functional(lambda: Neuron(Unfinished())), gradient="bptt")
    model = compiled(model, metrics=["accuracy"])
    with pytest.raises(NotImplementedError, match="Unfinished must implement `step"):
        USES[use](model, ZEROS, LABELS)


def two_inputs(structure=list):
    inputs = [keras.Input((6,), name="left"), keras.Input((6,), name="right")]
    outputs = layers.Dense(3)(LIF()(layers.Add()(inputs)))
    return keras.Model(structure(inputs), outputs)


def as_dict(inputs):
    return dict(zip(("left", "right"), inputs, strict=True))


def reversed_dict(inputs):
    return dict(reversed(as_dict(inputs).items()))


def nested_dict(inputs):
    return [{"left": inputs[0]}, {"right": inputs[1]}]


TWO = ["The network has 2 inputs", "['left', 'right']"]

MISNAMED = {"left": ZEROS, "wright": ZEROS}

NAMES = [
    "The network's inputs are named",
    "['left', 'right']",
    "without ['right']",
    "'wright'",
]

UNSORTED = [
    "The network's inputs are a dict",
    "['right', 'left']",
    "Received: a list",
    "Pass a dict",
]


@pytest.mark.parametrize("use", ["call", "fit"])
@pytest.mark.parametrize(
    ("structure", "inputs", "fragments"),
    [
        (list, [ZEROS], [*TWO, "Received: 1"]),
        (list, ZEROS, [*TWO, "Received: 1"]),
        (as_dict, MISNAMED, NAMES),
        (list, MISNAMED, NAMES),
        (reversed_dict, [ZEROS, ZEROS], UNSORTED),
    ],
)
def test_inputs_of_another_number_or_of_other_names_get_the_right_names(
    structure, inputs, fragments, use
):
    model = compiled(spiking(two_inputs(structure)), metrics=["accuracy"])
    message = assert_refused(
        lambda: USES[use](model, inputs, LABELS), ValueError, *fragments
    )
    assert message.startswith(fragments[0])


def test_inputs_of_any_number_type_work():
    x = np.random.default_rng(0).integers(0, 2, (10, 3, 6))
    model = compiled(spiking(), keras.optimizers.SGD(0.0))
    expected = model.predict(x.astype("float32"), verbose=0)
    loss = model.train_on_batch(x.astype("float32"), LABELS)
    for dtype in ("bool", "int64", "float64"):
        outputs = model.predict(x.astype(dtype), verbose=0)
        assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)
        found = model.train_on_batch(x.astype(dtype), LABELS)
        assert found == pytest.approx(loss, rel=1e-6)


TAKING_X = {
    "describe": lambda model, x: rsnn.describe(model, x, verbose=False),
    "energy": analysis.energy,
    "raster": lambda model, x: analysis.raster(model, x, "lif"),
    "shuffle_in_time": lambda model, x: analysis.shuffle_in_time(
        model, x, LABELS, verbose=0
    ),
    "independence": lambda model, x: analysis.independence(
        model, x, LABELS, loss="mse"
    ),
    "FiringRate": lambda model, x: compiled(model).fit(
        *helpers.data(), callbacks=[callbacks.FiringRate(x)], verbose=0
    ),
    "step": lambda model, x: model.step(x),
    "predict_until_sure": lambda model, x: deploy.predict_until_sure(model, x, 0.9),
    "predict": lambda model, x: model.predict(x, verbose=0),
    "fit": lambda model, x: compiled(model).fit(x, LABELS, verbose=0),
}

WRONG_X = {
    "a number": (
        5,
        r"must be arrays or tensors. Received: 5 of type int. Convert lists of numbers "
        r"with np.asarray",
    ),
    "a list": (
        [[0.5] * 6],
        "must be arrays or tensors. Received: 0.5 of type float, in a list.*np.asarray",
    ),
    "text": ("x", "must be arrays or tensors. Received: 'x' of type str"),
    "one sample without batch": (
        ZEROS[0],
        r"must have shape \(batch, 6\).* Received: .*shape \(6,\)",
    ),
    "another shape": (
        ZEROS[:, :5],
        r"must have shape \(batch, 6\).* Received: .*shape \(10, 5\)",
    ),
    "complex": (
        ZEROS.astype("complex64"),
        "must hold real numbers. Received: an array of dtype complex64",
    ),
    "symbolic": (keras.KerasTensor((None, 6)), "a symbolic tensor|KerasTensor"),
}


@pytest.mark.parametrize(("x", "message"), WRONG_X.values(), ids=WRONG_X.keys())
def test_an_x_that_does_not_fit_is_an_error_wherever_it_is_taken(x, message):
    model = spiking(mlp(name="lif"))
    for use in TAKING_X.values():
        with pytest.raises(ValueError, match=message):
            use(model, x)


def test_an_x_without_samples_is_an_error():
    message = "`x` must have samples, at least one, and the same number"
    for name in ("describe", "independence", "FiringRate", "predict", "fit"):
        use = functools.partial(TAKING_X[name], spiking(), ZEROS[:0])
        assert_refused(use, ValueError, message, "Received: 0 samples")


READERS = [
    lambda path: deploy.import_nir(path, 4),
    lambda path: deploy.export_nir(spiking(), path),
    lambda path: events.write_aedat(path, RECORDING),
    events.read_arrays,
    events.HeidelbergFile,
]

SAVERS = [
    lambda path: deploy.export_step(spiking(), path),
    lambda path: spiking().export(path),
    lambda path: spiking().save(path),
]


@pytest.mark.parametrize(("name", "uses"), [("path", READERS), ("filepath", SAVERS)])
def test_a_path_that_is_none_or_empty_is_an_error_that_names_it(name, uses):
    for use in uses:
        message = assert_refused(lambda use=use: use(""), ValueError)
        start = f"`{name}` must be a path. Received: {name}='', an empty string"
        assert message.startswith(start)
        for value in (None, b"model"):
            received = f"{name}={value!r} of type {type(value).__name__}"
            refused = functools.partial(use, value)
            message = assert_refused(refused, TypeError, received)
            assert message.startswith(f"`{name}` must be a string or a path")


# Arguments of functions.
RECORDING = events.Events(*np.array([[0, 5], [7, 6], [1, 0], [30, 40]]))


def plain():
    return helpers.chain(layers.Dense(3, "relu"), layers.Dense(3))


OPTIONS = {
    "gradient": lambda value: spiking(gradient=value),
    "reset": lambda value: LIF(reset=value),
    "split_by": lambda value: events.event_frames(RECORDING, 2, value, (8, 8), (4, 4)),
    "layer": lambda value: analysis.raster(spiking(), ZEROS, value),
    "name": rsnn.models.load_pretrained,
}


@pytest.mark.parametrize(
    "value",
    [np.array(["soft", "multi"]), ops.ones((2,)), "x", {}],
    ids=repr,
)
def test_a_choice_that_is_unknown_or_no_string_is_an_error_that_names_it(value):
    for name, use in OPTIONS.items():
        fragments = f"`{name}` must be ", f"{name}={value!r}"
        assert_refused(
            functools.partial(use, value), (TypeError, ValueError), *fragments
        )


@pytest.mark.backends(1)
def test_an_earlier_file_stays_whole_if_there_is_no_room_for_a_new_one(tmp_path):
    def write(path):
        events.write_aedat(path, RECORDING)

    path = tmp_path / "net"
    write(path)
    earlier, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def check_shapes(shapes):
    rsnn.testing.check_cell(LIFCell(), shapes)


def describe(verbose):
    rsnn.describe(spiking(), ZEROS, verbose)


def until_sure(confidence):
    deploy.predict_until_sure(spiking(), ZEROS, confidence)


HARD = functools.partial(LIF, reset="hard")

WRONG_ARGUMENTS = [
    ("decay", [1.0, -0.1, math.nan, 1 - 1e-9], LIF, ValueError, ">= 0 and < 1"),
    ("decay", ["0.2", True, None, 0.2j], LIF, TypeError, "a real number"),
    ("threshold", [0, math.nan, math.inf], LIF, ValueError, "> 0"),
    ("threshold", [1e-320], LIF, ValueError, "> 0 and finite in float32, too"),
    ("threshold", [10**400, 10**5000], LIF, ValueError, "> 0 and finite. Received"),
    ("v_reset", [math.nan, math.inf], LIF, ValueError, "finite"),
    ("v_reset", [-1e300], HARD, ValueError, "finite in float32"),
    ("reset", [10**5000], LIF, ValueError, "one of 'soft', 'hard'"),
    ("decay_input", [1, "no", None], LIF, TypeError, "True or False"),
    ("mask_value", [10**400, 1e300], spiking, ValueError, ""),
    ("mask_value", ["0", True], spiking, TypeError, "a number, which may be NaN"),
    ("timesteps", [10**5000, 2**63], spiking, ValueError, "an integer of 64 bits"),
    ("timesteps", [10_001], metrics.AnytimeAccuracy, ValueError, "at most 10000"),
    ("momentum", [-0.1], OnlineRenormalization, ValueError, ""),
    ("normalization", [True], LayerKind, TypeError, ""),
    ("verbose", ["print"], describe, TypeError, ""),
    ("confidence", [1.5], until_sure, ValueError, ">= 0 and <= 1"),
    ("shapes", [None, [], (5,), [None], [(2.0,)]], check_shapes, TypeError, ""),
    ("shapes", [[(0,)]], check_shapes, ValueError, ""),
]


@pytest.mark.parametrize(("name", "values", "use", "error", "rule"), WRONG_ARGUMENTS)
def test_a_wrong_argument_is_an_error_that_names_it(name, values, use, error, rule):
    for value in values:
        refused = functools.partial(use, **{name: value})
        message = assert_refused(refused, error, "Received: ")
        assert message.startswith(f"`{name}` must be {rule}")


OUTPUTS = np.zeros((10, 2, 3), "float32")


@pytest.mark.parametrize(
    "make",
    [lambda: metrics.AnytimeAccuracy(2), metrics.HeadAccuracy],
    ids=["steps", "head"],
)
def test_metrics_refuse_labels_and_outputs_that_do_not_fit(make):
    make().update_state(LABELS, OUTPUTS)
    rule = "`y_true`, the labels, must have the shape (10", "Received: shape"
    for labels in (LABELS[:9], np.int64(0), np.eye(4)[LABELS]):
        use = functools.partial(make().update_state, labels, OUTPUTS)
        assert_refused(use, ValueError, *rule)
    use = functools.partial(make().update_state, LABELS, OUTPUTS[:, 0])
    assert_refused(use, ValueError, "`y_pred` must be ", "Received: shape (10, 3)")


# What is allowed and puzzles.
def warned_by(model):
    """The warnings of a model in training and inference."""
    model = compiled(model, metrics=["accuracy"])
    x, y = helpers.data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, validation_data=(x, y), verbose=0)
        model.evaluate(x, y, verbose=0)
        model.predict(x, verbose=0)
    return {str(warning.message) for warning in caught}


@pytest.fixture
def nothing_warned_of_yet(monkeypatch):
    monkeypatch.setattr(neurons, "_warned_of_one_time_step", False)


def test_training_a_network_without_a_spiking_model_warns_once(nothing_warned_of_yet):
    messages = [warned_by(mlp()) for _ in range(2)]
    (first,) = [
        message
        for message in messages[0]
        if "called outside of a SpikingModel" in message
    ]
    assert "keras_ratesnn.SpikingModel(network, timesteps=4)" in first
    assert first not in messages[1]


def test_neurons_that_are_called_by_themselves_warn_once(nothing_warned_of_yet):
    with pytest.warns(UserWarning, match="LIF 'lif' is called outside .* timesteps=4"):
        LIF(name="lif")(ZEROS)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*SpikingModel")
        LIF()(ZEROS)


def test_networks_warn_of_one_time_step_in_training_only(nothing_warned_of_yet):
    x, y = helpers.data()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*SpikingModel")
        network = mlp()
        network.predict(x, verbose=0)
        network(x)
        model = compiled(spiking(saved_and_loaded(network)))
        model.fit(x, y, verbose=0)
        saved_and_loaded(model).evaluate(x, y, verbose=0)
        rsnn.describe(model, x)
        rsnn.spikify(plain(), 3, calibrate=x, verbose=False)


NEURONS = [{"reset": "hard", "decay": 0.0}, {"reset": "hard"}]
NEURONS += [{"surrogate": name, "detach_reset": False} for name in surrogates.BY_NAME]


@rate_and_bptt
@pytest.mark.parametrize("arguments", NEURONS, ids=str)
def test_nan_in_a_weight_or_in_one_frame_shows_in_the_loss(arguments, gradient):
    model = spiking(mlp(**arguments), gradient=gradient)
    x, y = helpers.data(shape=(3, 6))
    broken = x.copy()
    broken[2, 0, 1] = math.nan
    loss, _ = helpers.loss_and_gradients(model, broken, y)
    assert math.isnan(loss)
    break_weight(model.trainable_variables[0])
    loss, _ = helpers.loss_and_gradients(model, x, y)
    assert math.isnan(loss)


@pytest.mark.parametrize(
    ("shape", "is_like_time"),
    [
        ((3, 6), True),
        ((3, 8, 8, 2), True),
        ((3,), False),
        ((4, 6), False),
        ((3, 3, 1), False),
        ((None, 3), False),
        ((1, 6), False),
    ],
    ids=str,
)
def test_a_first_axis_as_long_as_time_is_pointed_out(shape, is_like_time, recwarn):
    inputs = keras.Input(shape, name="events")
    timesteps = 1 if shape[0] == 1 else 3
    spiking(keras.Model(inputs, LIF()(inputs)), timesteps)
    assert len(recwarn) == is_like_time
    for warning in recwarn:
        message = str(warning.message)
        assert "'events'" in message
        assert f"keras.Input({shape[1:]})" in message


@pytest.mark.parametrize("name", ["model.h5", "a_model"])
def test_formats_that_cannot_be_loaded_are_not_saved(name, tmp_path):
    path = tmp_path / name
    message = "`filepath` must end in .keras"
    assert_refused(
        lambda: spiking().save(path), ValueError, message, "save_weights", name
    )
    assert not path.exists()


# Weights that are not finite.
def break_weight(variable, value=math.nan):
    weights = helpers.to_numpy(variable).copy()
    weights.flat[0] = value
    variable.assign(weights)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_fit_refuses_weights_that_are_not_finite_and_names_them(value):
    model = compiled(spiking())
    broken = model.trainable_variables[2]
    break_weight(broken, value)
    message = assert_refused(
        lambda: model.fit(*helpers.data(), verbose=0),
        ValueError,
        "NaN or infinite",
        broken.path,
        "learning rate",
        "TerminateOnNaN",
    )
    assert model.trainable_variables[0].path not in message


def test_fit_adds_no_warnings_to_those_of_keras():
    assert warned_by(spiking()) - warned_by(plain()) == set()


def test_fit_checks_weights_on_their_device(monkeypatch):
    fetched = []
    convert = ops.convert_to_numpy
    monkeypatch.setattr(
        ops, "convert_to_numpy", lambda x: (fetched.append(x), convert(x))[1]
    )
    check_finite(spiking().variables)
    check_finite([])
    assert fetched == []


@pytest.mark.parametrize("value", [1, np.array(["auto", "auto"])], ids=str)
def test_jit_compile_is_checked_when_a_model_is_compiled(value):
    message = "`jit_compile` must be True, False or 'auto'. Received: jit_compile="
    for owner in (spiking(), helpers.distiller()):
        use = functools.partial(owner.compile, "sgd", "mse", jit_compile=value)
        assert_refused(use, ValueError, message)


@only_on("tensorflow", "only TensorFlow has tensors of texts")
def test_texts_are_inputs_where_a_layer_wants_them():
    words = layers.TextVectorization(
        10, output_sequence_length=5, vocabulary=["a", "b", "c"]
    )
    inputs = keras.Input((), dtype="string")
    x = layers.Flatten()(LIF()(layers.Embedding(10, 4)(words(inputs))))
    model = spiking(keras.Model(inputs, layers.Dense(3)(x)))
    texts = np.array(["a b", "c"], dtype=object)
    assert model.predict(texts, verbose=0).shape == (2, 3)
    assert model.step(ops.convert_to_tensor(texts)).shape == (2, 3)

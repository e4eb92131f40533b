"""Errors are raised early, with the right type, and name the argument, the value, and
what to do."""

import functools
import inspect
import math
import resource
import warnings

import helpers
import keras
import numpy as np
import pytest
from helpers import mlp, saved_and_loaded, spiking
from keras import ops

import keras_ratesnn as rsnn
from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._model.weight_checks import check_finite
from keras_ratesnn.layers import LIF, LIFCell, Neuron, neurons


def assert_says(error, *fragments):
    message = str(error.value)
    assert [fragment for fragment in fragments if fragment not in message] == [], (
        message
    )


# Arguments of SpikingModel.
@pytest.mark.parametrize(
    ("value", "error", "fragments"),
    [
        (0, ValueError, ["`timesteps` must be 1 or more", "timesteps=0"]),
        (-1, ValueError, ["`timesteps` must be 1 or more", "timesteps=-1"]),
        (2.5, TypeError, ["`timesteps` must be an integer", "timesteps=2.5", "float"]),
        (4.0, TypeError, ["`timesteps` must be an integer", "timesteps=4.0", "float"]),
        (True, TypeError, ["`timesteps` must be an integer", "timesteps=True", "bool"]),
        ("4", TypeError, ["`timesteps` must be an integer", "timesteps='4'", "str"]),
        (None, TypeError, ["`timesteps` must be an integer", "timesteps=None"]),
    ],
)
def test_timesteps_are_a_positive_integer(value, error, fragments):
    with pytest.raises(error) as raised:
        rsnn.SpikingModel(mlp(), timesteps=value)
    assert_says(raised, *fragments)
    model = spiking()
    with pytest.raises(error) as raised:
        model.timesteps = value
    assert_says(raised, *fragments)
    assert model.timesteps == 3


@pytest.mark.skipif(
    helpers.BACKEND != "tensorflow",
    reason="only TensorFlow makes errors of traced code again",
)
def test_wrong_shapes_are_value_errors_in_a_function_of_tensorflow_too():
    import tensorflow as tf

    model = spiking()

    @tf.function
    def call(x):
        return model(x)

    with pytest.raises(ValueError, match="one frame for each of timesteps=3") as raised:
        call(np.ones((4, 5, 6), "float32"))
    assert_says(raised, "(4, 5, 6)")


def test_timesteps_may_be_a_numpy_integer():
    assert type(spiking(timesteps=np.int64(4)).timesteps) is int


def test_an_unknown_gradient_lists_the_known_ones_and_says_how_to_have_windows():
    with pytest.raises(ValueError, match="`gradient` must be one of") as raised:
        spiking(gradient="rate-2")
    assert_says(
        raised,
        "gradient='rate-2'",
        "'rate'",
        "'bptt'",
        "GradientMethod",
        "keras_ratesnn.gradients.Rate(windows=2)",
    )
    model = spiking()
    with pytest.raises(ValueError, match="`gradient` must be one of"):
        model.gradient = "rates"
    assert isinstance(model.gradient, rsnn.gradients.Rate)


@pytest.mark.parametrize(
    ("value", "fragments"),
    [
        (rsnn.gradients.BPTT, ["add the parentheses"]),
        (None, ["gradient=None"]),
        (rsnn.surrogates.ATan(), ["gradient=ATan"]),
    ],
)
def test_gradient_must_be_a_gradient_method(value, fragments):
    with pytest.raises(TypeError, match="`gradient` must be one of") as raised:
        spiking(gradient=value)
    assert_says(raised, "'rate'", "'bptt'", *fragments)


@pytest.mark.parametrize("value", ["multiple", None, 1])
def test_an_unknown_step_mode_lists_the_known_ones(value):
    with pytest.raises(ValueError, match="`step_mode` must be one of") as raised:
        spiking(step_mode=value)
    assert_says(raised, f"step_mode={value!r}", "'multi'")
    model = spiking()
    with pytest.raises(ValueError, match="`step_mode` must be one of"):
        model.step_mode = value
    assert model.step_mode == "multi"


def test_return_sequences_is_true_or_false():
    with pytest.raises(
        TypeError, match="`return_sequences` must be True or False"
    ) as raised:
        spiking(return_sequences="yes")
    assert_says(raised, "return_sequences='yes'")


# Arguments of neurons.
@pytest.mark.parametrize("make", [LIF, LIFCell])
@pytest.mark.parametrize(
    ("argument", "value", "error", "fragments"),
    [
        *(
            ("decay", value, ValueError, [">= 0", "< 1", "decay = 1 − 1/τ"])
            for value in (1.0, 1, 2.0, -0.1, math.nan, math.inf)
        ),
        *(
            ("decay", value, TypeError, ["a real number"])
            for value in ("0.2", True, None, 0.2j)
        ),
        *(
            ("threshold", value, ValueError, ["> 0"])
            for value in (0, 0.0, -1, math.nan, math.inf)
        ),
        *(
            ("threshold", value, TypeError, ["a real number"])
            for value in ("1", True, None)
        ),
        *(("v_reset", value, ValueError, ["finite"]) for value in (math.nan, math.inf)),
        *(
            ("v_reset", value, TypeError, ["a real number"])
            for value in ("0", False, None)
        ),
        *(
            ("reset", value, ValueError, ["one of 'soft', 'hard'"])
            for value in ("zero", None, 0)
        ),
        *(
            ("detach_reset", value, TypeError, ["True or False"])
            for value in (1, "no", None)
        ),
        *(("decay_input", value, TypeError, ["True or False"]) for value in ("x", 0.5)),
        *(("reset_delay", value, TypeError, ["True or False"]) for value in (2, None)),
        ("v_reset", None, TypeError, ['reset="soft"']),
        ("surrogate", "relu", ValueError, ["one of 'sigmoid'", "'atan'"]),
        (
            "surrogate",
            rsnn.surrogates.ATan,
            TypeError,
            ["one of 'sigmoid'", "add the parentheses"],
        ),
    ],
)
def test_errors_name_the_wrong_argument_of_a_neuron(
    make, argument, value, error, fragments
):
    with pytest.raises(error, match=f"`{argument}` must be ") as raised:
        make(**{argument: value})
    assert_says(raised, f"{argument}={value!r}", *fragments)


@pytest.mark.parametrize(
    "make", [LIF, LIFCell, rsnn.layers.IF, rsnn.layers.ParametricLIF]
)
def test_a_reset_value_that_a_soft_reset_would_ignore_is_refused(make):
    with pytest.raises(
        ValueError, match=r'`v_reset` must be 0.0 with reset="soft"'
    ) as raised:
        make(v_reset=-0.5)
    assert_says(raised, "v_reset=-0.5", 'reset="hard"')
    assert make(reset="hard", v_reset=-0.5).v_reset == -0.5


@pytest.mark.parametrize(
    "make", [LIF, LIFCell, rsnn.layers.IF, rsnn.layers.ParametricLIF]
)
def test_a_reset_value_that_a_soft_reset_ignored_is_dropped_from_an_old_config(make):
    hard = make(reset="hard", v_reset=-0.5)
    assert make.from_config(hard.get_config()).v_reset == -0.5
    soft = make.from_config({**hard.get_config(), "reset": "soft"})
    assert (soft.reset, soft.v_reset) == ("soft", 0.0)


@pytest.mark.parametrize("make", [LIF, LIFCell, rsnn.layers.IF, rsnn.layers.CuBaLIF])
@pytest.mark.parametrize("v_reset", [0.5, 2])
def test_a_reset_to_the_threshold_or_above_is_refused(make, v_reset):
    with pytest.raises(
        ValueError, match=r"`v_reset` must be < 0\.5\. Received: v_reset="
    ):
        make(threshold=0.5, reset="hard", v_reset=v_reset)


def test_a_stabilised_threshold_and_a_delayed_reset_exclude_each_other():
    with pytest.raises(
        ValueError,
        match=r"`threshold_stabilizer=True` .* Received: reset_delay=True, too",
    ):
        LIF(threshold_stabilizer=True, reset_delay=True)


OTHER_NAMES = {
    "tau": (
        2.0,
        "here decay=0.5. If the input is scaled by 1/τ, too, as in SpikingJelly unless "
        "decay_input=False",
    ),
    "tau_mem": (10.0, "here decay=0.9"),
    "init_tau": (2, "ParametricLIF(decay=...)"),
    "beta": (0.9, "decay=0.9"),
    "alpha": (2.0, "surrogates.ATan(alpha=2.0)"),
    "v_threshold": (1.0, "threshold=1.0"),
    "reset_mechanism": ("subtract", 'reset="soft"'),
    "surrogate_function": ("ATan()", 'surrogate="atan"'),
    "learn_beta": (True, "ParametricLIF(decay=...)"),
    "step_mode": ("m", 'SpikingModel(network, timesteps, step_mode="multi")'),
    "backend": ("cupy", "KERAS_BACKEND"),
    "num_steps": (4, "SpikingModel(network, timesteps=4)"),
    "return_membrane": (True, "analysis.observed(model, membranes=[name])"),
    "store_v_seq": (True, "analysis.observed(model, membranes=[name])"),
    "return_sequences": (
        True,
        "SpikingModel(network, timesteps, return_sequences=True)",
    ),
    "init_hidden": (True, "Leave the argument out"),
    "units": (32, "keras.layers.Dense(32)"),
}


@pytest.mark.parametrize(
    "make", [LIF, LIFCell, rsnn.layers.IF, rsnn.layers.ParametricLIF]
)
@pytest.mark.parametrize("name", OTHER_NAMES)
def test_argument_names_of_other_libraries_are_translated(make, name):
    value, advice = OTHER_NAMES[name]
    with pytest.raises(
        TypeError, match=f"^{make.__name__} has no argument `{name}`"
    ) as raised:
        make(**{name: value})
    assert_says(raised, f"{name}={value!r}", advice)


@pytest.mark.parametrize(
    ("value", "ours"),
    [("zero", "hard"), ("subtract", "soft"), ("none", "LeakyReadout")],
)
def test_resets_of_other_libraries_are_translated(value, ours):
    with pytest.raises(
        ValueError, match="`reset` must be one of 'soft', 'hard'"
    ) as raised:
        LIF(reset=value)
    assert_says(raised, f"reset={value!r}", ours)


@pytest.mark.parametrize(
    ("name", "value", "ours"),
    [
        ("num_steps", 4, "timesteps=4"),
        ("T", 4, "timesteps=4"),
        ("return_membrane", True, "analysis.observed"),
        ("method", "bptt", 'gradient="rate"'),
        ("stepmode", "single", 'step_mode="multi"'),
    ],
)
def test_arguments_and_attributes_of_models_of_other_libraries_are_translated(
    name, value, ours
):
    with pytest.raises(
        TypeError, match=f"^SpikingModel has no argument `{name}`"
    ) as raised:
        rsnn.SpikingModel(mlp(), **{name: value})
    assert_says(raised, f"{name}={value!r}", ours)
    with pytest.raises(
        AttributeError, match=f"^SpikingModel has no attribute `{name}`"
    ) as raised:
        setattr(spiking(), name, value)
    assert_says(raised, f"{name}={value!r}", ours)
    assert next(iter(inspect.signature(rsnn.SpikingModel).parameters)) == "network"


class Doubling(rsnn.SpikingModel):
    def call(self, inputs, training=None, mask=None):
        return super().call(2 * inputs, training, mask)


@pytest.mark.parametrize(
    "run",
    [
        lambda model, x: model.step(x),
        lambda model, x: rsnn.analysis.firing_rates(model, x),
        lambda model, x: rsnn.analysis.observed(model),
        lambda model, x: rsnn.predict_until_sure(model, x, confidence=0.9),
        lambda model, x: rsnn.integer(model),
    ],
)
def test_what_runs_a_network_by_itself_refuses_a_model_with_a_call_of_its_own(run):
    with pytest.raises(
        ValueError, match=r"^`model` must not have a `call` of its own"
    ) as raised:
        run(Doubling(mlp(), 3), helpers.data()[0])
    assert_says(raised, "of the class Doubling", "into layers of the network")


def test_another_network_of_a_model_is_an_error_that_says_what_to_make():
    model = spiking()
    with pytest.raises(
        AttributeError,
        match=r"^`network` of a SpikingModel cannot be replaced\. Received: network=<",
    ) as raised:
        model.network = mlp()
    assert_says(raised, "SpikingModel(network, timesteps)")
    assert len(model.weights) == len(model.network.weights)


ATTRIBUTES = [
    (LIF, "beta"),
    (LIF, "v_threshold"),
    (rsnn.layers.IF, "step_mode"),
    (rsnn.layers.ILIF, "tau"),
]


@pytest.mark.parametrize(
    ("make", "name"), [*ATTRIBUTES, (rsnn.layers.LeakyReadout, "beta")]
)
def test_attribute_names_of_other_libraries_are_translated(make, name):
    value, advice = OTHER_NAMES[name]
    with pytest.raises(
        AttributeError, match=f"^{make.__name__} has no attribute `{name}`"
    ) as raised:
        setattr(make(), name, value)
    assert_says(raised, f"{name}={value!r}", advice)


def test_layers_and_models_may_have_attributes_of_their_own():
    class Own(LIF):
        def __init__(self, tau):
            super().__init__(decay=1 - 1 / tau)
            self.tau = tau

    class OwnModel(rsnn.SpikingModel):
        def __init__(self, network, method):
            super().__init__(network, 3, method)
            self.method = method

    layer, model = LIF(), spiking()
    layer.notes = model.notes = "mine"
    assert (layer.notes, model.notes, Own(2.0).tau, OwnModel(mlp(), "bptt").method) == (
        "mine",
        "mine",
        2.0,
        "bptt",
    )


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Leaky", "LIF(decay=beta, reset_delay=True)"),
        (
            "RLeaky",
            "Recurrent(LIF(decay=beta, reset_delay=True), keras.layers.Dense(units))",
        ),
        ("LIFNode", 'reset="hard"'),
        ("PoissonEncoder", "BernoulliEncoder"),
        ("lif", "Use LIF."),
        ("Dense", "keras.layers.Dense"),
        ("Unknown", "has no attribute 'Unknown'."),
    ],
)
def test_neurons_of_other_libraries_are_translated(name, ours):
    with pytest.raises(
        AttributeError, match=f"module 'keras_ratesnn.layers' has no attribute '{name}'"
    ) as raised:
        getattr(rsnn.layers, name)
    assert_says(raised, ours)


def test_an_error_about_shapes_has_a_name_that_users_know():
    with pytest.raises(ValueError, match="one frame for each of timesteps=3") as raised:
        spiking().predict(np.ones((4, 5)))
    assert type(raised.value) is ValueError


NOT_STABILIZED = [
    rsnn.layers.IF,
    rsnn.layers.ParametricLIF,
    rsnn.layers.ALIF,
    rsnn.layers.CuBaLIF,
    LIFCell,
]


@pytest.mark.parametrize("make", NOT_STABILIZED)
def test_neurons_without_stabilised_thresholds_name_the_one_that_has_them(make):
    with pytest.raises(
        TypeError, match=f"^{make.__name__} has no argument `threshold_stabilizer`"
    ) as raised:
        make(threshold_stabilizer=True)
    assert_says(raised, "threshold_stabilizer=True", "LIF(threshold_stabilizer=True)")


@pytest.mark.parametrize("value", [0, -1.0, "2", True, None])
def test_invalid_time_constants_get_only_the_formula(value):
    with pytest.raises(TypeError, match="decay = 1 − 1/τ\\.") as raised:
        LIF(tau=value)
    assert_says(raised, f"tau={value!r}")


FIXED = {
    "threshold": 0.5,
    "reset": "hard",
    "v_reset": 0.1,
    "detach_reset": False,
    "surrogate": "atan",
    "learn_threshold": True,
    "initial_membrane": 0.5,
    "decay_input": True,
    "reset_delay": True,
}


@pytest.mark.parametrize(("argument", "value"), [*FIXED.items(), ("decay", 0.5)])
def test_arguments_of_a_built_neuron_are_fixed(argument, value):
    lif = LIF()
    spiking(keras.Sequential([keras.Input((6,)), lif]))
    before = getattr(lif, argument)
    for owner in (lif, lif.cell):
        with pytest.raises(
            AttributeError, match=f"`{argument}` of .* is fixed"
        ) as raised:
            setattr(owner, argument, value)
        assert_says(
            raised,
            repr(owner.name),
            f"{argument}={value!r}",
            "new layer",
            "learn_threshold=True",
        )
    assert getattr(lif, argument) is before


@pytest.mark.parametrize(
    ("argument", "value"), [("threshold", 0.5), ("surrogate", "atan")]
)
def test_arguments_of_a_custom_cell_are_fixed_but_its_own_attributes_are_not(
    argument, value
):
    class Mine(rsnn.layers.NeuronCell):
        def step(self, inputs, state):
            return inputs, self.fire(inputs), state

    cell = Mine()
    setattr(cell, argument, getattr(cell, argument))
    cell.gain = 1.0
    Neuron(cell)(ZEROS)
    cell.gain, cell.trainable = 2.0, False
    with pytest.raises(AttributeError, match=f"`{argument}` of Mine"):
        setattr(cell, argument, value)


@pytest.mark.parametrize("argument", ["per_channel", "axis", "decay"])
def test_an_argument_of_a_parametric_neuron_is_fixed(argument):
    neuron = rsnn.layers.ParametricLIF()
    neuron(ZEROS)
    for owner in (neuron, neuron.cell):
        with pytest.raises(AttributeError, match=f"`{argument}` of .* is fixed"):
            setattr(owner, argument, 0.25)


def put_in_sequential(cell):
    keras.Sequential([keras.Input((6,)), cell])


def put_in_sequential_without_input(cell):
    keras.Sequential([cell])(ZEROS)


def called_in_a_graph(cell):
    cell(keras.Input((6,)))


@pytest.mark.parametrize(
    "use", [put_in_sequential, put_in_sequential_without_input, called_in_a_graph]
)
def test_the_error_for_a_cell_used_as_a_layer_names_the_layer(use):
    with pytest.raises(ValueError, match="cannot be a layer of a network") as raised:
        use(LIFCell(name="mine"))
    assert_says(
        raised, "LIFCell 'mine'", "keras_ratesnn.layers.LIF()", "Neuron(LIFCell())"
    )


def test_a_neuron_needs_a_cell():
    with pytest.raises(TypeError, match="`cell` must be a NeuronCell") as raised:
        Neuron(keras.layers.LSTMCell(3))
    assert_says(raised, "LSTMCell", "LIFCell()")


def test_only_a_layer_class_can_be_marked_affine():
    for value in (keras.layers.Dense(3), abs):
        with pytest.raises(
            TypeError, match=r"`layer_class` must be a subclass of keras.layers.Layer"
        ):
            rsnn.affine(value)


# Networks.
class Subclassed(keras.Model):
    """A model with an unknown graph."""

    def __init__(self):
        super().__init__()
        self.lif = LIF(name="inner")

    def call(self, inputs):
        return self.lif(inputs)


@pytest.mark.parametrize(
    "make",
    [
        Subclassed,
        lambda: keras.layers.Dense(3),
        lambda: LIF(),
        lambda: None,
        lambda: "mlp",
        lambda: mlp,
    ],
    ids=["subclassed", "layer", "neuron", "None", "string", "function"],
)
def test_a_network_is_functional_or_sequential(make):
    network = make()
    with pytest.raises(
        TypeError, match="`network` must be a Functional or Sequential"
    ) as raised:
        spiking(network) if network is not None else rsnn.SpikingModel(
            None, timesteps=3
        )
    assert_says(
        raised,
        type(network).__name__,
        "keras.Model(inputs, outputs)",
        "keras.Sequential([keras.Input",
    )


def test_the_error_for_an_unbuilt_sequential_suggests_an_input():
    with pytest.raises(
        ValueError, match="`network` must know its input shape"
    ) as raised:
        spiking(keras.Sequential([keras.layers.Dense(3), LIF()], name="mine"))
    assert_says(raised, "mine", "keras.Input(shape)")


def test_the_error_for_a_network_without_neurons_says_where_they_go():
    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="must contain a neuron layer") as raised:
        spiking(keras.Model(inputs, keras.layers.Dense(3)(inputs), name="mine"))
    assert_says(raised, "'mine'", "keras_ratesnn.layers.LIF() after its layers")


class Block(keras.layers.Layer):
    """A custom layer with a neuron inside, stored in different ways."""

    def __init__(self, keep, **kwargs):
        super().__init__(**kwargs)
        neuron = LIF(name="inner")
        self.inside = {
            "attribute": neuron,
            "list": [neuron],
            "dict": {"a": neuron},
            "cell": neuron.cell,
        }[keep]

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        return inputs


class RecurrentCell(keras.layers.Layer):
    """A cell of a Keras RNN with a neuron inside."""

    state_size = 4

    def __init__(self):
        super().__init__()
        self.lif = LIF(name="inner")

    def build(self, input_shape):
        self.built = True

    def call(self, inputs, states):
        outputs = self.lif(inputs)
        return outputs, [outputs]


def hides(layer):
    def network():
        inputs = keras.Input((5, 4))
        return keras.Model(inputs, LIF()(layer()(inputs)))

    return network


HIDING = {
    "custom layer, attribute": hides(lambda: Block("attribute")),
    "custom layer, list": hides(lambda: Block("list")),
    "custom layer, dict": hides(lambda: Block("dict")),
    "custom layer, cell": hides(lambda: Block("cell")),
    "subclassed model": hides(Subclassed),
    "TimeDistributed": hides(lambda: keras.layers.TimeDistributed(LIF(name="inner"))),
    "RNN": hides(lambda: keras.layers.RNN(RecurrentCell(), return_sequences=True)),
    "activation of a layer": hides(
        lambda: keras.layers.Dense(4, activation=LIF(name="inner"))
    ),
    "Activation": hides(lambda: keras.layers.Activation(LIF(name="inner"))),
    "custom layer in a nested model": hides(
        lambda: keras.Sequential([keras.Input((5, 4)), Block("attribute")])
    ),
    "another SpikingModel": hides(
        lambda: spiking(
            keras.Sequential([keras.Input((5, 4)), LIF(name="inner")], name="spiking"),
            name="outer",
        )
    ),
}


@pytest.mark.parametrize("make", HIDING.values(), ids=HIDING.keys())
def test_a_hidden_neuron_is_found_and_named(make):
    with pytest.raises(
        ValueError, match="must not hide neurons or time means inside other layers"
    ) as raised:
        spiking(make())
    assert_says(
        raised,
        "could not be run over time",
        "not Dense(10, activation=LIF())",
        "Functional or Sequential",
    )
    assert "'inner'" in str(raised.value) or "'cell'" in str(raised.value)


# Inputs.
ZEROS, LABELS = np.zeros((10, 6), "float32"), np.zeros(10, "int64")
USES = {
    "call": lambda model, x, y: model(x),
    "predict": lambda model, x, y: model.predict(x, verbose=0),
    "predict_on_batch": lambda model, x, y: model.predict_on_batch(x),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
}


@pytest.mark.parametrize(
    ("shape", "use"),
    [
        *(((10, 5), use) for use in USES),
        *(
            (shape, "predict")
            for shape in [(10, 4, 6), (10, 3, 5), (10, 3, 6, 1), (10, 1, 6), (10, 6, 3)]
        ),
    ],
    ids=str,
)
def test_an_input_that_does_not_fit_gets_both_shapes_that_would_and_nothing_else(
    shape, use
):
    x = np.zeros(shape, "float32")
    with pytest.raises(
        ValueError, match=r"^Input .* of the network must have shape"
    ) as raised:
        USES[use](helpers.compiled(spiking(), metrics=["accuracy"]), x, LABELS)
    sizes = ", ".join(str(size) for size in shape[1:])
    assert_says(raised, "(batch, 6)", "(batch, 3, 6)", "timesteps=3", f"{sizes})")
    assert str(raised.value).endswith(").")


def test_an_input_without_a_name_is_called_by_its_layer():
    ordinary = keras.Sequential(
        [keras.Input((6,)), keras.layers.ReLU(), keras.layers.Dense(3)]
    )
    for model in (spiking(), rsnn.spikify(ordinary, 3, verbose=0)):
        wrong = [
            (
                r"^Input 'input_layer",
                lambda model: model.predict(np.zeros((10, 5), "float32"), verbose=0),
            ),
            (
                r"^The inputs of the network, \['input_layer",
                lambda model: rsnn.describe(model, 5),
            ),
            (
                r"^The inputs of the network, \['input_layer",
                lambda model: in_fit(callbacks.FiringRate)(model, 5),
            ),
            (
                r"^The network has 1 input, named \['input_layer",
                lambda model: model.predict([ZEROS, ZEROS], verbose=0),
            ),
            (
                r"^The network's inputs are named \['input_layer",
                lambda model: model({"x": ZEROS}),
            ),
        ]
        for message, use in wrong:
            with pytest.raises(ValueError, match=message) as raised:
                use(model)
            assert "keras_tensor" not in str(raised.value)


def test_an_input_without_a_name_is_found_by_that_of_its_layer_and_that_of_its_tensor():
    network = _graph.as_graph(mlp())
    (tensor,) = network.inputs
    names = keras_internals.name_of_input(tensor), tensor.name
    assert len(set(names)) == 2
    assert [_graph.match_inputs(network, {name: ZEROS}) for name in names] == [
        [ZEROS],
        [ZEROS],
    ]


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_model_still_works_after_an_input_that_did_not_fit(use):
    model = helpers.compiled(spiking())
    expected = model.predict(ZEROS, verbose=0)
    with pytest.raises(ValueError, match=r"^Input"):
        use(model, ZEROS[:, :5], LABELS)
    np.testing.assert_array_equal(model.predict(ZEROS, verbose=0), expected)


class Batches(keras.utils.PyDataset):
    """Batches of the wrong shape, which cannot be checked in advance."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return ZEROS[:, :5], LABELS


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_a_batch_of_a_data_set_that_does_not_fit_gets_both_shapes_that_would(method):
    with pytest.raises(
        ValueError, match=r"^Input .* of the network must have shape"
    ) as raised:
        getattr(helpers.compiled(spiking(), metrics=["accuracy"]), method)(
            Batches(), verbose=0
        )
    assert_says(raised, "(batch, 6)", "(batch, 3, 6)")
    assert str(raised.value).endswith(", 5).")


@pytest.mark.skipif(helpers.BACKEND != "tensorflow", reason="tf.data")
def test_the_error_for_a_data_set_of_unknown_rank_says_to_set_its_shape():
    import tensorflow as tf

    signature = tf.TensorSpec(None, "float32"), tf.TensorSpec((None,), "int64")
    data = tf.data.Dataset.from_generator(
        lambda: iter([(ZEROS, LABELS)]), output_signature=signature
    )
    with pytest.raises(ValueError, match="unknown rank") as raised:
        helpers.compiled(spiking()).evaluate(data, verbose=0)
    assert_says(raised, "tf.ensure_shape(x, (None, 6))", "(None, 3, 6)")


@pytest.mark.parametrize(
    "use",
    [USES["fit"], USES["evaluate"], USES["train_on_batch"]],
    ids=["fit", "evaluate", "train_on_batch"],
)
def test_errors_of_a_custom_cell_are_raised_while_keras_builds_metrics(use):
    class Unfinished(rsnn.layers.NeuronCell):
        """A cell without a step."""

    network = keras.Sequential(
        [keras.Input((6,)), Neuron(Unfinished()), keras.layers.Dense(3)]
    )
    with pytest.raises(NotImplementedError, match="Unfinished must implement `step"):
        use(
            helpers.compiled(spiking(network, gradient="bptt"), metrics=["accuracy"]),
            ZEROS,
            LABELS,
        )


def test_an_image_without_its_channel_axis_gets_both_shapes_that_would():
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3),
            LIF(),
            keras.layers.Flatten(),
        ]
    )
    with pytest.raises(ValueError, match="must have shape") as raised:
        spiking(network)(np.zeros((10, 4, 4), "float32"))
    assert_says(raised, "(batch, 4, 4, 1)", "(batch, 3, 4, 4, 1)", "(10, 4, 4)")


def two_inputs(structure=list):
    inputs = [keras.Input((6,), name="left"), keras.Input((6,), name="right")]
    return keras.Model(
        structure(inputs), keras.layers.Dense(3)(LIF()(keras.layers.Add()(inputs)))
    )


def as_dict(inputs):
    return dict(zip(("left", "right"), inputs, strict=True))


def reversed_dict(inputs):
    return dict(reversed(as_dict(inputs).items()))


def nested_dict(inputs):
    return [{"left": inputs[0]}, {"right": inputs[1]}]


@pytest.mark.parametrize(
    ("inputs", "use"),
    [
        *(([ZEROS], use) for use in USES),
        *((inputs, "predict") for inputs in ([ZEROS, ZEROS, ZEROS], ZEROS)),
    ],
)
def test_the_error_for_a_wrong_number_of_inputs_lists_their_names(inputs, use):
    with pytest.raises(ValueError, match=r"^The network has 2 inputs") as raised:
        USES[use](
            helpers.compiled(spiking(two_inputs()), metrics=["accuracy"]),
            inputs,
            LABELS,
        )
    assert_says(
        raised,
        "['left', 'right']",
        f"Received: {len(inputs) if isinstance(inputs, list) else 1}",
    )


@pytest.mark.parametrize(
    ("structure", "use"), [*((as_dict, use) for use in USES), (list, "predict")]
)
def test_the_error_for_a_dict_with_wrong_names_lists_the_right_ones(use, structure):
    model = helpers.compiled(spiking(two_inputs(structure)), metrics=["accuracy"])
    with pytest.raises(ValueError, match=r"^The network's inputs are named") as raised:
        USES[use](model, {"left": ZEROS, "wright": ZEROS}, LABELS)
    assert_says(raised, "['left', 'right']", "without ['right']", "'wright'")


def test_an_optional_input_that_is_left_out_is_named():
    inputs, extra = (
        keras.Input((6,), name="left"),
        keras.Input((6,), name="extra", optional=True),
    )
    network = keras.Model(
        {"left": inputs, "extra": extra}, LIF()(keras.layers.Dense(3)(inputs))
    )
    with pytest.raises(
        ValueError,
        match=r"Input 'extra' of the network must be a tensor or an array. Received: "
        r"None",
    ):
        spiking(network)({"left": ZEROS, "extra": None})


def test_the_error_for_a_wrong_name_in_a_nested_dict_lists_the_right_ones():
    with pytest.raises(ValueError, match=r"^The network's inputs are named") as raised:
        spiking(two_inputs(nested_dict))([{"left": ZEROS}, {"wright": ZEROS}])
    assert_says(raised, "['right']", "'wright'")


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_list_for_a_dict_that_is_not_sorted_is_an_error_and_not_a_guess(use):
    with pytest.raises(ValueError, match=r"^The network's inputs are a dict") as raised:
        use(
            helpers.compiled(spiking(two_inputs(reversed_dict)), metrics=["accuracy"]),
            [ZEROS, ZEROS],
            LABELS,
        )
    assert_says(raised, "['right', 'left']", "Received: a list", "Pass a dict")


@pytest.mark.parametrize(
    ("gradient", "dtypes"),
    [("rate", ["uint8", "int64"]), ("bptt", ["int32", "float64"])],
)
def test_inputs_of_any_number_type_work(gradient, dtypes):
    x = np.random.default_rng(0).integers(0, 256, (10, 6))
    _, y = helpers.data()
    losses = []
    for dtype in ("float32", *dtypes):
        keras.utils.set_random_seed(3)
        model = helpers.compiled(spiking(gradient=gradient))
        losses.append(
            model.fit(x.astype(dtype), y, epochs=2, shuffle=False, verbose=0).history[
                "loss"
            ]
        )
    for found in losses[1:]:
        np.testing.assert_allclose(found, losses[0], rtol=1e-6)


def test_boolean_events_work():
    x = np.random.default_rng(0).integers(0, 2, (10, 3, 6)).astype(bool)
    model = spiking()
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        model.predict(x.astype("float32"), verbose=0),
        rtol=1e-6,
        atol=1e-6,
    )


def in_fit(callback):
    return lambda model, x: helpers.compiled(model).fit(
        *helpers.data(), callbacks=[callback(x)], verbose=0
    )


analysis, callbacks = rsnn.analysis, rsnn.callbacks
TAKING_X = {
    "describe": lambda model, x: rsnn.describe(model, x, verbose=False),
    "energy": analysis.energy,
    "firing_rates": analysis.firing_rates,
    "raster": lambda model, x: analysis.raster(model, x, "lif"),
    "membranes": lambda model, x: analysis.membranes(model, x, "lif"),
    "accuracy_over_time": lambda model, x: analysis.accuracy_over_time(
        model, x, LABELS, verbose=0
    ),
    "shuffle_in_time": lambda model, x: analysis.shuffle_in_time(
        model, x, LABELS, verbose=0
    ),
    "gradient_agreement": lambda model, x: analysis.gradient_agreement(
        model, x, LABELS, loss="mse"
    ),
    "independence": lambda model, x: analysis.independence(
        model, x, LABELS, loss="mse"
    ),
    "FiringRate": in_fit(callbacks.FiringRate),
    "AccuracyOverTime": in_fit(lambda x: callbacks.AccuracyOverTime(x, LABELS)),
    "GradientAgreement": in_fit(lambda x: callbacks.GradientAgreement(x, LABELS)),
    "step": lambda model, x: model.step(x),
    "predict": lambda model, x: model.predict(x, verbose=0),
    "predict_on_batch": lambda model, x: model.predict_on_batch(x),
    "fit": lambda model, x: helpers.compiled(model).fit(x, LABELS, verbose=0),
}
WRONG_X = {
    "None": (None, "must be a tensor or an array. Received: None"),
    "a number": (
        5,
        r"must be arrays or tensors. Received: 5 of type int. Convert lists of numbers "
        r"with np.asarray",
    ),
    "a scalar": (np.float32(1), "must be arrays or tensors. Received: .*float32"),
    "a list": (
        [[0.5] * 6],
        "must be arrays or tensors. Received: 0.5 of type float.*np.asarray",
    ),
    "text": ("x", "must be arrays or tensors. Received: 'x' of type str"),
    "no tensor": ([], "has 1 input, named .* Received: 0 tensors"),
    "one sample without batch": (
        ZEROS[0],
        r"must have shape \(batch, 6\).* Received: .*shape \(6,\)",
    ),
    "another shape": (
        ZEROS[:, :5],
        r"must have shape \(batch, 6\).* Received: .*shape \(10, 5\)",
    ),
    "another rank": (
        ZEROS[:, None, None],
        r"must have shape \(batch, 6\).* Received: .*shape \(10, 1, 1, 6\)",
    ),
    "complex": (
        ZEROS.astype("complex64"),
        "must hold real numbers. Received: an array of dtype complex64",
    ),
    "strings": (
        ZEROS.astype("U"),
        "must hold real numbers. Received: an array of dtype <U32",
    ),
    "objects": (
        np.array([[None] * 6]),
        "must hold real numbers. Received: an array of dtype object",
    ),
    "symbolic": (keras.KerasTensor((None, 6)), "a symbolic tensor|KerasTensor"),
}


@pytest.mark.parametrize(("x", "message"), WRONG_X.values(), ids=WRONG_X.keys())
def test_an_x_that_does_not_fit_is_an_error_wherever_it_is_taken(x, message):
    model = spiking(
        keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(4),
                LIF(name="lif"),
                keras.layers.Dense(3),
            ]
        )
    )
    for use in TAKING_X.values():
        with pytest.raises(ValueError, match=message):
            use(model, x)


@pytest.mark.parametrize(
    "use", ["describe", "independence", "FiringRate", "predict", "fit"]
)
def test_an_x_without_samples_is_an_error(use):
    with pytest.raises(
        ValueError,
        match=r"`x` must have samples, at least one, and the same number .*Received: 0 "
        r"samples",
    ):
        TAKING_X[use](spiking(), ZEROS[:0])


def test_inputs_with_different_numbers_of_samples_are_an_error():
    with pytest.raises(
        ValueError,
        match=r"the same number in all arrays. Received: 10 samples, 9 samples",
    ):
        rsnn.describe(spiking(two_inputs()), [ZEROS, ZEROS[:9]])


# Arguments of functions.
TWO_NAMES = np.array(["soft", "multi"])
RECORDING = rsnn.events.Events(*np.array([[0, 5], [7, 6], [1, 0], [30, 40]]))
PLAIN = functools.cache(
    lambda: keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(3)]
    )
)
OPTIONS = {
    "step_mode": lambda value: spiking(step_mode=value),
    "gradient": lambda value: spiking(gradient=value),
    "reset": lambda value: LIF(reset=value),
    "surrogate": lambda value: LIF(surrogate=value),
    "role": lambda value: rsnn.LayerKind(role=value),
    "split_by": lambda value: rsnn.events.event_frames(
        RECORDING, 2, value, (8, 8), (4, 4)
    ),
    "verbose": lambda value: rsnn.fold_batch_normalization(PLAIN(), verbose=value),
    "layer": lambda value: analysis.raster(spiking(), ZEROS, value),
    "data_format": lambda value: rsnn.import_nir("network.nir", 4, data_format=value),
    "format": lambda value: rsnn.export_step(spiking(), "model", format=value),
    "name": rsnn.models.load_pretrained,
    "labels": lambda value: rsnn.metrics.AnytimeAccuracy(2, labels=value),
    "layer_names": lambda value: rsnn.models.add_branches(spiking(), value),
}


@pytest.mark.parametrize(
    "value",
    [TWO_NAMES, np.array("soft"), ops.ones((2,)), 0.5, "x", ["soft"], {}],
    ids=repr,
)
def test_a_choice_that_is_unknown_or_no_string_is_an_error_that_names_it(value):
    for name, use in OPTIONS.items():
        with pytest.raises(
            (TypeError, ValueError), match=f"`{name}` must be "
        ) as raised:
            use(value)
        assert_says(raised, f"{name}={value!r}")


PATHS = {
    "import_nir": ("path", lambda path: rsnn.import_nir(path, 4)),
    "export_nir": ("path", lambda path: rsnn.export_nir(spiking(), path)),
    "export_step": ("filepath", lambda path: rsnn.export_step(spiking(), path)),
    "export": ("filepath", lambda path: spiking().export(path)),
    "save": ("filepath", lambda path: spiking().save(path)),
    "read_aedat": ("path", rsnn.events.read_aedat),
    "write_aedat": ("path", lambda path: rsnn.events.write_aedat(path, RECORDING)),
    "read_arrays": ("path", rsnn.events.read_arrays),
    "read_nmnist": ("path", rsnn.events.read_nmnist),
    "read_aedat3": ("path", rsnn.events.read_aedat3),
    "read_prophesee": ("path", rsnn.events.read_prophesee),
    "read_boxes": ("path", rsnn.events.read_boxes),
    "HeidelbergFile": ("path", rsnn.events.HeidelbergFile),
}


@pytest.mark.parametrize("value", [None, 5, b"model", ["model"]], ids=repr)
def test_a_path_that_is_none_is_an_error_that_names_it(value):
    for name, use in PATHS.values():
        with pytest.raises(
            TypeError, match=f"^`{name}` must be a string or a path"
        ) as raised:
            use(value)
        assert_says(raised, f"{name}={value!r} of type {type(value).__name__}")


@pytest.mark.runs_once
def test_a_path_that_is_empty_is_an_error_that_names_it():
    for name, use in PATHS.values():
        with pytest.raises(
            ValueError,
            match=f"^`{name}` must be a path. Received: {name}='', an empty string",
        ):
            use("")


@pytest.mark.runs_once
def test_a_file_to_write_is_in_a_folder_that_exists_and_is_none(tmp_path):
    for write in (PATHS["export_nir"][1], PATHS["write_aedat"][1]):
        with pytest.raises(
            FileNotFoundError,
            match=r"`path` must be a file in a folder that exists. .* no folder "
            r"'.*/none'",
        ):
            write(tmp_path / "none" / "file")
        for folder in (tmp_path, "."):
            with pytest.raises(
                IsADirectoryError,
                match=r"`path` must be a file. Received: .*, which is a folder",
            ):
                write(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.runs_once
@pytest.mark.parametrize("writer", ["save_integers", "export_c", "to_checkpoint"])
def test_an_earlier_file_stays_whole_if_there_is_no_room_for_a_new_one(
    writer, tmp_path
):
    path = tmp_path / "net"
    if writer == "to_checkpoint":
        write = functools.partial(
            rsnn.models.to_checkpoint, rsnn.models.VGG11((32, 32, 3), width=1 / 64)
        )
    else:
        layers = [keras.Input((2,)), LIF(), keras.layers.Dense(3)]
        chip = rsnn.integer(
            rsnn.SpikingModel(keras.Sequential(layers), 2), verbose=False
        )
        write = (
            chip.save_integers
            if writer == "save_integers"
            else functools.partial(rsnn.export_c, chip)
        )
    write(path)
    earlier, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [5, ["logs"]], ids=repr)
def test_the_folder_of_histograms_is_a_path(value):
    with pytest.raises(TypeError, match=r"^`log_dir` must be a string or a path"):
        callbacks.FiringRate(ZEROS, log_dir=value)


WRONG_ARGUMENTS = {
    "momentum": (
        rsnn.layers.OnlineRenormalization,
        [(v, ValueError) for v in (-0.1, 1.1, math.nan)] + [("1", TypeError)],
    ),
    "affine": (rsnn.LayerKind, [(1, TypeError)]),
    "fan_out": (rsnn.LayerKind, [(1, TypeError)]),
    "normalization": (rsnn.LayerKind, [(True, TypeError)]),
    "timesteps": (
        lambda timesteps: callbacks.AccuracyOverTime(
            ZEROS, LABELS, timesteps=timesteps
        ),
        [(0, ValueError)],
    ),
    "threshold": (
        lambda threshold: callbacks.AccuracyOverTime(
            ZEROS, LABELS, threshold=threshold
        ),
        [(None, TypeError)],
    ),
    "verbose": (
        lambda verbose: rsnn.describe(spiking(), ZEROS, verbose),
        [("print", TypeError)],
    ),
    "shapes": (
        lambda shapes: rsnn.testing.check_cell(LIFCell(), shapes),
        [(v, TypeError) for v in (None, [], (5,), [None], [(2.0,)], np.ones(2))]
        + [([(0,)], ValueError)],
    ),
    "events": (
        lambda events: rsnn.events.event_frames(events, 2, "time", (8, 8), (4, 4)),
        [(None, TypeError), (ZEROS, TypeError)],
    ),
    "layer_names": (
        lambda layer_names: rsnn.models.add_branches(spiking(), layer_names),
        [(v, ValueError) for v in (None, ["lif", "lif"], [None], [["lif"]])],
    ),
    "distillation_losses": (
        lambda distillation_losses: rsnn.distillation.Distiller(
            spiking(), spiking(), distillation_losses
        ),
        [("x", TypeError), (None, TypeError)],
    ),
    "student": (
        lambda student: rsnn.distillation.Distiller(spiking(), student, []),
        [(None, TypeError)],
    ),
    "sample": (
        lambda sample: analysis.raster(spiking(), ZEROS, "lif").plot(sample),
        [("first", TypeError)],
    ),
}


@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_a_wrong_argument_is_an_error_that_names_it(name):
    use, values = WRONG_ARGUMENTS[name]
    for value, error in values:
        with pytest.raises(error, match=f"^`{name}` must be ") as raised:
            use(**{name: value})
        assert_says(raised, "Received: ", name)


@pytest.mark.runs_once
@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (
            lambda v: LIF(threshold=v),
            (1e-320, 1e-45, 1e-39),
            r"`threshold` must be > 0 and finite in float32, too.*is 0.0 there",
        ),
        (
            lambda v: LIF(threshold=v),
            (1e300, 10**39),
            r"`threshold` must be > 0 and finite in float32, too.*is inf there",
        ),
        (
            lambda v: LIF(decay=v),
            (1 - 1e-9,),
            r"`decay` must be >= 0 and < 1 .*in float32, too.*which is 1\.0 "
            r"there.*time constant",
        ),
        (
            lambda v: LIF(reset="hard", v_reset=v),
            (-1e300, 1 - 1e-9),
            r"`v_reset` must be (< 1\.0 and )?finite in float32, too",
        ),
        (
            lambda v: rsnn.surrogates.Gaussian(sigma=v),
            (1e-300, 1e300),
            r"`sigma` must be > 0 and finite in float32, too",
        ),
        (
            lambda v: LIF(threshold=v),
            (10**400, 10**5000),
            r"`threshold` must be > 0 and finite. Received.*integer of \d+ bits",
        ),
        (
            lambda v: spiking(mask_value=v),
            (10**400, 1e300),
            r"`mask_value` must be .*finite",
        ),
        (
            lambda v: spiking(timesteps=v),
            (10**400, 10**5000, 2**63),
            r"`timesteps` must be an integer of 64 bits",
        ),
        (
            lambda v: rsnn.metrics.AnytimeAccuracy(v),
            (10**30,),
            r"`timesteps` must be an integer of 64 bits.*SpikingModel",
        ),
        (
            lambda v: rsnn.metrics.AnytimeAccuracy(v),
            (10**9, 10_001),
            r"`timesteps` must be at most 10000",
        ),
        (
            lambda v: rsnn.layers.BernoulliEncoder(seed=v),
            (10**400, -(2**63) - 1),
            r"`seed` must be an integer of 64 bits",
        ),
        (
            lambda v: checks.one_of("reset", v, ("soft",)),
            (10**5000,),
            r"`reset` must be one of.*an integer of 16610 bits",
        ),
        (
            lambda v: rsnn.events.event_frames(RECORDING, 2, "time", (v, 4), (4, 4)),
            (10**400,),
            r"`sensor_shape\[0\]` must be an integer of 64 bits",
        ),
        (
            lambda v: rsnn.describe(spiking(), v, verbose=False),
            (10**5000,),
            "must be arrays or tensors. Received: an integer of",
        ),
    ],
)
def test_numbers_that_are_too_large_or_too_small_are_errors_that_name_the_argument(
    make, values, message
):
    for value in values:
        with pytest.raises(ValueError, match=message):
            make(value)


OUTPUTS = np.zeros((10, 2, 3), "float32")


@pytest.mark.parametrize(
    "make",
    [lambda: rsnn.metrics.AnytimeAccuracy(2), rsnn.metrics.HeadAccuracy],
    ids=["steps", "head"],
)
def test_metrics_refuse_labels_and_outputs_that_do_not_fit(make):
    make().update_state(LABELS, OUTPUTS)
    for labels in (LABELS[:9], np.int64(0), np.eye(4)[LABELS]):
        with pytest.raises(
            ValueError,
            match=r"`y_true`, the labels, must have the shape \(10.*Received: shape",
        ):
            make().update_state(labels, OUTPUTS)
    with pytest.raises(
        ValueError, match=r"`y_pred` must be .*Received: shape \(10, 3\)"
    ):
        make().update_state(LABELS, OUTPUTS[:, 0])


def test_steps_are_counted_only_of_numbers():
    with pytest.raises(
        TypeError,
        match=r"`y_true` must be a tensor or an array of numbers. Received: "
        r"y_true=None",
    ):
        rsnn.metrics.AnytimeAccuracy(2).update_state(None, OUTPUTS)
    with pytest.raises(
        TypeError,
        match=r"`y_pred` must be a tensor or an array of numbers. Received: "
        r"y_pred=None",
    ):
        rsnn.losses.TET("mse")(LABELS, None)


@pytest.mark.parametrize("head", [2, -3])
def test_a_head_that_is_not_there_is_an_error(head):
    with pytest.raises(
        ValueError, match=rf"have the head={head}. Received: shape \(10, 2, 3\)"
    ):
        rsnn.metrics.HeadAccuracy(head).update_state(LABELS, OUTPUTS)


def test_events_that_are_not_a_recording_are_not_written(tmp_path):
    with pytest.raises(
        TypeError,
        match=r"`events` must be an Events. Received: events=None .*read_aedat",
    ):
        rsnn.events.write_aedat(tmp_path / "recording.aedat", None)
    assert list(tmp_path.iterdir()) == []


# Training.
def test_rate_training_with_renorm_is_an_error():
    network = keras.Sequential(
        [
            keras.Input((6,)),
            LIF(),
            keras.layers.BatchNormalization(renorm=True, name="norm"),
            LIF(),
            keras.layers.Dense(3),
        ]
    )
    x, y = helpers.data()
    model = helpers.compiled(spiking(network))
    model.evaluate(x, y, verbose=0)
    with pytest.raises(ValueError, match="renorm") as raised:
        model.fit(x, y, verbose=0)
    assert_says(raised, "'norm'", "renorm=True", "renorm=False")


# What is allowed and puzzles.
def warned_by(model):
    """The warnings of a model in training and inference."""
    model = helpers.compiled(model, metrics=["accuracy"])
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
        if "trained outside of a SpikingModel" in message
    ]
    assert "keras_ratesnn.SpikingModel(network, timesteps=4)" in first
    assert first not in messages[1]


def test_only_training_warns_of_one_time_step(nothing_warned_of_yet):
    x, y = helpers.data()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*SpikingModel")
        network = mlp()
        network.predict(x, verbose=0)
        model = helpers.compiled(spiking(saved_and_loaded(network)))
        model.fit(x, y, verbose=0)
        saved_and_loaded(model).evaluate(x, y, verbose=0)
        rsnn.describe(model, x)
        plain = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
        )
        helpers.compiled(rsnn.spikify(plain, 3, calibrate=x, verbose=False)).fit(
            x, y, verbose=0
        )


def of_shape(*shape):
    inputs = keras.Input(shape, name="events")
    return keras.Model(
        inputs, keras.layers.Dense(3)(LIF()(keras.layers.Flatten()(inputs)))
    )


@pytest.mark.parametrize("shape", [(3, 6), (3, 3), (3, 8, 8, 2)])
def test_a_first_axis_as_long_as_time_is_pointed_out(shape):
    with pytest.warns(UserWarning, match="leave it out of the network") as warned:
        spiking(of_shape(*shape))
    (message,) = [str(each.message) for each in warned]
    assert "'events'" in message
    assert f"keras.Input({shape[1:]})" in message
    assert (
        f"every step sees the whole data (batch, {', '.join(map(str, shape))})"
        in message
    )


@pytest.mark.parametrize("shape", [(3,), (4, 6), (3, 3, 1), (None, 3)], ids=str)
def test_a_first_axis_that_is_not_time_is_not_pointed_out(shape):
    inputs = keras.Input(shape)
    network = keras.Model(inputs, LIF()(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spiking(network)
        spiking(of_shape(1, 6), timesteps=1)


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "a_model"])
def test_formats_that_cannot_be_loaded_are_not_saved(name, tmp_path):
    with pytest.raises(ValueError, match=r"`filepath` must end in .keras") as raised:
        spiking().save(tmp_path / name)
    assert_says(raised, name, "save_weights")
    assert not (tmp_path / name).exists()


# Weights that are not finite.
def break_weight(variable, value=math.nan):
    weights = helpers.to_numpy(variable).copy()
    weights.flat[0] = value
    variable.assign(weights)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_fit_refuses_weights_that_are_not_finite_and_names_them(value):
    model = helpers.compiled(spiking())
    broken = model.trainable_variables[2]
    break_weight(broken, value)
    with pytest.raises(ValueError, match="NaN or infinite") as raised:
        model.fit(*helpers.data(), verbose=0)
    assert_says(raised, broken.path, "learning rate", "TerminateOnNaN")
    assert model.trainable_variables[0].path not in str(raised.value)


def test_fit_adds_no_warnings_to_those_of_keras():
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    assert warned_by(spiking()) - warned_by(plain) == set()


def test_fit_checks_weights_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_finite(spiking().variables)


def test_fit_checks_weights_on_their_device(monkeypatch):
    fetched = []
    convert = ops.convert_to_numpy
    monkeypatch.setattr(
        ops, "convert_to_numpy", lambda x: (fetched.append(x), convert(x))[1]
    )
    check_finite(spiking().variables)
    check_finite([])
    assert fetched == []


def losses_with_a_broken_weight(model, index=0):
    x, y = helpers.data()
    model = helpers.compiled(model)
    before = model.train_on_batch(x, y)
    break_weight(model.trainable_variables[index])
    return float(before), float(model.train_on_batch(x, y))


@pytest.mark.parametrize(
    ("gradient", "reset", "decay"),
    [
        ("rate", "soft", 0.2),
        ("rate", "hard", 0.0),
        ("bptt", "soft", 0.0),
        ("bptt", "hard", 0.2),
    ],
)
def test_a_weight_that_turns_nan_in_training_makes_the_loss_nan(gradient, reset, decay):
    before, after = losses_with_a_broken_weight(
        spiking(mlp(reset=reset, decay=decay), gradient=gradient)
    )
    assert math.isfinite(before)
    assert math.isnan(after)


@pytest.mark.parametrize("surrogate", rsnn.surrogates.BY_NAME)
def test_a_weight_that_turns_nan_makes_the_loss_nan_with_every_surrogate(surrogate):
    for gradient in ("rate", "bptt"):
        model = spiking(mlp(surrogate=surrogate, detach_reset=False), gradient=gradient)
        break_weight(model.trainable_variables[0])
        loss, _ = helpers.loss_and_gradients(model, *helpers.data())
        assert math.isnan(loss)


FOLLOWERS = {
    "batch normalisation": keras.layers.BatchNormalization,
    "max pooling": lambda: keras.layers.MaxPooling2D(2),
    "average pooling": lambda: keras.layers.AveragePooling2D(2),
    "another neuron": LIF,
}


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("after", FOLLOWERS)
def test_a_nan_weight_shows_in_the_output_through_all_layers(gradient, after):
    layer = FOLLOWERS[after]()
    network = keras.Sequential(
        [
            *(
                keras.Input((4, 4, 1)),
                keras.layers.Conv2D(2, 3, padding="same"),
                LIF(),
                layer,
                LIF(),
                keras.layers.Flatten(),
            ),
            keras.layers.Dense(3),
        ]
    )
    model = spiking(network, gradient=gradient)
    break_weight(model.trainable_variables[0])
    loss, _ = helpers.loss_and_gradients(model, *helpers.data(shape=(4, 4, 1)))
    assert math.isnan(loss)


def test_a_nan_in_one_frame_shows_in_the_loss():
    x, y = helpers.data(shape=(3, 6))
    x[2, 0, 1] = math.nan
    for reset in ("soft", "hard"):
        for gradient in ("rate", "bptt"):
            loss, _ = helpers.loss_and_gradients(
                spiking(mlp(reset=reset), gradient=gradient), x, y
            )
            assert math.isnan(loss)


def test_an_infinite_weight_shows_in_the_loss():
    model = spiking()
    break_weight(model.trainable_variables[0], math.inf)
    loss, _ = helpers.loss_and_gradients(model, *helpers.data())
    assert not math.isfinite(loss)


def test_the_loss_is_finite_for_large_finite_weights():
    model = spiking(gradient="rate")
    model.trainable_variables[0].assign(ops.full((6, 8), 1e30))
    loss, gradients = helpers.loss_and_gradients(model, *helpers.data())
    assert math.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("value", [0, 1, "x", np.array(["auto", "auto"])], ids=str)
def test_jit_compile_is_checked_when_a_model_is_compiled(value):
    model = spiking()
    for compiled_model in (
        model,
        rsnn.distillation.Distiller(
            spiking(), model, keras.distillation.LogitsDistillation()
        ),
    ):
        with pytest.raises(
            ValueError,
            match=r"`jit_compile` must be True, False or 'auto'\. Received: "
            r"jit_compile=",
        ):
            compiled_model.compile("sgd", "mse", jit_compile=value)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="only TensorFlow has tensors of texts",
)
def test_texts_are_inputs_where_a_layer_wants_them():
    words = keras.layers.TextVectorization(
        10, output_sequence_length=5, vocabulary=["a", "b", "c"]
    )
    inputs = keras.Input((), dtype="string")
    x = LIF()(keras.layers.Embedding(10, 4)(words(inputs)))
    model = spiking(
        keras.Model(
            inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x))
        )
    )
    texts = np.array(["a b", "c"], dtype=object)
    assert model.predict(texts, verbose=0).shape == (2, 3)
    assert model.step(ops.convert_to_tensor(texts)).shape == (2, 3)

"""What layers of neurons and their cells have in common: arguments, configs."""

import inspect

import keras
import numpy as np
import pytest
from helpers import assert_close, compiled, data, in_threads, spiking
from keras import layers

import keras_ratesnn as rsnn

WITHOUT = [("decay_input", "IF"), ("reset_delay", "ALIF")]


@pytest.mark.parametrize(("argument", "layer"), WITHOUT)
def test_neurons_without_an_argument_name_those_that_have_it(argument, layer):
    message = f" has no argument `{argument}`.*{argument}=True.*LIF"
    for name in (layer, f"{layer}Cell"):
        with pytest.raises(TypeError, match=f"^{name}{message}"):
            getattr(rsnn.layers, name)(**{argument: True})


@pytest.mark.parametrize("kind", ["LIF", "IF", "ParametricLIF", "ALIF", "CuBaLIF"])
def test_a_config_makes_the_same_layer(kind):
    """Numbers of NumPy are saved as those of Python; configs of older versions lack the
    last arguments."""
    cls = getattr(rsnn.layers, kind)
    arguments = {
        "threshold": np.float32(0.5),
        "reset": "hard",
        "v_reset": np.int64(-1),
        "detach_reset": False,
        "learn_threshold": True,
        "initial_membrane": 0.25,
    }
    late = [
        name for name in ("decay_input", "reset_delay") if (name, kind) not in WITHOUT
    ]
    made = cls(
        surrogate=rsnn.surrogates.ATan(3.0),
        name="mine",
        dtype="mixed_bfloat16",
        trainable=False,
        **arguments,
        **dict.fromkeys(late, True),
    )
    config = made.get_config()
    again = cls.from_config(config)
    assert again.get_config() == config
    assert {name: getattr(again, name) for name in arguments} == arguments
    assert [type(config[name]) for name in ("threshold", "v_reset")] == [float, float]
    assert repr(again.surrogate) == "ATan(alpha=3.0)"
    assert (again.name, again.compute_dtype) == ("mine", "bfloat16")
    assert not again.trainable
    old = {key: value for key, value in config.items() if key not in late}
    for name in late:
        assert getattr(again, name) is True
        assert getattr(cls.from_config(old), name) is False


ORDER = [
    "timesteps",
    "order",
    "levels",
    "decay",
    "threshold",
    "decay_input",
    "synaptic_decay",
    "adaptation_decay",
    "adaptation",
    "per_channel",
    "axis",
    "decay_bits",
    "mask",
    "normalize",
    "round_half_up",
    "reset",
    "v_reset",
    "detach_reset",
    "reset_delay",
    "surrogate",
    "learn_decay",
    "learn_synaptic_decay",
    "learn_threshold",
    "initial_membrane",
    "threshold_stabilizer",
]
"""The arguments of neurons. Those of the first line may be given by position, the
others by name alone."""

CELLS = [
    name
    for name in rsnn.layers.__all__
    if name.endswith("Cell") and not name.startswith("Recurrent")
]


def arguments_of(name):
    signature = inspect.signature(getattr(rsnn.layers, name))
    *arguments, last = signature.parameters.values()
    assert last.name == "kwargs"
    return arguments


@pytest.mark.runs_once
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_and_its_layer_have_the_same_arguments_in_the_order_of_all_neurons(name):
    arguments = arguments_of(name)
    places = [ORDER.index(argument.name) for argument in arguments]
    assert places == sorted(places)
    for place, argument in zip(places, arguments, strict=True):
        is_by_name = argument.kind is argument.KEYWORD_ONLY
        assert is_by_name == (place > ORDER.index("threshold"))
    if name != "NeuronCell":
        more = ["threshold_stabilizer"] if name == "LIFCell" else []
        of_layer = arguments_of(name.removesuffix("Cell"))
        assert of_layer[: len(arguments)] == arguments
        assert [argument.name for argument in of_layer[len(arguments) :]] == more


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="other backends differentiate by functions without a state",
)
def test_models_of_two_threads_train_like_each_alone():
    """The derivative of a cell without a written one is a forward-mode derivative,
    which PyTorch has one at a time of."""

    def trained():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        network = keras.Model(
            inputs, layers.Dense(3)(rsnn.layers.CuBaLIF()(layers.Dense(5)(inputs)))
        )
        return compiled(spiking(network), jit_compile=False)

    def train(model):
        for _ in range(10):
            model.train_on_batch(x, y)

    x, y = data()
    models = [trained() for _ in range(3)]
    train(models[0])
    in_threads(train, [(model,) for model in models[1:]])
    for model in models[1:]:
        assert_close(models[0].get_weights(), model.get_weights(), rtol=0)

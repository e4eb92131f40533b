"""What layers of neurons and their cells have in common: arguments, configs."""

import keras
import numpy as np
import pytest
from helpers import assert_close, chain, compiled, data, in_threads, only_on, spiking
from keras import layers
from library_neurons import STEPPING, layer_class, taken

import keras_ratesnn as rsnn

WITHOUT = [("decay_input", "IF"), ("reset_delay", "ALIF")]
LATE = {"decay_input": True, "reset_delay": True}
NUMPY = {"threshold": np.float32(0.5), "v_reset": np.int64(-1)}
OTHERS = {
    "reset": "hard",
    "detach_reset": False,
    "learn_threshold": True,
    "initial_membrane": 0.25,
}


@pytest.mark.parametrize(("argument", "layer"), WITHOUT)
def test_neurons_without_an_argument_name_those_that_have_it(argument, layer):
    message = f" has no argument `{argument}`.*{argument}=True.*LIF"
    for name in (layer, f"{layer}Cell"):
        with pytest.raises(TypeError, match=f"^{name}{message}"):
            getattr(rsnn.layers, name)(**{argument: True})


@pytest.mark.parametrize("kind", [name for name in STEPPING if taken(name, LATE)])
def test_a_config_makes_the_same_layer(kind):
    """Numbers of NumPy are saved as those of Python; configs of older versions lack the
    last arguments."""
    cls, late = layer_class(kind), taken(kind, LATE)
    arguments = taken(kind, {**NUMPY, **OTHERS})
    made = cls(
        surrogate=rsnn.surrogates.ATan(3.0),
        name="mine",
        dtype="mixed_bfloat16",
        trainable=False,
        **arguments,
        **late,
    )
    config = made.get_config()
    again = cls.from_config(config)
    assert again.get_config() == config
    assert {name: getattr(again, name) for name in arguments} == arguments
    assert {type(config[name]) for name in taken(kind, NUMPY)} == {float}
    assert repr(again.surrogate) == "ATan(alpha=3.0)"
    assert (again.name, again.compute_dtype) == ("mine", "bfloat16")
    assert not again.trainable
    old = {key: value for key, value in config.items() if key not in late}
    for name in late:
        assert getattr(again, name) is True
        assert getattr(cls.from_config(old), name) is False


@only_on("torch", "other backends differentiate by functions without a state")
def test_models_of_two_threads_train_like_each_alone():
    """The derivative of a cell without a written one is a forward-mode derivative,
    which PyTorch has one at a time of."""

    def trained():
        keras.utils.set_random_seed(0)
        network = chain(layers.Dense(5), rsnn.layers.CuBaLIF(), layers.Dense(3))
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

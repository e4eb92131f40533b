"""spikify sees inside layers that are compositions of layers: their activations become
neurons, and nothing else changes."""

import functools

import keras
import numpy as np
import pytest
from helpers import assert_close, chain, registered, saved_and_loaded, to_numpy
from keras import layers, ops

from keras_ratesnn import spikify
from keras_ratesnn.layers import IF
from tests.conversion.test_spikify import activations, replaced, stays

# These layers are built when they are called.
pytestmark = [
    pytest.mark.runs_once,
    pytest.mark.filterwarnings("ignore:`build\\(\\)` was called on layer:UserWarning"),
]

X = np.random.default_rng(0).random((4, 6), dtype="float32")


class Composition(layers.Layer):
    """A layer with the config of its width."""

    def __init__(self, width=6, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.supports_masking = True

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@registered
class Block(Composition):
    """Two layers with a shortcut; one activation is an argument and one a function."""

    def __init__(self, width=6, **kwargs):
        super().__init__(width, **kwargs)
        # Some layers keep the function that they call.
        self.activation = keras.activations.gelu
        self.first = layers.Dense(width, activation="relu", name="first")
        self.normalize = layers.BatchNormalization(name="normalize")
        self.drop = layers.Dropout(0.5, name="drop")

    def call(self, inputs, training=None):
        x = self.normalize(self.first(inputs), training=training)
        return self.activation(inputs + self.drop(x, training=training))


class Outer(Composition):
    """A composition of compositions that takes and returns structures."""

    def __init__(self, width=6, **kwargs):
        super().__init__(width, **kwargs)
        self.one, self.two = Block(width, name="one"), Block(width, name="two")

    def call(self, inputs, scale=1.0):
        return {"deep": self.two(self.one(inputs["a"])) * scale, "shallow": inputs["b"]}


def network_of(hidden):
    network = chain(hidden, layers.Dense(3, name="outputs"))
    for weight in network.weights:
        weight.assign(np.random.default_rng(1).uniform(0.2, 1.0, weight.shape))
    return network


def converted(network, **kwargs):
    return spikify(network, 2, verbose=False, **kwargs)


def nested(inputs):
    outputs = Outer(name="outer")({"a": inputs, "b": inputs}, scale=2.0)
    return outputs["deep"] + outputs["shallow"]


def in_models(inputs):
    inner = keras.Sequential([keras.Input((6,)), Block(name="block")], name="inner")
    return Block(name="second")(inner(inputs))


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    ("hidden", "paths"),
    [
        (Block(name="block"), ["first"]),
        (nested, ["one/first", "two/first"]),
        # Also where models are nested; layers of one name are told by their paths.
        (in_models, ["block/first", "second/first"]),
    ],
)
def test_activations_inside_compositions_become_neurons(hidden, paths):
    model = converted(network_of(hidden))
    assert activations(model) == ["relu", "gelu"] * len(paths)
    names = [name for name in replaced(model) if name.endswith("first")]
    for name, path in zip(names, paths, strict=True):
        assert name.endswith(path)
    assert not model.spikify_report.kept
    model.compile("sgd", "mse")
    assert np.isfinite(model.fit(X, np.zeros((4, 3)), verbose=0).history["loss"]).all()


def test_names_weights_and_frozen_layers_are_kept_and_the_original_is_not_changed():
    block = Block(name="block")
    network = network_of(block)
    block.first.trainable = False
    calls, before = len(block.first._inbound_nodes), network.get_weights()
    inner = converted(network).network.get_layer("block")
    names = [layer.name for layer in inner.layers[1:4]]
    assert names == ["first", "first_neuron", "normalize"]
    assert isinstance(inner.get_layer("first_neuron"), IF)
    for name in ("first", "normalize"):
        new, old = inner.get_layer(name), getattr(block, name)
        assert_close(new.get_weights(), old.get_weights(), rtol=0)
        assert new.trainable == old.trainable
        assert new is not old
    assert_close(network.get_weights(), before, rtol=0)
    assert len(block.first._inbound_nodes) == calls


@pytest.mark.on_each_backend
@pytest.mark.parametrize("training", [False, True])
def test_a_composition_written_as_a_graph_does_what_it_did(training):
    network = network_of(nested)
    # One neuron only, so that the rest can be compared.
    rest = converted(
        network_of(lambda x: layers.ReLU(name="mark")(nested(x))),
        neuron=lambda op: IF() if op.name == "mark" else None,
    )
    assert not rest.spikify_report.replaced[1:]
    for layer in [*network._flatten_layers(), *rest.network._flatten_layers()]:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    part = keras.Model(rest.network.inputs, rest.network.get_layer("mark").input)
    wanted = keras.Model(network.inputs, network.get_layer("outputs").input)
    outputs, expected = part([X], training=training), wanted([X], training=training)
    np.testing.assert_allclose(to_numpy(outputs), to_numpy(expected), rtol=1e-5)


def test_a_composition_called_with_several_sizes_is_written_once():
    head = Shared(name="head")
    small, large = keras.Input((4, 4, 2)), keras.Input((8, 8, 2))
    pooled = [layers.GlobalAveragePooling2D()(head(x)) for x in (small, large)]
    network = keras.Model([small, large], layers.Dense(2)(layers.Concatenate()(pooled)))
    model = converted(network)
    assert replaced(model) == ["head/conv"]
    ones = [np.ones((2, 4, 4, 2), "float32"), np.ones((2, 8, 8, 2), "float32")]
    assert model.predict(ones, verbose=0).shape == (2, 2)


class Shared(Composition):
    def __init__(self, width=3, **kwargs):
        super().__init__(width, **kwargs)
        self.conv = layers.Conv2D(width, 3, activation="relu", name="conv")

    def call(self, inputs):
        return self.conv(inputs)


def test_a_lambda_becomes_a_neuron_although_it_cannot_be_copied():
    function = layers.Lambda(lambda x: keras.activations.silu(x), name="lambda")
    assert activations(converted(network_of(function))) == ["silu"]


def assert_is_saved(model):
    loaded = saved_and_loaded(model)
    expected = model.predict(X, verbose=0)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    return loaded


@pytest.mark.on_each_backend
def test_a_composition_is_converted_in_mixed_precision_and_saved():
    keras.config.set_dtype_policy("mixed_bfloat16")
    block = Block(name="block", trainable=False)
    model = assert_is_saved(converted(network_of(block), calibrate=X))
    assert not model.network.get_layer("block").trainable


class Derived(Block):
    """Its config has more than its constructor takes, as that of some layers of
    KerasHub."""

    def get_config(self):
        return {**super().get_config(), "derived": 2 * self.width}


class Uncopied(Block):
    def get_config(self):
        raise NotImplementedError("none")


class OuterOfUncopied(Outer):
    def __init__(self, width=6, **kwargs):
        super().__init__(width, **kwargs)
        self.two = Uncopied(width, name="two")


def test_layers_inside_need_not_be_copied_by_their_config():
    def hidden(inputs):
        x = Derived(name="derived")(inputs)
        return OuterOfUncopied(name="outer")({"a": x, "b": x})["deep"]

    assert activations(converted(network_of(hidden))) == ["relu", "gelu"] * 3


# What stays, and why.
class OtherInTraining(Block):
    def call(self, inputs, training=None):
        outputs = super().call(inputs, training=training)
        return outputs if training else self.first(inputs)


class FixedNormalization(Block):
    def call(self, inputs, training=None):
        return self.normalize(self.first(inputs), training=False)


class OwnWeights(Block):
    def build(self, input_shape):
        # A list could not be added to a tuple.
        shape = input_shape[1:] + (1,)  # noqa: RUF005
        self.scale = self.add_weight(shape=shape[-1:], name="scale")

    def call(self, inputs, training=None):
        return self.scale * self.first(inputs)


class UncopiedWeights(OwnWeights, Uncopied):
    pass


class Around(Composition):
    """A layer of a class inside of another."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.inner = kind, kind(name="inner")

    def call(self, inputs):
        return self.inner(inputs)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


class OwnCall(Block):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


def calling(function):
    """A class of blocks that call a function of themselves and their inputs."""
    return type("Calling", (Block,), {"call": function})


def needs_numbers(self, inputs):
    if isinstance(inputs, keras.KerasTensor):
        raise TypeError("no numbers")
    return self.first(inputs)


def builds_in_training(self, inputs, training=None):
    return self.normalize(inputs) if training else self.first(inputs)


def masked(name):
    block, mean = Block(3, name=name), layers.GlobalAveragePooling1D()
    return lambda x: mean(block(layers.Masking()(layers.Reshape((2, 3))(x))))


def scaled_twice(name, **scale):
    outer = Outer(name=name)

    def hidden(x):
        pair = {"a": x, "b": x}
        return outer(pair, **scale)["deep"] + outer(pair, scale=3.0)["deep"]

    return hidden


def of_two_ranks(name):
    layer = calling(lambda self, inputs: keras.activations.silu(inputs))(name=name)
    return lambda x: layer(x) + layers.Flatten()(layer(layers.Reshape((2, 3))(x)))


OF_TRAINING = "it does something else in training"
OF_ITS_OWN = "it has weights or draws random numbers of its own"
INNER = f"its layer 'inner': {OF_ITS_OWN}"
ARGUMENTS = "it is called with other arguments each time"
ONES = calling(lambda self, inputs: ops.ones((1, 6)))
LISTED = calling(lambda self, inputs: [self.first(inputs)])
NEW = calling(lambda self, inputs: layers.Dense(6)(inputs))
KERNEL = calling(lambda self, inputs: self.first(inputs) @ self.first.kernel)
REGULARIZED = functools.partial(Block, activity_regularizer="l2")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (OtherInTraining, OF_TRAINING),
        (FixedNormalization, OF_TRAINING),
        (OwnWeights, OF_ITS_OWN),
        (functools.partial(Around, OwnWeights), INNER),
        (functools.partial(Around, UncopiedWeights), INNER),
        (OwnCall, "it has a `__call__` of its own"),
        (REGULARIZED, "it has an activity regularizer"),
        (masked, "its inputs have masks"),
        (scaled_twice, ARGUMENTS),
        (functools.partial(scaled_twice, scale=2.0), ARGUMENTS),
        (of_two_ranks, "it is called with inputs of other kinds each time"),
        (calling(needs_numbers), "its call cannot be traced: TypeError: no numbers"),
        (ONES, "its outputs do not depend on its inputs alone"),
        (LISTED, "its output is a list of one tensor"),
        (calling(builds_in_training), "its call adds losses or weights"),
        (NEW, "its call makes layers with weights"),
        (KERNEL, "its call uses weights of its own"),
    ],
)
def test_the_report_says_why_activations_inside_a_layer_stay(make, reason):
    def hidden(x):
        return layers.ReLU()(keras.tree.flatten(make(name="block")(x))[0])

    assert stays(converted(network_of(hidden))) == {
        "block": f"inside a layer: {reason}"
    }


class MakesResizing(Composition):
    """Resizes to the size of its input, which is `None` in a graph with open sizes,
    like the pyramid pooling of KerasHub."""

    def __init__(self, width=3, **kwargs):
        super().__init__(width, **kwargs)
        self.conv = layers.Conv2D(width, 1, activation="relu", name="conv")

    def call(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        mean = ops.mean(self.conv(inputs), axis=(1, 2), keepdims=True)
        return inputs + layers.Resizing(height, width)(mean)


def test_a_call_that_depends_on_open_sizes_stays_and_the_report_says_so():
    def images(block, shape):
        parts = layers.ReLU(name="mark"), block, layers.GlobalAveragePooling2D()
        return converted(chain(*parts, shape=shape))

    left = stays(images(MakesResizing(name="block"), (None, None, 3)))["block"]
    assert left.startswith("inside a layer: its call depends on sizes of its inputs")
    model = images(MakesResizing(name="block"), (4, 4, 3))
    assert replaced(model) == ["mark", "block/conv"]
    assert model.predict(np.ones((2, 4, 4, 3), "float32"), verbose=0).shape == (2, 3)
    # Sizes that do not matter may be open.
    assert not stays(images(Shared(name="head"), (None, None, 3)))


@registered
class DerivedWithWeights(Derived, OwnWeights):
    """It stays as it is, and its config has more than its constructor takes."""


def test_layers_with_more_in_their_config_than_their_constructor_takes_are_saved():
    network = network_of(lambda x: DerivedWithWeights(name="derived")(layers.ReLU()(x)))
    assert_is_saved(assert_is_saved(converted(network)))


class Forgetful(Composition):
    """It stays as it is, and its config lacks an argument, as those of some layers of
    keras-cv and KerasHub."""

    def __init__(self, biases=0, **kwargs):
        super().__init__(**kwargs)
        self.biases = biases

    def build(self, input_shape):
        for number in range(self.biases):
            self.add_weight(shape=(), name=f"bias{number}")

    def call(self, inputs):
        return keras.activations.gelu(inputs)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Forgetful(2, name="closed"), "Forgetful: .*a weight list of length 2"),
        (UncopiedWeights(name="closed"), "UncopiedWeights: .*none"),
    ],
)
def test_a_layer_that_its_config_does_not_make_again_is_an_error_that_names_it(
    layer, why
):
    network = network_of(lambda x: layer(layers.ReLU()(x)))
    message = rf"layer 'closed' of class {why}.*returns all arguments"
    with pytest.raises(ValueError, match=message):
        converted(network)


def test_without_activations_the_error_names_the_layers_that_may_hold_some():
    with pytest.raises(
        ValueError,
        match=r"not known: closed, it has weights or draws random numbers of its "
        r"own\.\nGive",
    ):
        converted(network_of(Forgetful(2, name="closed")))

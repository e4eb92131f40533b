"""Robustness: each attack is that of a loop by hand in NumPy, the model stays as it was, and masked gradients are named."""

import helpers
import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.analysis.accuracy.robustness import _checked_methods, _signs
from keras_ratesnn.layers import LIF

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
T = 3


def classifier(*first, features=6, timesteps=T, gradient="rate", **kwargs):
    """A model with the same weights on all backends, and moving statistics that are not the initial ones."""
    inputs = x = keras.Input((features,))
    for layer in (*first, layers.Dense(16), layers.BatchNormalization(name="norm")):
        x = layer(x)
    network = keras.Model(inputs, layers.Dense(3)(LIF(threshold=0.3)(x)))
    random = np.random.default_rng(0)
    for weight in (*network.trainable_variables, network.get_layer("norm").moving_mean):
        weight.assign(random.normal(0, 0.5, weight.shape))
    return rsnn.SpikingModel(network, timesteps, gradient, **kwargs)


def samples(model, shape=(6,), count=40):
    """Inputs from 0 to 1, and what the model takes them for: its accuracy is 1."""
    x = np.random.default_rng(0).uniform(size=(count, *shape)).astype("float32")
    return x, to_numpy(model(x)).argmax(axis=-1)


def robustness(model, x, y, epsilons=(0.1, 0.2), loss=LOSS, steps=2, verbose=0, **kwargs):
    return analysis.robustness(model, x, y, epsilons, loss=loss, steps=steps, verbose=verbose, **kwargs)


def test_attacks_are_those_of_a_loop_by_hand_in_the_units_of_the_inputs():
    # Bytes, which the network scales itself.
    model = classifier(layers.Rescaling(1 / 255), gradient="rate")
    x = np.random.default_rng(1).integers(0, 256, (20, 6)).astype("uint8")
    y = to_numpy(model(x)).argmax(axis=-1)
    y[:2] = (y[:2] + 1) % 3  # Wrong before any attack.
    methods = {"rate": "rate", "rate(windows=2)": rsnn.gradients.Rate(windows=2), "bptt": "bptt"}
    found = robustness(model, x, y, bounds=(0, 255), batch_size=16, step_size=0.5, seed=3)
    assert found.attacks == ("noise", *(f"{attack} by {name}" for name in methods for attack in ("FGSM", "PGD")))
    assert found.accuracy == 0.9
    assert found.samples == 20
    assert set(found.without_gradient.values()) == {0.0}

    clean = x.astype("float32")
    draws = [np.random.default_rng([3, number]) for number in (0, 1)]

    def drawn(draw):
        return np.concatenate([draw(random, (count, 6)) for random, count in zip(draws, (16, 4), strict=True)])

    def direction(method, points):
        model.gradient = method
        return np.sign(helpers.gradient_of(lambda x: LOSS(y, model(x, training=False)), [points])[0])

    def right(points):
        return to_numpy(model(points, training=False)).argmax(axis=-1) == y

    lost = []
    at_first = {name: direction(method, clean) for name, method in methods.items()}
    for far in (25.5, 51.0):

        def near(points, far=far):
            return np.clip(np.clip(points, clean - far, clean + far), 0, 255).astype("float32")

        begin = near(clean + far * drawn(lambda random, shape: random.uniform(-1, 1, shape)))
        corners = [near(clean + far * drawn(lambda random, shape: random.choice([-1, 1], shape))) for _ in range(2)]
        tried = [corners]
        for name, method in methods.items():
            first = near(begin + far / 2 * direction(method, begin))
            second = near(first + far / 2 * direction(method, first))
            tried += [[near(clean + far * at_first[name])], [begin, first, second]]
        lost.append([~np.all([right(points) for points in paths], axis=0) for paths in tried])
    before = right(clean)
    np.testing.assert_allclose(found.attacked.T, [[np.mean(before & ~of) for of in of_size] for of_size in lost])
    broken = [np.any(lost[0], axis=0), np.any([*lost[0], *lost[1]], axis=0)]
    np.testing.assert_allclose(found.robust, [np.mean(before & ~by_any) for by_any in broken])
    assert 0 < found.robust[1] < found.robust[0] < 0.9


def test_the_result_does_not_depend_on_the_method_of_the_model_nor_on_the_form_of_the_inputs_and_can_be_printed():
    model = classifier(gradient="bptt", step_mode="single")
    x, y = samples(model)
    helpers.compiled(model, loss=LOSS)
    results = []
    for model.gradient in ("rate", "bptt"):
        # One-hot labels, and the loss of the compiled model.
        results.append(robustness(model, x, y, gradients=["bptt"], loss=None))
    np.testing.assert_array_equal(results[0].attacked, results[1].attacked)
    named, loss = {model.inputs[0].name: x}, keras.losses.CategoricalCrossentropy(from_logits=True)
    one_hot = robustness(model, named, np.eye(3)[y], gradients=["bptt"], loss=loss)
    np.testing.assert_array_equal(one_hot.attacked, results[0].attacked)
    lines = str(one_hot).splitlines()
    assert lines[0] == f"{model.name}: 40 samples, 3 time steps, accuracy 1.0000"
    assert lines[-1].split() == ["all", "attacks", *(f"{share:.4f}" for share in one_hot.robust)]


def test_labels_may_be_binary():
    hidden = classifier().network
    model = rsnn.SpikingModel(keras.Model(hidden.inputs, layers.Dense(1)(hidden.layers[-1].input)), T)
    x = np.random.default_rng(0).uniform(size=(20, 6)).astype("float32")
    y = (to_numpy(model(x)) > 0.1).astype("int32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    found = [robustness(model, x, of, gradients=["bptt"], loss=loss, steps=1, threshold=0.1) for of in (y, y[:, 0])]
    assert found[0].accuracy == 1.0
    np.testing.assert_array_equal(found[0].attacked, found[1].attacked)


def test_methods_that_are_the_same_attack_once():
    names = [list(_checked_methods(classifier(timesteps=timesteps), None)) for timesteps in (1, 2, 3)]
    assert names == [["bptt"], ["rate", "bptt"], ["rate", "rate(windows=2)", "bptt"]]


def test_padding_stays_padding():
    model = classifier(layers.Rescaling(20.0, -2.0), features=1, timesteps=2)
    x = np.random.default_rng(0).uniform(0.01, 0.2, (40, 2, 1)).astype("float32")
    y = to_numpy(model(x)).argmax(axis=-1)
    # An attack makes zeros of small inputs, but no padding.
    padded = rsnn.SpikingModel(model.network, 3, mask_value=0.0)
    found = [
        robustness(of, inputs, y, epsilons=(0.05, 0.2), gradients=["bptt"], bounds=(0.0, 0.3))
        for of, inputs in ((model, x), (padded, np.pad(x, ((0, 0), (1, 0), (0, 0)))))
    ]
    fgsm = [index for index, name in enumerate(found[0].attacks) if name.startswith("FGSM")]
    np.testing.assert_array_equal(found[0].attacked[fgsm], found[1].attacked[fgsm])
    assert found[0].attacked[fgsm].min() < 1.0


def test_random_encoders_draw_the_same_spikes_for_all_attacks_and_keep_their_seeds():
    encoder = rsnn.layers.BernoulliEncoder(seed=1, dtype="mixed_bfloat16")
    model = classifier(encoder)
    x, y = np.random.default_rng(0).uniform(size=(20, 6)), np.arange(20) % 3
    seed = to_numpy(encoder.seed_generator.state.value)
    first, second = (robustness(model, x, y, gradients=["rate"]) for _ in range(2))
    np.testing.assert_array_equal(to_numpy(encoder.seed_generator.state.value), seed)
    np.testing.assert_array_equal(first.attacked, second.attacked)
    assert first.accuracy == np.mean(to_numpy(model(x)).argmax(axis=-1) == y)


def test_a_network_that_hides_its_gradient_is_reported():
    model = classifier(rsnn.layers.LatencyEncoder())
    x, y = samples(model)
    with pytest.warns(UserWarning, match="masked.*gradient by bptt is zero for 100% of the samples; noise finds more errors"):
        found = robustness(model, x, y, epsilons=[0.5], gradients=["bptt"], steps=4)
    # The random start of PGD is one more point.
    assert found.attacked[1] == 1.0
    assert found.robust[0] <= found.attacked[0] < 0.7
    assert "MASKED: the gradient by bptt is zero" in str(found)


def test_signs_of_masked_gradients():
    def errors(*counts):
        return [[sample < count for sample in range(40)] for count in counts]

    def signs(noise, single, many, without=0.0):
        return list(_signs(["rate"], [0.1, 0.2], np.array([errors(*noise), errors(*single), errors(*many)]), [without]))

    assert signs((0, 5), (10, 20), (15, 30)) == []
    assert signs((0, 9), (14, 14), (10, 10)) == []  # Four more may be chance.
    assert signs((0, 5), (15, 31), (10, 30)) == ["FGSM by rate finds more errors than PGD by rate at epsilon 0.1"]
    assert signs((20, 20), (1, 2), (3, 4), 0.5) == [
        "the gradient by rate is zero for 50% of the samples",
        "noise finds more errors than PGD by rate at epsilon 0.1, 0.2",
    ]
    assert signs((0, 0), (0, 0), (15, 10)) == ["PGD by rate finds fewer errors at epsilon 0.2 than at 0.1"]


def two_inputs():
    inputs = [keras.Input((6,)), keras.Input((6,))]
    return rsnn.SpikingModel(keras.Model(inputs, layers.Dense(3)(LIF()(layers.Add()(inputs)))), T)


def of_indices():
    inputs = keras.Input((6,), dtype="int32")
    return rsnn.SpikingModel(keras.Model(inputs, layers.Dense(3)(LIF()(layers.Flatten()(layers.Embedding(9, 2)(inputs))))), T)


def of_pixels():
    inputs = keras.Input((4, 6))
    return rsnn.SpikingModel(keras.Model(inputs, layers.Dense(3)(LIF()(inputs))), T)


X, Y = np.full((4, 6), 0.5, "float32"), np.zeros(4)


@pytest.mark.parametrize(
    ("error", "message", "changed"),
    [
        (TypeError, "`model` must be a SpikingModel", {"model": lambda: None}),
        (ValueError, "`model` must have one input of floats.*float32, float32", {"model": two_inputs, "x": [X, X]}),
        (ValueError, "`model` must have one input of floats.*int32", {"model": of_indices, "x": X.astype("int32")}),
        (ValueError, r"`model` must classify samples.*\(None, 4, 3\)", {"model": of_pixels, "x": np.ones((4, 4, 6))}),
        (ValueError, "`loss` must be given", {"loss": None}),
        (
            ValueError,
            "`loss` must be given.*sequences=True",
            {"model": lambda: classifier(return_sequences=True), "loss": None},
        ),
        (ValueError, "`y` must be labels from 0 to 2", {"y": np.full(4, 3)}),
        (ValueError, "`y` must hold the numbers of the classes for the loss sparse_", {"y": np.eye(3)[[0, 1, 2, 0]]}),
        (ValueError, "same number of samples", {"y": np.zeros(3)}),
        (TypeError, "`epsilons` must be a list of numbers", {"epsilons": 0.1}),
        (ValueError, r"`epsilons\[0\]` must be > 0 and <= 1.*8", {"epsilons": [8]}),
        (ValueError, "increase", {"epsilons": [0.2, 0.1]}),
        (ValueError, "`epsilons` must be at least one", {"epsilons": []}),
        (TypeError, "`gradients` must be a list", {"gradients": "rate"}),
        (ValueError, "`gradients` must not be empty", {"gradients": []}),
        (ValueError, r"`gradients\[0\]` must be one of", {"gradients": ["fgsm"]}),
        (ValueError, "windows", {"gradients": [rsnn.gradients.Rate(windows=4)]}),
        (ValueError, r"`x` must be within `bounds`.*\(0.0, 1.0\), values from 0 to 127.5", {"x": 255 * X * [0, 0, 0, 0, 0, 1]}),
        (ValueError, "`x` must be within", {"x": X * np.nan}),
        (TypeError, "`bounds` must be a pair", {"bounds": 255}),
        (ValueError, "`bounds` must be finite, the first below", {"bounds": (1, 0)}),
        (ValueError, "`bounds` must broadcast", {"bounds": (np.zeros(5), np.ones(5))}),
        (ValueError, "`steps` must be 1 or more", {"steps": 0}),
        (ValueError, "`step_size` must be > 0 and <= 1", {"step_size": 2.5}),
        (ValueError, "`seed` must be 0 or more", {"seed": -1}),
    ],
)
def test_bad_input_is_an_error_that_names_it(error, message, changed):
    arguments = {"model": classifier, "x": X, "y": Y, **changed}
    with pytest.raises(error, match=message):
        robustness(arguments.pop("model")(), **arguments)


def test_bounds_may_differ_between_elements():
    plain = classifier()
    x, y = samples(plain)
    deviation, mean = np.array([1, 2, 3, 4, 5, 6], "float32"), np.arange(6, dtype="float32")
    inputs = keras.Input((6,))
    scaled = rsnn.SpikingModel(
        keras.Model(inputs, plain.network(layers.Normalization(mean=-mean / deviation, variance=1 / deviation**2)(inputs))), T
    )
    found = [
        robustness(plain, x, y, gradients=["bptt"]),
        robustness(scaled, (x - mean) / deviation, y, gradients=["bptt"], bounds=(-mean / deviation, (1 - mean) / deviation)),
    ]
    np.testing.assert_allclose(found[0].attacked, found[1].attacked, atol=1 / 40)


def test_an_averaged_gradient_finds_less_where_order_tells_and_is_reported():
    inputs = keras.Input((2,))
    delay = rsnn.layers.Delay(max_delay=3)
    # The first neuron tells that channel 0 was two steps before channel 1, the second the opposite.
    neurons = LIF(0.0, threshold=1.5)(layers.Dense(2, name="pairs")(delay(layers.Concatenate()([inputs, inputs]))))
    network = keras.Model(inputs, layers.Dense(2, name="logits")(neurons))
    delay.set_weights([np.array([-1.0, 1.0, 1.0, -1.0]), np.array(0.0)])
    network.get_layer("pairs").set_weights([np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]]), np.zeros(2)])
    network.get_layer("logits").set_weights([9 * np.eye(2), np.zeros(2)])
    model = rsnn.SpikingModel(network, timesteps=4)
    x = np.random.default_rng(0).uniform(0, 0.1, (40, 4, 2)).astype("float32")
    x[:, 0, 0] += 0.9
    x[:, 2, 1] += 0.9
    with pytest.warns(UserWarning, match="noise finds more errors than PGD by rate"):
        found = robustness(model, x, np.zeros(40), epsilons=[0.85], gradients=["rate", "bptt"], steps=10)
    by_rate, by_bptt = (found.attacked[found.attacks.index(f"PGD by {name}"), 0] for name in ("rate", "bptt"))
    assert by_bptt < by_rate - 0.3
    assert found.robust[0] <= by_bptt
    assert not any("PGD by bptt" in sign for sign in found.masked)

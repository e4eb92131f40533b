"""IntegerModel: a Keras model for inference, with files, measurements, and errors that
name what integers cannot compute."""

import dataclasses
import json
import zipfile

import keras
import numpy as np
import pytest
from helpers import CROSSENTROPY, chain
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis, deploy
from keras_ratesnn.layers import ALIF, IF, ILIF, LIF, CuBaLIF, LeakyReadout, TimeMean
from tests.integers.drawn import Drawn, T, draw, integers
from tests.integers.test_integer import frames, spikes_of


def small(*parts, shape=(4, 4, 2), timesteps=T):
    """A model of layers."""
    return rsnn.SpikingModel(chain(*parts, shape=shape), timesteps, "bptt")


def graph(function, shape, timesteps=T):
    """A model of a function of inputs."""
    return rsnn.SpikingModel(chain(function, shape=shape), timesteps)


def with_kernel(kernel, neurons, bias=0.0, **kwargs):
    """A model of neurons after the weights "d", and of two classes."""
    kernel = np.array(kernel, "float32")
    dense = layers.Dense(kernel.shape[1], name="d")
    model = small(dense, neurons, layers.Dense(2), shape=kernel.shape[:1], **kwargs)
    dense.set_weights([kernel, np.broadcast_to(bias, kernel.shape[1:])])
    return model


@pytest.mark.backends(2)
def test_predict_evaluate_and_steps_give_the_integer_logits():
    chip, x = integers(draw(0)), frames(0, 6, time=True)
    logits = chip.integer_logits(x, batch_size=4)
    assert logits.dtype == "int32"
    for _ in range(2):
        steps = [ops.convert_to_numpy(chip.step(x[:, t])) for t in range(T)]
        assert_array_equal(sum(steps), logits)
        chip.reset_state()
    real = chip.predict(x, batch_size=4, verbose=0)
    assert_array_equal(
        real, logits.astype("float32") * np.float32(chip.network.unit / T)
    )
    chip.compile(loss=CROSSENTROPY, metrics=["accuracy"])
    labels = logits.argmax(1)
    assert chip.evaluate(x, labels, verbose=0)[1] == 1.0
    for method, arguments, instead in (
        (chip.fit, (x, labels), "quantize_aware"),
        (chip.quantize, ("int8",), "quantize_aware"),
        (chip.get_config, (), "save_integers"),
    ):
        with pytest.raises(NotImplementedError, match=instead):
            method(*arguments)
    assert chip(keras.Input(x.shape[2:], dtype="uint8")).shape == (None, 3)


@pytest.mark.backends(2)
def test_inputs_that_are_no_integers_of_the_network_are_refused():
    chip, x = integers(draw(1), largest_input=100), frames(1, 3, largest=101)
    large = x + np.uint8(50)
    with pytest.raises(TypeError, match=r"float32.*uint8"):
        chip.integer_logits(x.astype("float32"))
    for method in ("integer_logits", "layer_outputs", "predict", "predict_on_batch"):
        with pytest.raises(ValueError, match="from 0 to 100"):
            getattr(chip, method)(large)
    for method, wrong, message in (
        (chip.step, -x.astype("int64"), "from 0 to 100"),
        (chip.predict, x[:0], "0 samples"),
        (chip.integer_logits, x[..., :1], "shape"),
        (chip.integer_logits, x[:, None], f"{T} frames"),
        (chip.step, x[:, None].repeat(T, 1), "must be one frame"),
    ):
        with pytest.raises(ValueError, match=message):
            method(wrong)
    chip.step(x)
    with pytest.raises(ValueError, match="reset_state"):
        chip.step(x[:2])


def test_a_file_gives_the_same_network(tmp_path):
    chip, x = integers(draw(3), "ternary", 12), frames(3, 4)
    chip.save_integers(tmp_path / "net.npz")
    loaded = deploy.load_integers(tmp_path / "net.npz")
    assert loaded.network.layers == chip.network.layers
    assert_array_equal(loaded.integer_logits(x), chip.integer_logits(x))
    assert_array_equal(loaded.predict(x, verbose=0), chip.predict(x, verbose=0))
    with np.load(tmp_path / "net.npz") as file:
        arrays = dict(file)
    missing = f"w/{chip.network.layers[0].name}"
    del arrays[missing]
    np.savez(tmp_path / "half.npz", **arrays)
    np.savez(tmp_path / "other.npz", x=x)
    np.save(tmp_path / "other.npy", x)
    for name, message in (
        ("half.npz", f"without {missing}"),
        ("other.npz", "meta"),
        ("other.npy", "not a zip file"),
    ):
        with pytest.raises(ValueError, match=message):
            deploy.load_integers(tmp_path / name)


@pytest.fixture
def wrong_file(tmp_path):
    """A function that writes a file of a network with changes of the first layer of a
    kind, of "settings" or of "arrays", and gives its path."""
    conv, last = layers.Conv2D(4, 3, padding="same", name="conv"), layers.Dense(2)
    scaled = layers.Rescaling(1 / 100, -0.5)
    chip = integers(small(scaled, conv, _lif(), layers.Flatten(), last))
    chip.save_integers(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))

    def write(kind="settings", changes=()):
        if kind == "arrays":
            arrays.update(changes)
        elif kind == "settings":
            meta.update(changes)
        else:
            layer = next(layer for layer in meta["layers"] if layer["kind"] == kind)
            layer.update(changes)
            for missing in [key for key, value in layer.items() if value is None]:
                del layer[missing]
        path = tmp_path / "wrong.npz"
        np.savez(path, **{**arrays, "meta": json.dumps(meta)})
        return path

    return write


EVIL = "a*/ void __attribute__((constructor)) evil(void) {} /*"
SLOW = {"membrane_bits": 24, "decay_m": 60_000, "decay_k": 16}
NO_KIND = {"name": "a", "kind": ["conv"], "from": ["input"]}
NEGATIVE = {"name": "a", "kind": "add", "from": ["input"], "factors": [-1]}
AS_IT_IS = {"name": "a", "kind": "add", "from": ["input"]}
WRONG = [
    # Code.
    ("readout", {"name": EVIL}, "a name must be new"),
    ("conv", {"pad_value": "0; evil()"}, "pad_value='0; evil"),
    # Layers.
    ("settings", {"layers": [NO_KIND]}, "a kind one of"),
    ("settings", {"layers": [NEGATIVE]}, "factors"),
    ("settings", {"layers": []}, "list of 1 to"),
    ("settings", {"layers": [AS_IT_IS]}, "'a' as the last one, .* the logits"),
    ("neurons", {"from": ["other"]}, r"of kind 'neurons' after \['other'\]"),
    ("flatten", {"from": ["conv", "conv"]}, "after conv, conv, which it cannot add"),
    ("flatten", {"from": ["conv"]}, "'dense' with inputs below 0"),
    ("dense", {"from": ["neurons"]}, r"'dense' with an input of shape \(4, 4, 4\)"),
    # Facts.
    ("neurons", {"decay_m": None}, "'neurons' of kind 'neurons' without 'decay_m'"),
    ("neurons", {"decay_k": -1}, "decay_k=-1"),
    ("neurons", {"levels": 10**9}, "levels=1000000000"),
    ("neurons", {"f": None}, "without one of 'f' and 'shift'"),
    ("readout", {"f": 30}, "whose output does not fit in 32 bits"),
    ("neurons", {"decay_m": 257, "decay_k": 8}, "decays above 1"),
    ("neurons", SLOW, "products with decays"),
    ("conv", {"stride": [0, 1]}, r"stride=\[0, 1\]"),
    ("conv", {"pad": [[10**6, 10**6]] * 2}, "more than it can have"),
    # Arrays.
    ("arrays", {"w/conv": np.full((3, 3, 2, 4), 200)}, "w/conv that int8"),
    ("arrays", {"w/conv": np.zeros((3, 3, 4, 2))}, r"w/conv of shape \(3, 3, 4, 2\)"),
    ("arrays", {"theta/neurons": np.ones(2, "int32")}, r"of shape \(2,\) for 4"),
    ("arrays", {"theta/neurons": np.zeros(4, "int32")}, "thresholds below 1"),
    ("arrays", {"bias/neurons": np.full(4, 2**31 - 1)}, "currents do not fit"),
    ("arrays", {"v0/neurons": np.full(4, -(2**15) - 1)}, "would begin at -32769"),
    # Settings.
    ("settings", {"input_shape": [10**5, 10**5, 2]}, "more than it can have"),
    ("settings", {"timesteps": 2**31 - 1}, "sums over 2147483647 time steps"),
    ("settings", {"timesteps": 0}, "timesteps=0"),
    ("settings", {"largest_input": 40}, "pad_value=50, more than its inputs"),
    ("settings", {"unit_of_logits": -1.0}, "unit_of_logits=-1.0"),
]


@pytest.mark.parametrize(("kind", "changes", "reason"), WRONG)
def test_a_file_that_breaks_the_schema_is_refused(kind, changes, reason, wrong_file):
    path = wrong_file(kind, changes)
    message = f"`filepath` must be a file.*wrong.npz.*{reason}"
    with pytest.raises(ValueError, match=message):
        deploy.load_integers(path)


def test_arrays_are_read_only_if_a_layer_has_them_and_they_fit(wrong_file):
    def add(name, shape):
        path = wrong_file()
        header = {"descr": "|i1", "fortran_order": False, "shape": shape}
        archive = zipfile.ZipFile(path, "a")
        with archive, archive.open(f"{name}.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, header)
        return path

    deploy.load_integers(add("w/unused", (2**40,)))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = add("w/conv", (3, 3, 2, 2**40))
    with pytest.raises(ValueError, match="bytes of constants"):
        deploy.load_integers(path)


def test_names_of_layers_put_no_code_into_files_and_programs(tmp_path):
    evil = layers.Dense(3, name="größe * evil")
    chip = integers(small(evil, _lif(), layers.Dense(2), shape=(2,)))
    assert chip.network.layers[0].name == "gr__e___evil"
    first, second, *others = chip.network.layers
    constants = chip.network.constants
    constants = {**constants, "w/*/ evil.": constants[f"w/{first.name}"]}
    first = dataclasses.replace(first, name="*/ evil.")
    second = dataclasses.replace(second, sources=("*/ evil.",))
    network = dataclasses.replace(
        chip.network, layers=(first, second, *others), constants=constants
    )
    deploy.export_c(deploy.IntegerModel(network), tmp_path / "net.c")
    assert "*/ evil" not in (tmp_path / "net.c").read_text()


def test_thresholds_and_biases_are_those_counted_by_hand():
    neurons = LIF(0.25, 0.5, initial_membrane=0.1, name="n")
    model = with_kernel([[0.5, 0.1], [-0.25, 0.2]], neurons, bias=[0.3, -0.1])
    chip = integers(model, membrane_bits=12)
    constants, facts = chip.network.constants, chip.network.of("n").facts
    assert_array_equal(constants["w/d"], [[127, 64], [-64, 127]])
    # θ / s = 127 and 317.5: the largest is at most 2^(12 − 1 − 3) = 256.
    assert facts["f"] == -1
    units = np.array([0.5, 0.2]) / 127 * 2
    for key, value in (("theta", 0.5), ("bias", [0.3, -0.1]), ("v0", 0.1)):
        assert_array_equal(constants[f"{key}/n"], np.rint(np.asarray(value) / units))
    assert (facts["decay_m"], facts["decay_k"]) == (64, 8)
    assert "thresholds 64 to 159" in str(chip.report)


def test_a_channel_with_hardly_any_current_keeps_its_bias():
    kernel, bias = [[1.0, 0.5, 1e-4, 0.0], [0.5, 1.0, 0.0, 0.0]], [0.0, 0.0, 0.5, 0.25]
    model = with_kernel(kernel, IF(name="n"), bias=bias, timesteps=4)
    chip = integers(model)
    spikes = chip.layer_outputs(np.array([[1, 0]], "uint8"))["n"]
    assert_array_equal(spikes.sum(1), [[4, 2, 2, 1]])
    assert [row.silent for row in chip.report.layers if row.kind == "neurons"] == [2]


def test_a_channel_of_small_currents_keeps_them_if_its_threshold_fits():
    kernel = [[1.0, 1.0, 1.0, 1 / 5, 1 / 9]]
    # The last threshold, 9 times the median, is less than the limit of 2^12 with the
    # shift that the third one decides.
    network = integers(with_kernel(kernel, IF(3.4, name="n"))).network
    assert network.of("n").facts["f"] == 0
    assert_array_equal(network.constants["theta/n"], [432, 432, 432, 2159, 3886])
    assert_array_equal(network.constants["w/d"], [[127] * 5])


def test_slow_leaks_keep_currents_below_and_above_the_threshold_where_they_are():
    neurons = LIF(0.99, decay_input=True, name="n")
    model = with_kernel([[0.95, 1.1]], neurons, timesteps=300)
    chip = integers(model, membrane_bits=16)
    spikes = chip.layer_outputs(np.ones((1, 1), "uint8"))["n"]
    assert_array_equal(spikes.any(axis=1), [[False, True]])


def test_energy_and_describe_count_what_they_count_of_exact_floats():
    model = small(
        layers.Conv2D(4, 3, strides=2, padding="same"),
        IF(0.5),
        layers.DepthwiseConv2D(2, padding="same", dilation_rate=2),
        IF(0.5),
        layers.Conv2D(6, 2, padding="same", groups=2, dilation_rate=(2, 1)),
        IF(0.5),
        layers.Flatten(),
        layers.Dense(3),
    )
    random = np.random.default_rng(0)
    Drawn(random, exact=True).fill(model)
    x = random.integers(0, 2, (4, T, 4, 4, 2), "uint8")
    chip = integers(model, membrane_bits=24)
    # Frames of 0 and 1 are spikes, an image of pixels is not.
    for inputs in (x, 200 * x[:, 0]):
        ours = analysis.energy(chip, inputs)
        theirs = analysis.energy(model, np.float32(inputs))
        for count in ("multiply_adds", "accumulates", "dense_multiply_adds"):
            assert_allclose(getattr(ours, count), getattr(theirs, count))
        assert_allclose([*ours.traffic], [*theirs.traffic])
    ours = rsnn.describe(chip, x, verbose=False)
    theirs = rsnn.describe(model, np.float32(x), verbose=False)
    assert ours.layers == theirs.layers
    assert ours.synaptic_operations == theirs.synaptic_operations > 0


@pytest.mark.parametrize("seed", [4, 25])
def test_networks_with_channels_first_spike_as_their_integers(seed):
    keras.config.set_image_data_format("channels_first")
    model, x = draw(seed, exact=True), np.moveaxis(frames(seed, 3), -1, 1)
    chip = integers(model, membrane_bits=24)
    outputs = chip.layer_outputs(x)
    for name, spikes in spikes_of(model, x).items():
        spikes = np.moveaxis(spikes, 2, -1) if spikes.ndim == 5 else spikes
        assert_array_equal(outputs[name], spikes)
    assert_allclose(chip.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)


def test_classes_that_channels_first_would_reorder_are_refused():
    keras.config.set_image_data_format("channels_first")
    parts, shape = (layers.Conv2D(2, 2), _lif(), layers.Conv2D(3, 2)), (2, 4, 4)
    model = small(*parts, layers.Flatten(), shape=shape)
    integers(model)
    reshape = layers.Reshape((-1,), name="culprit")
    with pytest.raises(ValueError, match=r"'culprit'.*order.*Flatten"):
        integers(small(*copies(parts), reshape, shape=shape))


def _lif(**kwargs):
    return LIF(name="neurons", **kwargs)


CULPRIT = {"name": "culprit"}
FLAT, NEURONS, LAST = layers.Flatten(), _lif(), layers.Dense(2)
SCALED = layers.Rescaling(1 / 90, -0.81)
UNLIKE = keras.initializers.RandomUniform(0.5, 2.0, seed=0)
DECAYS = np.linspace(0.5, 0.9, 32).reshape(4, 4, 2)


REFUSED = [
    ((LAST, layers.Conv2D(4, 1, **CULPRIT), NEURONS, FLAT), "neurons there"),
    ((layers.Dense(4, activation="relu", **CULPRIT), NEURONS, FLAT), "activation"),
    ((NEURONS, layers.BatchNormalization(**CULPRIT), FLAT), "follow weights"),
    ((layers.Dense(4), ALIF(**CULPRIT), FLAT), "IF, LIF"),
    ((LAST, layers.AveragePooling2D(2, **CULPRIT), NEURONS, FLAT), "after neurons"),
    (
        (SCALED, layers.Conv2D(4, 3, padding="same", **CULPRIT), NEURONS, FLAT, LAST),
        "padding",
    ),
    ((layers.Conv2D(2, 1), LIF(**CULPRIT)), "Flatten"),
    ((layers.Rescaling([0.1, 0.2], **CULPRIT), LAST, NEURONS, FLAT), "one scale"),
    ((LAST, ILIF(round_half_up=True, **CULPRIT), FLAT), "round_half_up"),
    ((LAST, LIF(threshold_stabilizer=True, **CULPRIT), FLAT), "trainable"),
    ((LAST, LIF(DECAYS, **CULPRIT), FLAT), "a decay each"),
    (
        (CuBaLIF(**CULPRIT), FLAT),
        "can be IF, ILIF, LIF, ParametricLIF only",
    ),
    ((NEURONS, FLAT, LAST, LeakyReadout(**CULPRIT)), "not add up logits"),
    (
        (NEURONS, TimeMean(), layers.MaxPooling2D(**CULPRIT)),
        "mean over time",
    ),
    ((NEURONS, FLAT, layers.Rescaling(1.0, 0.5, **CULPRIT)), "output has an offset"),
    (
        (
            NEURONS,
            FLAT,
            LAST,
            layers.BatchNormalization(**CULPRIT, gamma_initializer=UNLIKE),
        ),
        "classes are compared",
    ),
]


def copies(parts):
    return [part.__class__.from_config(part.get_config()) for part in parts]


@pytest.mark.parametrize(("parts", "reason"), REFUSED)
def test_what_integers_cannot_compute_is_refused_by_name(parts, reason):
    with pytest.raises(ValueError, match=f"'culprit'.*{reason}"):
        integers(small(*copies(parts)))


def test_features_keep_the_order_of_a_flatten_layer_whose_data_format_is_another():
    parts = layers.Flatten("channels_first"), _lif(threshold=0.3)
    model = small(layers.Conv2D(3, 2), *parts, layers.Dense(3), shape=(5, 4, 2))
    random = np.random.default_rng(0)
    # The same on every backend: near a threshold a spike is one too many.
    model.set_weights([random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    x = random.integers(0, 2, (8, 5, 4, 2), "uint8")
    found = integers(model, membrane_bits=24).predict(x, verbose=0)
    assert_allclose(found, model.predict(x, verbose=0), atol=0.1)


def constant(units, value):
    start = keras.initializers.Constant(value)
    return layers.Dense(units, kernel_initializer=start)


def test_a_current_is_not_lost_beside_spikes():
    def total(x):
        current = constant(4, 0.3)(layers.Rescaling(1 / 255)(x))
        neurons = IF(2.0, name="neurons")
        return layers.Dense(2)(neurons(current + IF()(current)))

    chip = integers(graph(total, (4,), timesteps=6))
    # The current of pixels is 0.94 in a step, and spikes are 1 in each but the first.
    spikes = chip.layer_outputs(np.full((1, 4), 200, "uint8"))["neurons"]
    assert_array_equal(spikes[0, :, 0], [0, 1, 1, 1, 1, 1])


def test_a_sum_of_counts_of_any_units_has_the_nearest_factors():
    def total(x):
        spikes = _lif()(x)
        scaled = layers.Rescaling(0.5**0.5)(spikes)
        return layers.Dense(2)(layers.Add(name="total")([spikes, scaled]))

    network = integers(graph(total, (4,))).network
    assert network.of("total").facts["factors"] == [255, 180]


def sum_of_currents(x):
    total = layers.Add()([constant(8, 0.3)(x), constant(8, 0.7)(x)])
    return layers.Dense(2)(IF(1e5, name="culprit")(total))


def sum_with_zeros(x):
    """Zeros around an image are lost in it."""
    spikes = _lif()(x)
    images = [layers.ZeroPadding2D(1)(spikes), layers.Conv2D(2, 1)(spikes)]
    total = IF()(layers.Add(name="culprit")(images))
    return layers.GlobalAveragePooling2D()(total)


def pooled(x):
    """Over windows of very many sizes."""
    pooling = layers.AveragePooling2D(28, strides=1, padding="same", **CULPRIT)
    return layers.GlobalAveragePooling2D()(pooling(_lif()(x)))


def shared_current(x):
    """With a sign of its own for one of two layers that see it."""
    current = layers.Dense(2)(x)
    largest = layers.MaxPooling2D(1, **CULPRIT)(layers.Rescaling(-1.0)(current))
    return layers.Flatten()(_lif()(largest + current))


def flattened_sum(x):
    spikes = _lif()(x)
    total = layers.Dense(2)(spikes) + layers.Dense(2)(spikes)
    return layers.Flatten(**CULPRIT)(total)


def broken_weights(x):
    return constant(2, np.nan)(LIF(name="culprit")(layers.Dense(2)(x)))


@pytest.mark.parametrize(
    ("function", "shape", "reason"),
    [
        (sum_of_currents, (40_000,), r"'culprit'.*exact factors.*fewer inputs"),
        (sum_with_zeros, (1, 1, 2), r"'culprit'.*directly before a convolution"),
        (pooled, (64, 64, 1), r"'culprit'.*so many sizes do not fit"),
        (shared_current, (4, 4, 2), "'culprit'.*negative factors"),
        (flattened_sum, (4, 4, 2), "'culprit'.*a sum of currents"),
        (_lif(), (5, 2), "images or vectors"),
        (broken_weights, (2,), r"NaN.*dense"),
    ],
)
def test_graphs_that_integers_cannot_compute_are_refused(function, shape, reason):
    with pytest.raises(ValueError, match=reason):
        integers(graph(function, shape))


def test_models_with_a_mask_slots_or_too_many_steps_are_refused():
    def refuses(reason, model):
        with pytest.raises(ValueError, match=reason):
            integers(model)

    parts = ILIF(), layers.Dense(2)
    model = small(*parts, shape=(2,))
    refuses("need no substeps", deploy.unroll(model))
    model.timesteps = 2**25
    refuses("over all time steps do not fit in 32 bits", model)
    model.mask_value = 0.0
    refuses("has no mask", model)


def test_sums_that_float32_does_not_hold_are_exact():
    chip = integers(with_kernel(np.ones((600, 1)), IF(1e3)))
    x = np.random.default_rng(0).integers(220, 256, (9, 600), "uint8")
    sums = chip.layer_outputs(x)["d"][:, 0]
    assert_array_equal(sums, x.astype("int64") @ chip.network.constants["w/d"])


def test_one_shift_in_an_older_file_is_that_of_all_currents(wrong_file, tmp_path):
    wrong_file("arrays", {"multiplier/neurons/conv": np.full(4, 5)})
    twice = {"f": None, "shift": 3, "from": ["conv", "conv"]}
    chip = deploy.load_integers(wrong_file("neurons", twice))
    assert chip.network.of("neurons").facts["shift"] == [3, 3]
    chip.save_integers(tmp_path / "new.npz")
    assert (
        deploy.load_integers(tmp_path / "new.npz").network.layers == chip.network.layers
    )


def test_neurons_that_the_bits_of_membranes_do_not_suit_say_how_many_are_needed():
    kernel = [[1.0, 0.01, 0.01], [0.5, 0.01, 0.01]]
    model = with_kernel(kernel, IF(name="n"))
    with pytest.raises(ValueError, match=r"'n'.*membrane_bits=14"):
        integers(model, membrane_bits=12)
    integers(model, membrane_bits=14)
    unequal = with_kernel(np.ones((600, 1)), IF(1e-3, name="n"))
    with pytest.raises(ValueError, match=r"'n'.*More bits would not help"):
        integers(unequal)
    slow = with_kernel([[1.0, 1.0]], LIF(0.999, name="n"))
    with pytest.raises(ValueError, match=r"'n'.*decay=0\.999.*membrane_bits"):
        integers(slow, membrane_bits=24)

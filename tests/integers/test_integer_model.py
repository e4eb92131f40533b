"""IntegerModel: a Keras model for inference, with files, measurements, and errors that
name what integers cannot compute."""

import dataclasses
import json
import zipfile

import keras
import numpy as np
import pytest
from helpers import assert_close
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from tests.integers.drawn import T, draw
from tests.integers.test_integer import frames, spikes_of


def small(*of_layers, shape=(4, 4, 2), timesteps=T):
    """A model of layers."""
    return rsnn.SpikingModel(
        keras.Sequential([keras.Input(shape), *of_layers]), timesteps, "bptt"
    )


def test_predict_evaluate_and_steps_give_the_integer_logits():
    chip, x = rsnn.integer(draw(0), verbose=False), frames(0, 6, time=True)
    logits = chip.integer_logits(x, batch_size=4)
    assert logits.dtype == "int32"
    for _ in range(2):
        steps = [ops.convert_to_numpy(chip.step(x[:, t])) for t in range(T)]
        assert_array_equal(sum(steps), logits)
        chip.reset_state()
    real = chip.predict(x, batch_size=4, verbose=0)
    assert_array_equal(real, logits.astype("float32") * np.float32(chip.plan.unit / T))
    chip.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    labels = logits.argmax(1)
    assert chip.evaluate(x, labels, verbose=0)[1] == 1.0
    for train in (
        lambda: chip.fit(x, labels),
        lambda: chip.train_on_batch(x, labels),
        lambda: chip.quantize("int8"),
    ):
        with pytest.raises(NotImplementedError, match="quantize_aware"):
            train()


def test_inputs_that_are_no_integers_of_the_network_are_refused():
    chip, x = (
        rsnn.integer(draw(1), largest_input=100, verbose=False),
        frames(1, 3, largest=101),
    )
    with pytest.raises(TypeError, match=r"float32.*uint8"):
        chip.integer_logits(x.astype("float32"))
    for method in (
        chip.integer_logits,
        chip.layer_outputs,
        chip.predict,
        chip.predict_on_batch,
    ):
        with pytest.raises(ValueError, match="from 0 to 100"):
            method(x + np.uint8(50))
    with pytest.raises(ValueError, match="from 0 to 100"):
        chip.step(-x.astype("int64"))
    with pytest.raises(ValueError, match="from 0 to 100"):
        chip.step((x + np.uint8(50)).tolist())
    with pytest.raises(ValueError, match="0 samples"):
        chip.predict(x[:0])
    with pytest.raises(ValueError, match="shape"):
        chip.integer_logits(x[..., :1])
    with pytest.raises(ValueError, match=f"{T} frames"):
        chip.integer_logits(x[:, None])
    chip.step(x)
    with pytest.raises(ValueError, match="reset_state"):
        chip.step(x[:2])


@pytest.mark.runs_once
def test_a_file_gives_the_same_network(tmp_path):
    chip, x = rsnn.integer(draw(3), "ternary", 12, verbose=False), frames(3, 4)
    chip.save_integers(tmp_path / "net.npz")
    loaded = rsnn.load_integers(tmp_path / "net.npz")
    assert loaded.plan.layers == chip.plan.layers
    assert_array_equal(loaded.integer_logits(x), chip.integer_logits(x))
    assert_array_equal(loaded.predict(x, verbose=0), chip.predict(x, verbose=0))
    with np.load(tmp_path / "net.npz") as file:
        name = chip.plan.layers[0].name
        np.savez(
            tmp_path / "half.npz",
            **{key: file[key] for key in file.files if key != f"w/{name}"},
        )
    with pytest.raises(ValueError, match=f"without w/{name}"):
        rsnn.load_integers(tmp_path / "half.npz")
    np.savez(tmp_path / "other.npz", x=x)
    with pytest.raises(ValueError, match="meta"):
        rsnn.load_integers(tmp_path / "other.npz")
    np.save(tmp_path / "other.npy", x)
    with pytest.raises(ValueError, match="not a zip file"):
        rsnn.load_integers(tmp_path / "other.npy")


@pytest.mark.runs_once
def test_a_file_whose_numbers_do_not_fit_is_refused(tmp_path):
    of_layers = (
        layers.Dense(3, name="d"),
        rsnn.layers.LIF(reset="hard", name="n"),
        layers.Dense(2, name="e"),
    )
    rsnn.integer(small(*of_layers, shape=(4,)), verbose=False).save_integers(
        tmp_path / "net.npz"
    )
    with np.load(tmp_path / "net.npz") as file:
        right = dict(file)

    def refuses(reason, **changed):
        np.savez(tmp_path / "wrong.npz", **{**right, **changed})
        with pytest.raises(ValueError, match=reason):
            rsnn.load_integers(tmp_path / "wrong.npz")

    refuses("w/d that int8", **{"w/d": right["w/d"].astype("int64") * 2})
    refuses("theta/n that int32", **{"theta/n": right["theta/n"] + 0.5})
    refuses(r"w/d of shape \(3, 4\) for 4", **{"w/d": right["w/d"].T})
    refuses(r"theta/n of shape \(2,\) for 3", **{"theta/n": right["theta/n"][:2]})
    refuses("16 bits would begin at -32769", **{"v0/n": np.full(3, -(2**15) - 1)})
    meta = json.loads(str(right["meta"]))
    dense, neurons, *others = meta["layers"]
    wide = {**neurons, "membrane_bits": 24, "decay_m": 60_000, "decay_k": 16}
    refuses(
        "products with decays",
        meta=json.dumps({**meta, "layers": [dense, wide, *others]}),
    )
    without = {key: value for key, value in neurons.items() if key != "decay_m"}
    refuses(
        "'n' of kind 'neurons' without 'decay_m'",
        meta=json.dumps({**meta, "layers": [dense, without, *others]}),
    )
    refuses(
        r"'n' of kind 'neurons' after \['other'\]",
        meta=json.dumps(
            {**meta, "layers": [dense, {**neurons, "from": ["other"]}, *others]}
        ),
    )
    refuses("largest_input=256", meta=json.dumps({**meta, "largest_input": 256}))
    refuses(
        "timesteps=None",
        meta=json.dumps(
            {key: value for key, value in meta.items() if key != "timesteps"}
        ),
    )


@pytest.fixture
def wrong_file(tmp_path):
    """A function that writes a file of a network with changed facts of a layer,
    settings or arrays, and gives its path."""
    model = small(
        layers.Conv2D(4, 3, name="conv"), _lif(), layers.Flatten(), layers.Dense(2)
    )
    rsnn.integer(model, verbose=False).save_integers(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz") as file:
        right = dict(file)
    meta = json.loads(str(right["meta"]))

    def write(kind=None, arrays=None, settings=None, **facts):
        made = [dict(layer) for layer in meta["layers"]]
        for layer in (
            made[-1:]
            if kind is None
            else [layer for layer in made if layer["kind"] == kind][:1]
        ):
            layer.update(facts)
            changed = {
                f"{key}/{layer['name']}": value for key, value in (arrays or {}).items()
            }
        np.savez(
            tmp_path / "wrong.npz",
            **{
                **right,
                "meta": json.dumps({**meta, "layers": made, **(settings or {})}),
                **changed,
            },
        )
        return tmp_path / "wrong.npz"

    return write


WRONG = {
    "code as the name": (
        {"name": "a*/ void __attribute__((constructor)) evil(void) {} /*"},
        "a name must be new",
    ),
    "code as padding": (
        {"kind": "conv", "pad_value": "0; evil()"},
        "pad_value='0; evil",
    ),
    "no kind": (
        {
            "kind": "conv",
            "settings": {
                "layers": [{"name": "a", "kind": ["conv"], "from": ["input"]}]
            },
        },
        "a kind one of",
    ),
    "negative factors": (
        {
            "settings": {
                "layers": [
                    {"name": "a", "kind": "add", "from": ["input"], "factors": [-1]}
                ]
            }
        },
        "factors",
    ),
    "a shift of decays below 0": ({"kind": "neurons", "decay_k": -1}, "decay_k=-1"),
    "a shift of decays beyond 32 bits": (
        {"kind": "neurons", "decay_k": 40},
        "decay_k=40",
    ),
    "decays above 1": (
        {"kind": "neurons", "decay_m": 257, "decay_k": 8},
        "decays above 1",
    ),
    "a threshold of 0": (
        {"kind": "neurons", "arrays": {"theta": np.zeros(4, "int32")}},
        "thresholds below 1",
    ),
    "a bias that does not fit": (
        {"kind": "neurons", "arrays": {"bias": np.full(4, 2**31 - 1)}},
        "currents do not fit",
    ),
    "many levels": ({"kind": "neurons", "levels": 10**9}, "levels=1000000000"),
    "a reset that is no Boolean": ({"kind": "neurons", "hard": 1}, "hard=1"),
    "two layers of one name": (
        {"kind": "neurons", "name": "conv"},
        "a name must be new",
    ),
    "no layers": ({"settings": {"layers": []}}, "list of 1 to"),
    "a stride of 0": ({"kind": "conv", "stride": [0, 1]}, r"stride=\[0, 1\]"),
    "padding larger than memory": (
        {"kind": "conv", "pad": [[10**6, 10**6], [10**6, 10**6]]},
        "more than it can have",
    ),
    "an image larger than memory": (
        {"settings": {"input_shape": [10**5, 10**5, 2]}},
        "more than it can have",
    ),
    "a kernel of no size": (
        {"kind": "conv", "arrays": {"w": np.zeros((0, 3, 2, 4))}},
        r"of shape \(0, 3, 2, 4\)",
    ),
    "steps that are a text": ({"settings": {"timesteps": "2"}}, "timesteps='2'"),
    "more steps than 32 bits add up": (
        {"settings": {"timesteps": 2**31 - 1}},
        "sums over 2147483647 time steps",
    ),
    "a unit below 0": ({"settings": {"unit_of_logits": -1.0}}, "unit_of_logits=-1.0"),
    "JSON that is none": ({"settings": {"layers": float("nan")}}, "list of 1 to"),
}


@pytest.mark.runs_once
@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_breaks_the_schema_is_refused(case, wrong_file):
    changes, reason = WRONG[case]
    path = wrong_file(**changes)
    with pytest.raises(
        ValueError, match=f"`filepath` must be a file.*wrong.npz.*{reason}"
    ):
        rsnn.load_integers(path)


@pytest.mark.runs_once
def test_arrays_are_read_only_if_a_layer_has_them_and_they_fit(wrong_file):
    def add(name, shape):
        path = wrong_file()
        with (
            zipfile.ZipFile(path, "a") as archive,
            archive.open(f"{name}.npy", "w") as file,
        ):
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|i1", "fortran_order": False, "shape": shape}
            )
        return path

    rsnn.load_integers(add("w/unused", (2**40,)))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = add("w/conv", (3, 3, 2, 2**40))
    with pytest.raises(ValueError, match="bytes of constants"):
        rsnn.load_integers(path)


@pytest.mark.runs_once
def test_names_of_layers_put_no_code_into_files_and_programs(tmp_path):
    chip = rsnn.integer(
        small(
            layers.Dense(3, name="größe * evil"), _lif(), layers.Dense(2), shape=(2,)
        ),
        verbose=False,
    )
    assert chip.plan.layers[0].name == "gr__e___evil"
    chip.save_integers(tmp_path / "net.npz")
    assert rsnn.load_integers(tmp_path / "net.npz").plan.layers == chip.plan.layers
    first, *others = chip.plan.layers
    by_hand = (
        dataclasses.replace(first, name="*/ evil."),
        dataclasses.replace(others[0], sources=("*/ evil.",)),
        *others[1:],
    )
    constants = {
        **chip.plan.constants,
        "w/*/ evil.": chip.plan.constants[f"w/{first.name}"],
    }
    plan = dataclasses.replace(chip.plan, layers=by_hand, constants=constants)
    rsnn.export_c(rsnn.integers.IntegerModel(plan), tmp_path / "net.c")
    assert "*/ evil" not in (tmp_path / "net.c").read_text()


@pytest.mark.runs_once
def test_thresholds_and_biases_are_those_counted_by_hand():
    model = small(
        layers.Dense(2, name="d"),
        rsnn.layers.LIF(0.25, 0.5, initial_membrane=0.1, name="n"),
        layers.Dense(2),
        shape=(2,),
    )
    kernel = np.array([[0.5, 0.1], [-0.25, 0.2]], "float32")
    model.network.get_layer("d").set_weights([kernel, np.array([0.3, -0.1])])
    chip = rsnn.integer(model, membrane_bits=12, verbose=False)
    constants, (neurons,) = (
        chip.plan.constants,
        (layer for layer in chip.plan.layers if layer.kind == "neurons"),
    )
    assert_array_equal(constants["w/d"], [[127, 64], [-64, 127]])
    # θ / s = 127 and 317.5: the largest is at most 2^(12 − 1 − 3) = 256.
    assert neurons.facts["f"] == -1
    units = np.array([0.5, 0.2]) / 127 * 2
    for key, value in (("theta", 0.5), ("bias", [0.3, -0.1]), ("v0", 0.1)):
        assert_array_equal(constants[f"{key}/n"], np.rint(np.asarray(value) / units))
    assert (neurons.facts["decay_m"], neurons.facts["decay_k"]) == (64, 8)
    assert "thresholds 64 to 159" in str(chip.report)


@pytest.mark.runs_once
def test_a_channel_with_hardly_any_current_keeps_its_bias():
    model = small(
        layers.Dense(4, name="d"),
        rsnn.layers.IF(name="n"),
        layers.Dense(2),
        shape=(2,),
        timesteps=4,
    )
    kernel = np.array([[1.0, 0.5, 1e-4, 0.0], [0.5, 1.0, 0.0, 0.0]], "float32")
    model.network.get_layer("d").set_weights([kernel, np.array([0.0, 0.0, 0.5, 0.25])])
    chip = rsnn.integer(model, verbose=False)
    spikes = chip.layer_outputs(np.array([[1, 0]], "uint8"))["n"]
    assert_array_equal(spikes.sum(1), [[4, 2, 2, 1]])
    assert [row.silent for row in chip.report.layers if row.kind == "neurons"] == [2]


@pytest.mark.runs_once
def test_a_channel_of_small_currents_keeps_them_if_its_threshold_fits():
    model = small(
        layers.Dense(5, name="d"),
        rsnn.layers.IF(3.4, name="n"),
        layers.Dense(2),
        shape=(1,),
    )
    model.network.get_layer("d").set_weights(
        [np.array([[1.0, 1.0, 1.0, 1 / 5, 1 / 9]], "float32"), np.zeros(5)]
    )
    # The last threshold, 9 times the median, is less than the limit of 2^12 with the
    # shift that the third one decides.
    chip = rsnn.integer(model, verbose=False)
    assert chip.plan.of("n").facts["f"] == 0
    assert_array_equal(chip.plan.constants["theta/n"], [432, 432, 432, 2159, 3886])
    assert_array_equal(chip.plan.constants["w/d"], [[127] * 5])


@pytest.mark.runs_once
@pytest.mark.parametrize("bits", [16, 20])
def test_slow_leaks_keep_currents_below_and_above_the_threshold_where_they_are(bits):
    network = (
        layers.Dense(2, name="d"),
        rsnn.layers.LIF(0.99, decay_input=True, name="n"),
        layers.Dense(2),
    )
    model = small(*network, shape=(1,), timesteps=300)
    model.network.get_layer("d").set_weights(
        [np.array([[0.95, 1.1]], "float32"), np.zeros(2)]
    )
    x = np.ones((1, 1), "uint8")
    found = (
        rsnn.integer(model, membrane_bits=bits, verbose=False)
        .layer_outputs(x)["n"]
        .sum(1)
    )
    assert_array_equal(found > 0, [[False, True]])
    slow = small(
        layers.Dense(2), rsnn.layers.LIF(0.999, name="n"), layers.Dense(2), shape=(1,)
    )
    with pytest.raises(ValueError, match=r"'n'.*decay=0\.999.*membrane_bits"):
        rsnn.integer(slow, membrane_bits=24, verbose=False)


@pytest.mark.runs_once
def test_a_model_in_half_precision_has_the_integers_of_its_float32_weights():
    plans = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        weighted = (
            rsnn.layers.WSConv2D(4, 3, name="c", dtype=policy),
            layers.Dense(2, name="d", dtype=policy),
        )
        model = small(
            weighted[0], _lif(dtype=policy), layers.Flatten(dtype=policy), weighted[1]
        )
        plans.append(rsnn.integer(model, verbose=False).plan)
    ours, theirs = (plan.constants for plan in plans)
    assert_close(theirs, ours, rtol=0)


def _operations(model, x):
    found = rsnn.analysis.energy(model, x)
    return np.array(
        [
            found.multiply_adds,
            found.accumulates,
            found.multiply_adds_without_spikes,
            *found.traffic,
        ]
    )


@pytest.mark.runs_once
@pytest.mark.parametrize("time", [False, True])
def test_energy_and_describe_count_what_they_count_of_exact_floats(time):
    model = small(
        layers.Conv2D(4, 3, strides=2, padding="same"),
        rsnn.layers.IF(0.5, name="first"),
        layers.DepthwiseConv2D(2, padding="same", dilation_rate=2),
        rsnn.layers.IF(0.5, name="second"),
        layers.Conv2D(6, 2, padding="same", groups=2, dilation_rate=(2, 1)),
        rsnn.layers.IF(0.5, name="third"),
        layers.Flatten(),
        layers.Dense(3),
    )
    random = np.random.default_rng(0)
    for layer in model.network.layers:
        if hasattr(layer, "kernel"):
            kernel = random.integers(-100, 128, layer.kernel.shape)
            kernel[
                (0,)
                * (2 if isinstance(layer, layers.DepthwiseConv2D) else kernel.ndim - 1)
            ] = 127
            layer.kernel.assign(kernel / 2.0**8)
    x = random.integers(0, 2, (4, T, 4, 4, 2) if time else (4, 4, 4, 2), "uint8")
    chip = rsnn.integer(model, membrane_bits=24, verbose=False)
    floats = x.astype("float32")
    assert_allclose(_operations(chip, x), _operations(model, floats))
    ours, theirs = (
        rsnn.describe(chip, x, verbose=False),
        rsnn.describe(model, floats, verbose=False),
    )
    assert ours.layers == theirs.layers
    assert (ours.synaptic_operations, ours.first_multiply_adds) == (
        theirs.synaptic_operations,
        theirs.first_multiply_adds,
    )
    assert ours.synaptic_operations > 0


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.runs_once
@pytest.mark.parametrize("seed", [4, 18, 25, 29])
def test_networks_with_channels_first_spike_as_their_integers(seed, channels_first):
    model, x = draw(seed, exact=True), np.moveaxis(frames(seed, 3), -1, 1)
    chip = rsnn.integer(model, membrane_bits=24, verbose=False)
    outputs = chip.layer_outputs(x)
    for name, spikes in spikes_of(model, x).items():
        assert_array_equal(
            outputs[name], np.moveaxis(spikes, 2, -1) if spikes.ndim == 5 else spikes
        )
    assert_allclose(chip.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)


@pytest.mark.runs_once
def test_additions_of_frames_with_channels_first_are_those_of_exact_floats(
    channels_first,
):
    model = small(
        layers.Conv2D(3, 3, name="c"),
        rsnn.layers.IF(0.5),
        layers.Flatten(),
        layers.Dense(2),
        shape=(2, 5, 4),
    )
    model.network.get_layer("c").kernel.assign(np.ones((3, 3, 2, 3)) / 2)
    x = np.random.default_rng(0).integers(0, 2, (3, T, 2, 5, 4), "uint8")
    chip = rsnn.integer(model, membrane_bits=24, verbose=False)
    assert_allclose(
        _operations(chip, x)[:, 0], _operations(model, x.astype("float32"))[:, 0]
    )


@pytest.mark.runs_once
def test_classes_that_channels_first_would_reorder_are_refused(channels_first):
    flattened = [layers.Flatten(), layers.Reshape((-1,), name="culprit")]
    model, wrong = (
        small(layers.Conv2D(2, 2), _lif(), layers.Conv2D(3, 2), end, shape=(2, 4, 4))
        for end in flattened
    )
    x = np.random.default_rng(0).integers(0, 2, (3, 2, 4, 4), "uint8")
    chip = rsnn.integer(model, membrane_bits=24, verbose=False)
    assert_allclose(chip.predict(x, verbose=0), model.predict(x, verbose=0), atol=0.05)
    with pytest.raises(ValueError, match=r"'culprit'.*order.*Flatten"):
        rsnn.integer(wrong, verbose=False)


def _lif(**kwargs):
    return rsnn.layers.LIF(name="neurons", **kwargs)


def _offset(padding):
    return [
        layers.Rescaling(1 / 90, -0.81),
        layers.Conv2D(4, 3, padding=padding, name="culprit"),
        _lif(),
        layers.Flatten(),
        layers.Dense(2),
    ]


REFUSED = {
    "two layers of weights": (
        [
            layers.Conv2D(4, 1),
            layers.Conv2D(4, 1, name="culprit"),
            _lif(),
            layers.Flatten(),
        ],
        "neurons there",
    ),
    "an activation": (
        [layers.Dense(4, activation="relu", name="culprit"), _lif(), layers.Flatten()],
        "activation",
    ),
    "a softmax": (
        [_lif(), layers.Flatten(), layers.Dense(2), layers.Softmax(name="culprit")],
        "activation",
    ),
    "a lone normalisation": (
        [_lif(), layers.BatchNormalization(name="culprit"), layers.Flatten()],
        "follow weights",
    ),
    "adaptive neurons": (
        [layers.Dense(4), rsnn.layers.ALIF(name="culprit"), layers.Flatten()],
        "IF, LIF",
    ),
    "an average of currents": (
        [
            layers.Conv2D(4, 1),
            layers.AveragePooling2D(2, name="culprit"),
            _lif(),
            layers.Flatten(),
        ],
        "after neurons",
    ),
    "padding that is no pixel": (_offset("same"), "padding"),
    "images as logits": (
        [layers.Conv2D(2, 1), rsnn.layers.LIF(name="culprit")],
        "Flatten",
    ),
    "scales of channels": (
        [
            layers.Rescaling([0.1, 0.2], name="culprit"),
            layers.Dense(4),
            _lif(),
            layers.Flatten(),
        ],
        "one scale",
    ),
    "rounding up": (
        [
            layers.Dense(4),
            rsnn.layers.ILIF(round_half_up=True, name="culprit"),
            layers.Flatten(),
        ],
        "round_half_up",
    ),
    "a stabiliser": (
        [
            layers.Dense(4),
            rsnn.layers.LIF(threshold_stabilizer=True, name="culprit"),
            layers.Flatten(),
        ],
        "trainable",
    ),
}


@pytest.mark.runs_once
@pytest.mark.parametrize("case", REFUSED)
def test_what_integers_cannot_compute_is_refused_by_name(case):
    of_layers, reason = REFUSED[case]
    model = small(
        *(layer.__class__.from_config(layer.get_config()) for layer in of_layers)
    )
    with pytest.raises(ValueError, match=f"'culprit'.*{reason}"):
        rsnn.integer(model, verbose=False)


@pytest.mark.runs_once
def test_pooling_over_windows_of_very_many_sizes_is_refused():
    pooling = layers.AveragePooling2D(28, strides=1, padding="same", name="culprit")
    model = small(_lif(), pooling, layers.GlobalAveragePooling2D(), shape=(64, 64, 1))
    with pytest.raises(ValueError, match=r"'culprit'.*so many sizes do not fit"):
        rsnn.integer(model, verbose=False)


@pytest.mark.runs_once
@pytest.mark.parametrize("currents", [False, True])
def test_features_keep_the_order_of_a_flatten_layer_whose_data_format_is_another(
    currents,
):
    flatten = layers.Flatten(data_format="channels_first")
    of_neurons = (
        [flatten, _lif(threshold=0.3)] if currents else [_lif(threshold=0.3), flatten]
    )
    model = small(layers.Conv2D(3, 2), *of_neurons, layers.Dense(3), shape=(5, 4, 2))
    x = np.random.default_rng(0).integers(0, 2, (8, 5, 4, 2), "uint8")
    expected = model.predict(x, verbose=0)
    assert_allclose(
        rsnn.integer(model, membrane_bits=24, verbose=False).predict(x, verbose=0),
        expected,
        atol=0.1,
    )


@pytest.mark.runs_once
@pytest.mark.parametrize("scale", [0.00145, 0.0059])
def test_a_sum_of_pixels_and_spikes_keeps_both_whatever_their_units(scale):
    inputs = keras.Input((3,))
    pixels = layers.Rescaling(scale)(inputs)
    total = layers.Add()([pixels, rsnn.layers.IF(0.5)(pixels)])
    model = rsnn.SpikingModel(keras.Model(inputs, layers.Dense(2)(total)), T)
    x = np.random.default_rng(0).integers(0, 256, (8, 3), "uint8")
    expected = model.predict(x, verbose=0)
    assert_allclose(
        rsnn.integer(model, verbose=False).predict(x, verbose=0),
        expected,
        atol=0.03 * np.ptp(expected),
    )


@pytest.mark.runs_once
def test_a_current_is_not_lost_beside_spikes():
    inputs = keras.Input((4,))
    pixels = layers.Rescaling(1 / 255)(inputs)
    start = {"kernel_initializer": keras.initializers.Constant(0.3)}
    spikes = rsnn.layers.IF()(layers.Dense(4, **start)(pixels))
    x = rsnn.layers.IF(2.0, name="neurons")(layers.Dense(4, **start)(pixels) + spikes)
    chip = rsnn.integer(
        rsnn.SpikingModel(keras.Model(inputs, layers.Dense(2)(x)), 6), verbose=False
    )
    # The current of pixels is 0.94 in a step, and spikes are 1 in each but the first.
    spikes = chip.layer_outputs(np.full((1, 4), 200, "uint8"))["neurons"]
    assert_array_equal(spikes[0, :, 0], [0, 1, 1, 1, 1, 1])


@pytest.mark.runs_once
def test_a_sum_of_currents_too_large_for_exact_factors_is_refused():
    inputs = keras.Input((40_000,))
    currents = [
        layers.Dense(8, kernel_initializer=keras.initializers.Constant(value))(inputs)
        for value in (0.3, 0.7)
    ]
    network = keras.Model(
        inputs,
        layers.Dense(2)(rsnn.layers.IF(1e5, name="culprit")(layers.Add()(currents))),
    )
    with pytest.raises(ValueError, match=r"'culprit'.*exact factors.*fewer inputs"):
        rsnn.integer(rsnn.SpikingModel(network, T), verbose=False)


@pytest.mark.runs_once
def test_one_shift_in_an_older_file_is_that_of_all_currents(tmp_path):
    neurons = {
        "decay_m": 256,
        "decay_k": 8,
        "membrane_bits": 16,
        "levels": 0,
        "hard": False,
        "v_reset": 0,
    }
    made = [
        *({"name": name, "kind": "dense", "from": ["input"]} for name in ("a", "b")),
        {"name": "n", "kind": "neurons", "from": ["a", "b"], "shift": 3, **neurons},
        {"name": "out", "kind": "readout", "from": ["n"], "f": 0},
    ]
    zero, weights = (
        np.zeros(1, "int64"),
        {"w/a": np.array([[3]]), "w/b": np.array([[-1]]), "theta/n": np.array([100])},
    )
    factors = {"multiplier/n/a": np.array([11]), "multiplier/n/b": np.array([7])}
    meta = json.dumps(
        {"timesteps": 8, "temporal_input": False, "input_shape": [1], "layers": made}
    )
    np.savez(
        tmp_path / "old.npz",
        meta=meta,
        **weights,
        **factors,
        **{"bias/n": zero, "v0/n": zero, "bias/out": zero},
    )
    chip = rsnn.load_integers(tmp_path / "old.npz")
    # (3 x · 11 − x · 7 + 4) >> 3 is 17 for x = 5, rounded once, of 16.25: 16. For 6 it
    # is 19.5: 20.
    x = np.array([[5], [6]], "uint8")
    assert_array_equal(chip.layer_outputs(x)["n"][..., 0].argmax(1), [6, 4])
    chip.save_integers(tmp_path / "new.npz")
    assert rsnn.load_integers(tmp_path / "new.npz").plan.layers == chip.plan.layers


@pytest.mark.runs_once
def test_zeros_around_an_image_are_not_lost_in_a_sum():
    inputs = keras.Input((1, 1, 2))
    spikes = _lif()(inputs)
    total = layers.Add(name="culprit")(
        [layers.ZeroPadding2D(1)(spikes), layers.Conv2D(2, 1)(spikes)]
    )
    network = keras.Model(
        inputs, layers.GlobalAveragePooling2D()(rsnn.layers.IF()(total))
    )
    with pytest.raises(ValueError, match=r"'culprit'.*directly before a convolution"):
        rsnn.integer(rsnn.SpikingModel(network, T), verbose=False)


@pytest.mark.runs_once
def test_weights_that_are_not_finite_are_refused():
    model = small(layers.Dense(2), _lif(), layers.Dense(2, name="broken"), shape=(2,))
    model.network.get_layer("broken").kernel.assign([[1.0, np.nan], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"NaN.*broken"):
        rsnn.integer(model, verbose=False)


@pytest.mark.runs_once
def test_logits_of_several_units_are_refused():
    model = small(
        _lif(),
        layers.Flatten(),
        layers.Dense(2),
        layers.BatchNormalization(name="culprit"),
    )
    model.network.get_layer("culprit").gamma.assign([1.0, 2.0])
    with pytest.raises(ValueError, match=r"'culprit'.*classes are compared"):
        rsnn.integer(model, verbose=False)


@pytest.mark.runs_once
def test_an_offset_needs_no_padding():
    rsnn.integer(small(*_offset("valid")), verbose=False)


@pytest.mark.runs_once
def test_thresholds_too_coarse_for_few_bits_say_how_many_are_needed():
    model = small(
        layers.Dense(3, name="d"), rsnn.layers.IF(name="n"), layers.Dense(2), shape=(2,)
    )
    model.network.get_layer("d").set_weights(
        [np.array([[1.0, 0.01, 0.01], [0.5, 0.01, 0.01]]), np.zeros(3)]
    )
    with pytest.raises(ValueError, match=r"'n'.*membrane_bits=14"):
        rsnn.integer(model, membrane_bits=12, verbose=False)
    rsnn.integer(model, membrane_bits=14, verbose=False)

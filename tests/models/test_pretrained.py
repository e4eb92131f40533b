"""Pretrained networks: shipped ones predict as described on their cards, and can be
loaded and trained."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import warnings

import keras
import numpy as np
import pytest
from helpers import assert_close, chain, to_numpy
from made_networks import PACKAGE, packaged, sha256, write_network
from sklearn import datasets, model_selection

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.gradients.lookup import BY_NAME
from keras_ratesnn.layers import LIF
from keras_ratesnn.models import list_pretrained, load_pretrained
from keras_ratesnn.models.precision import in_precision
from keras_ratesnn.models.pretrained import Card

pytestmark = pytest.mark.runs_once

ROOT = pathlib.Path(__file__).parents[2]
ARGUMENTS = {"input_shape": [16, 16, 3], "classes": 3, "width": 0.05}
"""Of the small VGG-11 that these tests write."""
SHIPPED = list_pretrained()["digits"]
LARGEST_SHIPPED = 16 * 2**20
"""Bytes: docs/howto/saving.md."""
FIELDS = {
    field.name: getattr(SHIPPED, field.name)
    for field in dataclasses.fields(Card)
    if field.name != "name"
}


def vgg(**kwargs):
    return models.VGG11(**{**ARGUMENTS, "timesteps": 2, **kwargs})


def on_pixels(network):
    """A network behind preprocessing of raw pixels."""
    rescaling = keras.layers.Rescaling(1 / 255)
    return chain(rescaling, network, shape=network.input_shape[1:])


def write(model, folder, **card):
    """Writes the weights and the card of a network to the folders of a package."""
    write_network(model, folder / "weights", folder / "cards", **card)


@functools.cache
def digits():
    """`(training images, test images, training labels, test labels)`, those of the
    recipe."""
    images, labels = datasets.load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("uint8")
    return model_selection.train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=0
    )


@pytest.fixture(scope="module")
def vgg_folder(tmp_path_factory):
    """A folder with the card `vgg` of a VGG-11 that a function builds."""
    folder, network = tmp_path_factory.mktemp("vgg"), vgg().network
    for variable in network.variables:
        # Untrained, its last neurons are silent, and its outputs the same for all
        # images.
        if variable.name == "beta":
            variable.assign(np.ones(variable.shape))
    card = {"name": "vgg", "architecture": "VGG11", "arguments": ARGUMENTS}
    write(rsnn.SpikingModel(on_pixels(network), 2), folder, **card)
    return folder


@pytest.fixture
def with_a_vgg(vgg_folder, monkeypatch):
    packaged(monkeypatch, vgg_folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A temporary folder instead of the package's, with the digits in it."""
    for name in ("cards/digits.json", "weights/digits.keras"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes((PACKAGE / name).read_bytes())
    packaged(monkeypatch, tmp_path)
    return tmp_path


@contextlib.contextmanager
def no_message():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def assert_points_here(said):
    """The message is shown with the line of the user's call."""
    messages = [one for one in said if "starts with new weights" in str(one.message)]
    assert [message.filename for message in messages] == [__file__]


def weights_of(network):
    return {variable.path: to_numpy(variable) for variable in network.variables}


def assert_same_but_for(layer, network, changed):
    """All weights are the same, except those of one layer, which all differ."""
    ones, twos = weights_of(network), weights_of(changed)
    assert set(ones) == set(twos)
    for path, value in ones.items():
        differs = layer is not None and f"{layer}/" in path
        assert np.array_equal(value, twos[path]) != differs, path


# The networks that ship.
@pytest.mark.on_each_backend
def test_the_digits_are_classified_as_the_card_says():
    _, images, _, labels = digits()
    outputs = load_pretrained("digits").predict(images, verbose=0)
    correct = (outputs.argmax(-1) == labels).sum()
    expected = SHIPPED.test_accuracy * SHIPPED.test_images
    # Backends add in different orders, and a membrane may fall on the other side of its
    # threshold.
    assert correct == pytest.approx(expected, abs=1.001)
    assert SHIPPED.test_images == len(images)


def test_every_card_describes_its_file():
    for name, card in list_pretrained().items():
        assert card.name == name
        if card.url is None:
            model = load_pretrained(name)
            assert model.count_params() == card.parameters
            assert model.timesteps == card.timesteps
            method = BY_NAME[card.gradient.partition(",")[0]]
            assert isinstance(model.gradient, method)
            size = (PACKAGE / "weights" / card.file).stat().st_size
            assert size < LARGEST_SHIPPED


def precisions_of(model):
    _, *layers = model.network.layers
    return {layer.dtype_policy.name for layer in layers}


@pytest.mark.on_each_backend
def test_a_pretrained_network_has_the_precision_that_is_asked_for():
    exact, images = load_pretrained("digits"), digits()[1]
    half = load_pretrained("digits", dtype="mixed_bfloat16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    for model in (half, load_pretrained("digits")):
        assert precisions_of(model) == {"mixed_bfloat16"}
    predicted = [model.predict(images, verbose=0).argmax(-1) for model in (half, exact)]
    assert np.mean(np.equal(*predicted)) > 0.97


def test_a_model_in_another_precision_has_the_same_weights_and_settings():
    recurrent = rsnn.layers.Recurrent(LIF(), keras.layers.Dense(4))
    network = chain(recurrent, keras.layers.Dense(2), shape=(4,))
    settings = {"return_sequences": True, "mask_value": 0.0, "name": "own"}
    model = rsnn.SpikingModel(network, 3, "bptt", "single", **settings)
    half = in_precision(model, "mixed_bfloat16")
    for layer in half._flatten_layers():
        assert layer.dtype_policy.name == "mixed_bfloat16"
    assert precisions_of(model) == {"float32"}
    for name in (*settings, "timesteps", "step_mode"):
        assert getattr(half, name) == getattr(model, name)
    assert_close(half.get_weights(), model.get_weights(), rtol=0)
    assert in_precision(model, "float32") is model


@pytest.mark.on_each_backend
def test_a_pretrained_network_with_quantized_weights_keeps_them(folder):
    model = load_pretrained("digits")
    model.network.get_layer("logits").quantize("int8")
    write(model, folder)
    loaded = load_pretrained("made", dtype="mixed_bfloat16")
    assert loaded.network.get_layer("logits").dtype_policy.name == "int8_from_float32"
    assert precisions_of(loaded) == {"int8_from_float32", "mixed_bfloat16"}


def test_arguments_override_the_settings_of_training():
    model = load_pretrained("digits")
    assert (model.name, model.timesteps, model.step_mode) == ("digits", 4, "multi")
    settings = {"timesteps": 2, "gradient": "bptt", "step_mode": "single"}
    changed = load_pretrained("digits", **settings)
    assert (changed.timesteps, changed.step_mode) == (2, "single")
    assert isinstance(changed.gradient, rsnn.gradients.BPTT)
    assert_same_but_for(None, model, changed)


def test_a_pretrained_network_of_padded_sequences_knows_its_padding(folder):
    network = chain(LIF(threshold=0.5), keras.layers.Dense(3), shape=(2,))
    write(rsnn.SpikingModel(network, 3, mask_value=-1.0), folder)
    for classes in (None, 3):
        loaded = load_pretrained("made", classes=classes)
        assert loaded.mask_value == -1.0


def test_other_classes_get_a_new_last_layer_with_a_message(with_a_vgg):
    """Also behind preprocessing."""
    model = load_pretrained("vgg")
    message = "is for 3 classes, not 5: the last layer, 'network/classifier', starts w"
    with pytest.warns(UserWarning, match=message) as said:
        changed = load_pretrained("vgg", classes=5)
    assert_points_here(said)
    assert changed.network.output_shape == (None, 5)
    assert_same_but_for("classifier", model, changed)
    with no_message():
        assert_same_but_for(None, model, load_pretrained("vgg", classes=3))


def test_a_network_that_does_not_end_in_a_dense_layer_keeps_its_classes(folder):
    mean = keras.layers.GlobalAveragePooling1D(name="mean")
    write(rsnn.SpikingModel(chain(LIF(), mean, shape=(4, 3)), 1), folder)
    message = "`classes` must be None here: .*'made' ends in 'mean', a GlobalAverageP"
    with pytest.raises(ValueError, match=message):
        load_pretrained("made", classes=3)


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("float31", "`dtype` must be .*dtype='float31'"),
        ("int8_from_float32", "of quantized layers.*model.quantize"),
        ("bool", "`dtype` must be a policy of floats.*'bool'"),
    ],
)
def test_policies_that_networks_cannot_have_are_errors(dtype, said):
    with pytest.raises(ValueError, match=said):
        load_pretrained("digits", dtype=dtype)


# The argument `weights` of the networks.
@pytest.mark.on_each_backend
def test_weights_load_by_name_into_a_network_and_its_images_are_preprocessed(
    with_a_vgg,
):
    with no_message():
        model = vgg(weights="vgg", timesteps=1)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    expected = load_pretrained("vgg", timesteps=1).predict(pixels, verbose=0)
    assert np.ptp(expected, axis=0).any()
    outputs = model.predict(pixels / 255, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def test_weights_load_for_other_classes_and_without_the_top(with_a_vgg):
    whole = vgg(weights="vgg")
    message = "weights='vgg' is for 3 classes, not 4: the last layer, 'classifier'"
    with pytest.warns(UserWarning, match=message) as said:
        changed = vgg(weights="vgg", classes=4)
    assert_points_here(said)
    assert_same_but_for("classifier", whole, changed)
    with no_message():
        without = vgg(weights="vgg", include_top=False)
    weights, expected = weights_of(without), weights_of(whole)
    assert set(expected) - set(weights) == {"classifier/kernel", "classifier/bias"}
    assert_close(weights, {path: expected[path] for path in weights}, rtol=0)


@pytest.mark.parametrize(
    ("build", "kwargs", "said"),
    [
        (models.VGG13, {}, "a pretrained VGG13 (none)"),
        (models.VGG11, {"weights": "vggs"}, "and there is no such network"),
        (models.VGG11, {"width": 0.1}, "'block1_conv1' has weights of shapes [(3, 3,"),
        (models.VGG11, {"input_shape": (16, 16, 1)}, "as described on its card"),
        (models.VGG11, {"neuron": lambda: LIF(decay=0.5)}, "'decay': 0.5"),
    ],
)
def test_weights_of_another_network_are_an_error(build, kwargs, said, with_a_vgg):
    with pytest.raises(ValueError, match="weights") as raised:
        build(**{**ARGUMENTS, "weights": "vgg", **kwargs})
    assert said in str(raised.value)


def test_neurons_may_differ_only_in_settings_of_the_gradient(with_a_vgg):
    neuron = functools.partial(LIF, surrogate="atan", detach_reset=False)
    assert_same_but_for(None, vgg(weights="vgg"), vgg(weights="vgg", neuron=neuron))


def test_a_sew_resnet_is_distinguished_from_a_preact_resnet_with_the_same_weights(
    tmp_path,
):
    path = tmp_path / "sew.keras"
    arguments = {"classes": 3, "timesteps": 1, "width": 0.01}
    models.SEWResNet18((8, 8, 3), **arguments).save(path)
    for build, message in (
        (models.PreActResNet18, "the layers stem_neuron, .* are unexpected"),
        (models.VGG11, "the layers block1_conv1, .* are missing; the layers"),
    ):
        with pytest.raises(ValueError, match=f"to another network: {message}"):
            build((16, 16, 3), weights=path, **arguments)


def test_errors_name_wrong_weight_files(vgg_folder, tmp_path):
    path = tmp_path / "wrong.keras"

    def refused(message, error=ValueError):
        with pytest.raises(error, match=message) as raised:
            vgg(weights=path)
        assert "\n" not in str(raised.value)

    refused(r"wrong.keras', which does not", FileNotFoundError)
    whole = (vgg_folder / "weights" / "vgg.keras").read_bytes()
    for content in (b"", whole[:5000] + whole[5100:]):
        path.write_bytes(content)
        refused(r"wrong.keras' cannot be loaded as a Ker")
    network = chain(keras.layers.Lambda(lambda x: x), LIF())
    rsnn.SpikingModel(network, 1).save(path)
    refused(r"wrong.keras' cannot be loaded .*unsafe_deserialization")
    chain(LIF()).save(path)
    refused(r"`weights` must be those of a SpikingModel. .* a Functional")
    with pytest.raises(TypeError, match=r"`weights` must be None, .* weights=3 of typ"):
        vgg(weights=3)


def test_a_missing_file_and_one_of_another_hash_are_named(folder):
    path = folder / "weights" / "digits.keras"
    path.write_bytes(path.read_bytes()[:-1])
    message = f"do not match its card: .*{sha256(path)}, that on the card is "
    with pytest.raises(ValueError, match=f"{message}{SHIPPED.sha256}"):
        load_pretrained("digits")
    path.unlink()
    message = r"The weights of 'digits' should be in .*digits.keras, but are missing"
    with pytest.raises(FileNotFoundError, match=message):
        load_pretrained("digits")


# Files.
@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A temporary folder instead of Keras' cache."""
    folder = tmp_path / "cache"
    folder.mkdir()
    get_file = functools.partial(keras.utils.get_file, cache_dir=folder)
    monkeypatch.setattr(keras.utils, "get_file", get_file)
    return folder / "keras_ratesnn"


@pytest.fixture
def upload(folder, cache):
    """The digits as a download instead of a shipped file; returns the path of the
    file."""
    source = folder / "uploaded.keras"
    (folder / "weights" / "digits.keras").rename(source)
    dataclasses.replace(SHIPPED, url=source.as_uri()).write(folder / "cards")
    return source


def test_weights_that_do_not_ship_are_downloaded_once_with_a_progress_bar(
    upload, cache, capsys
):
    model = load_pretrained("digits")
    size = upload.stat().st_size
    assert f"{size}/{size}" in capsys.readouterr().out
    assert [path.name for path in cache.iterdir()] == ["digits.keras"]
    # Again if they are damaged in the cache, or else not.
    (cache / "digits.keras").write_bytes(b"half of it")
    assert load_pretrained("digits").count_params() == SHIPPED.parameters
    upload.unlink()
    assert_same_but_for(None, model, load_pretrained("digits"))


def test_a_download_of_another_hash_is_an_error(upload):
    upload.write_bytes(upload.read_bytes()[:-1])
    message = f"from file://.* do not match its card: .*{SHIPPED.sha256}"
    with pytest.raises(ValueError, match=message):
        load_pretrained("digits")


def test_without_a_network_the_error_says_where_to_put_the_file(folder, cache):
    # No server listens at this port.
    url = "http://127.0.0.1:1/digits.keras"
    dataclasses.replace(SHIPPED, url=url).write(folder / "cards")
    message = "The weights of 'digits' cannot be downloaded .*Connection refused"
    with pytest.raises(OSError, match=message) as raised:
        load_pretrained("digits")
    place = f"{url} as digits.keras in the folder keras_ratesnn of Keras' cache"
    assert place in str(raised.value)


# Cards.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": None}, r"Missing fields: \['seed'\]"),
        ({"epochs": "10"}, "`epochs` must be of type int. Received: epochs='10'"),
        ({"file": "../digits.keras"}, "`file` must be the name of a .keras file, with"),
        ({"sha256": "abc"}, "`sha256` must be 64 digits"),
        (None, "It must contain an object. Received: list"),
    ],
)
def test_the_error_names_a_damaged_card_and_the_problem(changes, said, folder):
    path = folder / "cards" / "made.json"
    fields = [] if changes is None else {**FIELDS, **changes}
    if changes == {"seed": None}:
        del fields["seed"]
    path.write_text(json.dumps(fields))
    message = rf"The card {path} is damaged: .*{said}.*Reinstall keras_ratesnn"
    with pytest.raises(ValueError, match=message):
        list_pretrained()
    # The others load nevertheless.
    load_pretrained("digits")


# The wheel.


def test_cards_and_weights_are_in_the_wheel():
    wheel = pytest.importorskip("hatchling.builders.wheel")
    files = wheel.WheelBuilder(str(ROOT)).recurse_included_files()
    included = {file.relative_path for file in files}
    for pattern in ("*.json", "*.keras"):
        paths = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob(pattern)}
        assert paths
        assert paths <= included

"""Pretrained networks in folders and on hubs: they load, what is damaged or hostile is
refused, no code is run."""

import json
import os
import pickle
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from made_networks import HuggingFace, Kaggle, sha256, small, write_network

from keras_ratesnn.models import load_pretrained
from keras_ratesnn.models.pretrained import place_to_publish

pytestmark = pytest.mark.runs_once


def write(folder, model=None):
    """Writes a network to a folder, without the page for people, which is not read."""
    write_network(model or small(), folder, folder, "card.json")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "hub")
    return tmp_path / "hub"


def test_files_are_published_in_a_folder_together_and_load(folder, tmp_path):
    place = place_to_publish(str(tmp_path / "other" / "place"))
    place.publish(str(folder))
    assert {path.name for path in place.path.iterdir()} == {"card.json", "made.keras"}
    assert load_pretrained(place.path).name == "made"


def test_a_place_to_publish_is_a_folder_or_a_hub_without_a_version(
    monkeypatch, tmp_path
):
    hub = HuggingFace(tmp_path)
    monkeypatch.setitem(sys.modules, hub.__name__, hub)
    assert place_to_publish("hf://some-one/digits").path is None
    message = r"must not name a version.*Received: 'hf://a/b@main'"
    with pytest.raises(ValueError, match=message):
        place_to_publish("hf://a/b@main")


def changed_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def with_hash(folder):
    """Of whoever made the file: a hash says nothing about what it is the hash of."""
    changed_card(folder, sha256=sha256(folder / "made.keras"))


def rewritten(folder, config=None, weights=None, compression=zipfile.ZIP_STORED, **new):
    """Changes what is in the weights file: functions of the configuration and of the
    HDF5 file, and further members."""
    path, weights_file = folder / "made.keras", folder / "weights.h5"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        changed = json.loads(members["config.json"])
        config(changed)
        members["config.json"] = json.dumps(changed)
    if weights is not None:
        weights_file.write_bytes(members["model.weights.h5"])
        with h5py.File(weights_file, "r+") as file:
            weights(file)
        members["model.weights.h5"] = weights_file.read_bytes()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**members, **new}.items():
            archive.writestr(name, content)
    with_hash(folder)


def refused(folder, said, error=ValueError):
    with pytest.raises(error, match=said):
        load_pretrained(folder)


# Addresses.
@pytest.mark.parametrize(
    "address", ["hf://user", "hf://../name", "hf://user/name@a/../b", "kaggle://a/b"]
)
def test_an_address_that_is_none_is_an_error(address):
    with pytest.raises(ValueError, match=r"must be hf://user/name, .*Received"):
        load_pretrained(address)


def test_a_missing_folder_or_file_is_named(folder):
    refused(folder / "nowhere", "There is no folder .*nowhere", FileNotFoundError)
    (folder / "made.keras").unlink()
    refused(folder, "made.keras", FileNotFoundError)
    (folder / "card.json").unlink()
    refused(folder, "card.json", FileNotFoundError)


def test_a_file_of_a_model_is_for_keras_to_load(folder, monkeypatch):
    monkeypatch.chdir(folder)
    said = r"must be .*name='.*made.keras'.*saving\.load_model\('.*made.keras'\)"
    for name in ("made.keras", folder / "made.keras"):
        refused(name, said)


@pytest.mark.parametrize(
    ("address", "package"),
    [("hf://a/b", "huggingface_hub"), ("kaggle://a/b/keras/d", "kagglehub")],
)
def test_the_error_names_the_package_of_a_hub_that_is_missing(
    address, package, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    said = f"`{address}` needs the package {package}, .* extra `hubs`: python -m pip"
    refused(address, said, ImportError)


@pytest.fixture
def hugging_face(folder, monkeypatch):
    hub = HuggingFace(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


def test_a_network_of_hugging_face_is_loaded_in_a_revision(hugging_face):
    model = load_pretrained("hf://some-one/digits@v1.0")
    assert model.name == "made"
    assert hugging_face.calls[-1] == ("some-one/digits", "made.keras", "v1.0", False)


def test_a_file_that_is_too_large_is_not_downloaded_and_errors_say_what_could_not_be(
    hugging_face,
):
    file = hugging_face.folder / "made.keras"
    os.truncate(file, 2**33)  # Of holes, which take no disk.
    refused("hf://a/b", "made.keras of hf://a/b has .* bytes, but may have")
    assert ("a/b", "made.keras", None, False) not in hugging_face.calls
    file.unlink()
    said = r"made.keras of hf://a/b cannot be downloaded \(KeyError: .*network connec"
    refused("hf://a/b", said, OSError)


def test_a_network_of_kaggle_is_loaded_in_a_version(folder, monkeypatch):
    hub = Kaggle(folder)
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    names = "me/digits/keras/small/3", "me/digits/keras/small"
    for name in names:
        load_pretrained(f"kaggle://{name}")
    files = "card.json", "made.keras"
    assert hub.calls == [(name, file) for name in names for file in files]


# Hostile folders.
def test_a_file_larger_than_its_card_explains_is_not_read(folder):
    os.truncate(folder / "made.keras", 2**33)
    refused(folder, "has 8589934592 bytes, but may have")
    changed_card(folder, parameters=10**15)
    refused(folder, "has 8589934592 bytes, but may have 2147483648")
    os.truncate(folder / "card.json", 2**33)
    refused(folder, "card.json has 8589934592 bytes")


def replaced(folder, name, content):
    (folder / name).write_bytes(content)
    with_hash(folder)


def linked(folder):
    (folder / "made.keras").rename(folder.parent / "made.keras")
    (folder / "made.keras").symlink_to(folder.parent / "made.keras")


def piped(folder):
    (folder / "made.keras").unlink()
    os.mkfifo(folder / "made.keras")


def appended(folder):
    (folder / "made.keras").write_bytes((folder / "made.keras").read_bytes() + b" ")


def too_long(folder):
    changed_card(folder, parameters=10**7)
    rewritten(folder, config=lambda config: config.update(padding=" " * 2**24))


def for_ages(folder):
    changed_card(folder, timesteps=10**9)
    rewritten(folder, config=lambda config: config["config"].update(timesteps=10**9))


def with_object(class_name, module, config=None, **more):
    """Puts a serialised object deep into the configuration."""
    thing = {"class_name": class_name, "module": module, "config": config or {}, **more}

    def damage(folder):
        rewritten(folder, config=lambda whole: whole["config"].update(extra=[[thing]]))

    return damage


def wide(config):
    config["config"]["network"]["config"]["layers"][-1]["config"]["units"] = 10**12


def plain_model(config):
    network = config["config"]["network"]
    config.clear()
    config.update(network)


def with_weights(change):
    return lambda folder: rewritten(folder, weights=change)


def bomb(file):
    file.create_dataset("bomb", (10**9,), "float32", chunks=(1000,))


def text(file):
    file["text"] = np.array([b"a"], dtype=h5py.string_dtype())


def elsewhere(file):
    file["outside"] = h5py.ExternalLink("/etc/passwd", "/")


def external(file):
    file.create_dataset("outside", (4,), "uint8", external=[("/etc/passwd", 0, 4)])


def incomplete(file):
    del file["layers"]


def circle(file):
    file["circle"] = file["/"]


def compressed(file):
    file.create_dataset("zeros", data=np.zeros(10**6), compression="gzip")


DAMAGES = [
    (with_weights(incomplete), r"'made' in .* cannot be loaded \("),
    (appended, "do not match its card: .*Ask its author"),
    (linked, "made.keras in .* is a link to .*, out of the folder"),
    (piped, "must be a file. It is a folder, a pipe or a device"),
    (
        lambda folder: changed_card(folder, file="../made.keras"),
        "card.json is damaged: `file` must be the name of a .keras file, without a "
        "folder.*Ask its author",
    ),
    (lambda f: (f / "card.json").write_text("[" * 200_000), "The card .* is damaged"),
    (
        lambda folder: rewritten(folder, **{"data.pkl": pickle.dumps(print)}),
        "must contain config.json, metadata.json, model.weights.h5 and nothing else, "
        "but contain .*data.pkl",
    ),
    (lambda f: rewritten(f, **{"../../evil.py": b""}), "and nothing else"),
    (lambda f: replaced(f, "made.keras", pickle.dumps(print)), "are not a .keras file"),
    (
        lambda folder: rewritten(folder, compression=zipfile.ZIP_DEFLATED),
        "in compressed form",
    ),
    (too_long, "contain config.json of .* bytes; the most are 16777216"),
    (
        lambda folder: rewritten(folder, **{"config.json": b"[" * 10**6}),
        "cannot be read: they are damaged or were made to be .RecursionError",
    ),
    (
        with_object("TFSMLayer", "keras.layers"),
        "contain a TFSMLayer, which would run code",
    ),
    (
        with_object("StringLookup", "keras.layers"),
        "a StringLookup, which may read other files",
    ),
    (
        with_object("Popen", "subprocess"),
        "contain subprocess.Popen, which is not a part of",
    ),
    (
        with_object("function", "os", "system"),
        "contain os.system, which is not a part of",
    ),
    (
        with_object("function", "keras.utils", "get_file", registered_name="get_file"),
        "contain keras.utils.get_file, which is not a part of networks",
    ),
    (
        lambda folder: rewritten(folder, config=wide),
        "declare 3000000000000 parameters, but the card says 9",
    ),
    (
        lambda folder: changed_card(folder, timesteps=4),
        "are for 2 time steps, but the card says 4. They were not loaded",
    ),
    (for_ages, "are for 1000000000 time steps; the most are 10000"),
    (
        lambda folder: rewritten(folder, config=plain_model),
        "must be those of a SpikingModel, but are those of a Functional",
    ),
    (
        with_weights(bomb),
        r"/bomb has the shape \(1000000000,\), more than the file contains",
    ),
    (with_weights(text), "/text, which is no array of numbers"),
    (with_weights(elsewhere), "/outside, a link to another place"),
    (with_weights(external), "/outside is stored in another file"),
    (with_weights(compressed), "/zeros, which is compressed"),
    (with_weights(circle), "/circle(/.*)?, .*|two places"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: "")
def test_a_folder_that_is_damaged_or_made_to_do_harm_is_refused(damage, said, folder):
    damage(folder)
    refused(folder, said)


def test_weights_that_are_nan_are_refused(tmp_path):
    model = small()
    bias = model.trainable_variables[1]
    bias.assign(np.full(bias.shape, np.nan))
    write(tmp_path, model)
    said = r"The weights of 'made' in .* are NaN or infinite in \['.*bias'\]. Ask their"
    refused(tmp_path, said)


def test_a_lambda_is_refused_also_where_the_user_allows_it_for_all_files(tmp_path):
    write(tmp_path, small(layers.Lambda(lambda x: x)))
    # Until Keras' session is cleared for the next test.
    keras.config.enable_unsafe_deserialization()
    refused(
        tmp_path,
        "contain a (Lambda|__lambda__), which would run code that is stored with it",
    )


def test_classes_that_the_user_has_registered_are_loaded(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Twice(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    write(tmp_path, small(Twice()))
    assert load_pretrained(tmp_path).count_params() == 9
    keras.saving.get_custom_objects().pop("mine>Twice")
    refused(tmp_path, "Twice, which is not a part of networks .* is not registered")

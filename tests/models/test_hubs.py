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

from keras_ratesnn import models

pytestmark = pytest.mark.runs_once


def write(folder, model=None):
    """Writes a network to a folder, without the page for people, which is not read."""
    write_network(model or small(), folder, folder, "card.json")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "hub")
    return tmp_path / "hub"


def test_files_are_published_in_a_folder_together_and_load(folder, tmp_path):
    place = models.place_to_publish(str(tmp_path / "other" / "place"))
    place.publish(str(folder))
    assert place.path == tmp_path / "other" / "place"
    assert sorted(path.name for path in place.path.iterdir()) == [
        "card.json",
        "made.keras",
    ]
    assert models.load_pretrained(place.path).name == "made"


def test_a_place_to_publish_is_a_folder_or_a_hub_without_a_version(
    monkeypatch, tmp_path
):
    hub = HuggingFace(tmp_path)
    monkeypatch.setitem(sys.modules, hub.__name__, hub)
    assert models.place_to_publish("hf://some-one/digits").path is None
    with pytest.raises(
        ValueError, match=r"must not name a version.*Received: 'hf://a/b@main'"
    ):
        models.place_to_publish("hf://a/b@main")


def changed_card(folder, **changes):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **changes}))


def with_hash(folder):
    """Of whoever made the file: a hash says nothing about what it is the hash of."""
    changed_card(folder, sha256=sha256(folder / "made.keras"))


def rewritten(
    folder, config=None, weights=None, compression=zipfile.ZIP_STORED, **more
):
    """Changes what is in the weights file: functions of the configuration and of the
    HDF5 file, and further members."""
    path, members = folder / "made.keras", {}
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        members["config.json"] = json.dumps(
            config(json.loads(members["config.json"]))
        ).encode()
    if weights is not None:
        (folder / "weights.h5").write_bytes(members["model.weights.h5"])
        with h5py.File(folder / "weights.h5", "r+") as file:
            weights(file)
        members["model.weights.h5"] = (folder / "weights.h5").read_bytes()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**members, **more}.items():
            archive.writestr(name, content)
    with_hash(folder)


def refused(folder, said, error=ValueError):
    with pytest.raises(error, match=said):
        models.load_pretrained(folder)


# Addresses.
def test_a_folder_with_a_card_and_its_weights_loads(tmp_path):
    model = small()
    write(tmp_path, model)
    for address in (tmp_path, str(tmp_path)):
        loaded = models.load_pretrained(address, timesteps=4)
        assert (
            loaded.name,
            loaded.timesteps,
            models.load_pretrained(address).timesteps,
        ) == ("made", 4, 2)
        np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize(
    "address",
    [
        "hf://user",
        "hf://../name",
        "hf://user/name@../x",
        "hf://user/name@a/../b",
        "kaggle://a/b",
        "s3://a/b",
    ],
)
def test_an_address_that_is_none_is_an_error(address):
    with pytest.raises(ValueError, match=r"must be hf://user/name, .*Received"):
        models.load_pretrained(address)


def test_a_missing_folder_or_file_is_named(folder):
    refused(folder / "nowhere", "There is no folder .*nowhere", FileNotFoundError)
    (folder / "made.keras").unlink()
    refused(folder, "made.keras", FileNotFoundError)
    (folder / "card.json").unlink()
    refused(folder, "card.json", FileNotFoundError)


def test_a_file_of_a_model_is_for_keras_to_load(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("made.keras", "./made.keras", folder / "made.keras"):
        refused(
            name,
            r"`name` must be .*Received: "
            r"name='.*made.keras'.*keras\.saving\.load_model\('.*made.keras'\)",
        )


@pytest.mark.parametrize(
    ("address", "package"),
    [("hf://a/b", "huggingface_hub"), ("kaggle://a/b/keras/d", "kagglehub")],
)
def test_the_error_names_the_package_of_a_hub_that_is_missing(
    address, package, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError,
        match=rf"`{address}` needs the package {package}, .* extra `hubs`: python -m "
        r"pip install",
    ):
        models.load_pretrained(address)


@pytest.fixture
def hugging_face(folder, monkeypatch):
    hub = HuggingFace(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


def test_a_network_of_hugging_face_is_loaded_in_a_revision(hugging_face):
    assert (
        models.load_pretrained("hf://some-one/digits@v1.0").count_params()
        == small().count_params()
    )
    assert hugging_face.calls[-1] == ("some-one/digits", "made.keras", "v1.0", False)


def test_a_file_that_is_too_large_is_not_downloaded(hugging_face):
    with open(hugging_face.folder / "made.keras", "r+b") as file:
        file.truncate(2**33)  # Of holes, which take no disk.
    refused("hf://a/b", "made.keras of hf://a/b has .* bytes, but may have")
    assert ("a/b", "made.keras", None, False) not in hugging_face.calls


def test_what_a_client_raises_is_an_error_that_says_what_could_not_be_downloaded(
    hugging_face,
):
    (hugging_face.folder / "made.keras").unlink()
    refused(
        "hf://a/b",
        r"made.keras of hf://a/b cannot be downloaded \(KeyError: .*network connection",
        OSError,
    )


def test_a_network_of_kaggle_is_loaded_in_a_version(folder, monkeypatch):
    hub = Kaggle(folder)
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    models.load_pretrained("kaggle://me/digits/keras/small/3")
    models.load_pretrained("kaggle://me/digits/keras/small")
    handle = "me/digits/keras/small"
    assert hub.calls == [
        (name, file)
        for name in (f"{handle}/3", handle)
        for file in ("card.json", "made.keras")
    ]


# Hostile folders.
def test_a_file_of_another_hash_is_refused(folder):
    (folder / "made.keras").write_bytes((folder / "made.keras").read_bytes() + b" ")
    refused(folder, "do not match its card: .*Ask its author")


@pytest.mark.parametrize(
    "file",
    [
        "../made.keras",
        "/etc/made.keras",
        "..\\made.keras",
        ".keras",
        "a/b.keras",
        "made.keras\n",
    ],
)
def test_a_card_that_names_a_file_elsewhere_is_refused(file, folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "file": file}))
    refused(
        folder,
        "card.json is damaged: `file` must be the name of a .keras file, without a "
        "folder.*Ask its author",
    )


@pytest.mark.parametrize("name", ["card.json", "made.keras"])
def test_a_link_out_of_the_folder_is_refused(name, folder, tmp_path):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    refused(folder, rf"{name} in .* is a link to .*, out of the folder")


def test_a_pipe_is_refused_instead_of_waited_for(folder):
    (folder / "made.keras").unlink()
    os.mkfifo(folder / "made.keras")
    refused(folder, "must be a file. It is a folder, a pipe or a device")


def test_a_file_larger_than_its_card_explains_is_not_read(folder):
    with open(folder / "made.keras", "r+b") as file:
        file.truncate(2**33)  # Of holes, which take no disk.
    refused(folder, "has 8589934592 bytes, but may have")
    changed_card(folder, parameters=10**15)
    refused(folder, "has 8589934592 bytes, but may have 2147483648")
    with open(folder / "card.json", "r+b") as file:
        file.truncate(2**33)
    refused(folder, "card.json has 8589934592 bytes")


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "\x00", "{}", '"card"']
)
def test_a_card_that_is_none_is_refused(text, folder):
    (folder / "card.json").write_text(text)
    refused(folder, "The card .* is damaged")


def test_pickles_and_other_members_are_refused(folder):
    rewritten(folder, **{"data.pkl": pickle.dumps(print)})
    refused(
        folder,
        "must contain config.json, metadata.json, model.weights.h5 and nothing else, "
        "but contain .*data.pkl",
    )
    (folder / "made.keras").write_bytes(pickle.dumps(print))
    with_hash(folder)
    refused(folder, "are not a .keras file")


@pytest.mark.parametrize(
    "name", ["../../evil.py", "/etc/evil", "assets/a/vocabulary.txt"]
)
def test_members_with_other_paths_are_refused(name, folder):
    rewritten(folder, **{name: b""})
    refused(folder, "and nothing else")


def test_compressed_members_are_refused(folder):
    rewritten(
        folder,
        config=lambda config: {**config, "padding": " " * 10**7},
        compression=zipfile.ZIP_DEFLATED,
    )
    refused(folder, "in compressed form")


def test_a_configuration_that_is_too_long_or_too_deep_is_refused(folder):
    changed_card(folder, parameters=10**7)
    rewritten(folder, config=lambda config: {**config, "padding": " " * 2**24})
    refused(folder, "contain config.json of .* bytes; the most are 16777216")
    path = folder / "made.keras"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": b"[" * 10**6}.items():
            archive.writestr(name, content)
    with_hash(folder)
    refused(
        folder, "cannot be read: they are damaged or were made to be .RecursionError"
    )


def test_a_lambda_is_refused_also_where_the_user_allows_it_for_all_files(tmp_path):
    write(tmp_path, small(layers.Lambda(lambda x: x)))
    # Until Keras' session is cleared for the next test.
    keras.config.enable_unsafe_deserialization()
    refused(
        tmp_path,
        "contain a (Lambda|__lambda__), which would run code that is stored with it",
    )


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (
            {"class_name": "TFSMLayer", "module": "keras.layers", "config": {}},
            "contain a TFSMLayer, which would run code",
        ),
        (
            {
                "class_name": "TorchModuleWrapper",
                "module": "keras.layers",
                "config": {},
            },
            "a TorchModuleWrapper",
        ),
        (
            {"class_name": "StringLookup", "module": "keras.layers", "config": {}},
            "a StringLookup, which may read other files",
        ),
        (
            {"class_name": "Popen", "module": "subprocess", "config": {}},
            "contain subprocess.Popen, which is not a part of",
        ),
        (
            {"class_name": "function", "module": "os", "config": "system"},
            "contain os.system, which is not a part of",
        ),
    ],
)
def test_other_code_is_refused_wherever_it_is_in_the_configuration(layer, said, folder):
    rewritten(
        folder,
        config=lambda config: {
            **config,
            "config": {**config["config"], "extra": [[layer]]},
        },
    )
    refused(folder, said)


def test_a_function_of_keras_that_reads_files_is_refused(folder):
    function = {
        "class_name": "function",
        "module": "keras.utils",
        "config": "get_file",
        "registered_name": "get_file",
    }

    def with_function(config):
        network = config["config"]["network"]["config"]
        network["layers"][-1]["config"]["activation"] = function
        return config

    rewritten(folder, config=with_function)
    refused(folder, "contain keras.utils.get_file, which is not a part of networks")


def test_a_network_of_more_parameters_than_its_card_is_refused_before_memory_is_taken(
    folder,
):
    def wide(config):
        config["config"]["network"]["config"]["layers"][-1]["config"]["units"] = 10**12
        return config

    rewritten(folder, config=wide)
    refused(folder, "declare 3000000000000 parameters, but the card says 9")


def test_a_network_of_other_or_too_many_time_steps_than_the_card_says_is_refused(
    folder,
):
    changed_card(folder, timesteps=4)
    refused(folder, "are for 2 time steps, but the card says 4. They were not loaded")

    def for_ages(config):
        return {**config, "config": {**config["config"], "timesteps": 10**9}}

    rewritten(folder, config=for_ages)
    changed_card(folder, timesteps=10**9)
    refused(folder, "are for 1000000000 time steps; the most are 10000")


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_nan_or_infinite_are_refused(value, tmp_path):
    model = small()
    model.trainable_variables[1].assign(
        np.full(model.trainable_variables[1].shape, value)
    )
    write(tmp_path, model)
    refused(
        tmp_path,
        r"The weights of 'made' in .* are NaN or infinite in \['.*bias'\]. Ask their "
        r"author",
    )


def test_a_model_that_is_no_spiking_model_is_refused(folder):
    rewritten(folder, config=lambda config: config["config"]["network"])
    refused(folder, "must be those of a SpikingModel, but are those of a Functional")


def _bomb(file):
    file.create_dataset("bomb", (10**9,), "float32", chunks=(1000,))


def _text(file):
    file["text"] = np.array([b"a"], dtype=h5py.string_dtype())


def _outside(file):
    file["outside"] = h5py.ExternalLink("/etc/passwd", "/")


def _external(file):
    file.create_dataset("outside", (4,), "uint8", external=[("/etc/passwd", 0, 4)])


def _circle(file):
    file["circle"] = file["/"]


def _compressed(file):
    file.create_dataset("zeros", data=np.zeros(10**6), compression="gzip")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (_bomb, r"/bomb has the shape \(1000000000,\), more than the file contains"),
        (_text, "/text, which is no array of numbers"),
        (_outside, "/outside, a link to another place"),
        (_external, "/outside is stored in another file"),
        (_compressed, "/zeros, which is compressed"),
        (_circle, "/circle(/.*)?, .*|two places"),
    ],
)
def test_weights_that_refer_elsewhere_or_declare_more_than_they_contain_are_refused(
    weights, said, folder
):
    rewritten(folder, weights=weights)
    refused(folder, said)


def test_classes_that_the_user_has_registered_are_loaded(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Twice(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    write(tmp_path, small(Twice()))
    assert models.load_pretrained(tmp_path).count_params() == 9
    keras.saving.get_custom_objects().pop("mine>Twice")
    refused(tmp_path, "Twice, which is not a part of networks .* is not registered")

"""Pretrained networks in folders and on hubs: published ones load, what is damaged or hostile is refused, no code is run."""

import dataclasses
import json
import os
import pickle
import sys
import types
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from keras.src.saving import serialization_lib

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.models.pretrained import _archive, _card, _files, _hubs
from recipes import hub_page, publish

pytestmark = pytest.mark.runs_once


RECORD = {
    "settings": {"name": "made", "gradient": "rate", "epochs": 3, "seed": 7},
    **{"test_accuracy": 0.5, "test_images": 4, "backend": "jax", "versions": {"keras": "3.15.1"}},
}


def small(*more):
    """A spiking network with further layers before its neurons."""
    x = inputs = keras.Input((2,))
    for layer in more:
        x = layer(x)
    return rsnn.SpikingModel(keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(x))), 2)


def published(folder, model=None, **kwargs):
    texts = {"name": "made", "data_set": "Noise: 4 images\n---", "preprocessing": "Bytes", "licence": "Apache-2.0"}
    return publish.publish(model or small(), RECORD, to=folder, accuracies={4: 0.75}, **{**texts, **kwargs})


@pytest.fixture
def folder(tmp_path):
    published(tmp_path / "hub")
    return tmp_path / "hub"


def changed_card(folder, **changes):
    card = _card.read(folder / "card.json", named_by_file=True)
    dataclasses.replace(card, **changes).write(folder, "card.json")


def with_hash(folder):
    """Of whoever made the file: a hash says nothing about what it is the hash of."""
    changed_card(folder, sha256=_files.sha256(folder / "made.keras"))


def rewritten(folder, config=None, weights=None, compression=zipfile.ZIP_STORED, **more):
    """Changes what is in the weights file: functions of the configuration and of the HDF5 file, and further members."""
    path, members = folder / "made.keras", {}
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        members["config.json"] = json.dumps(config(json.loads(members["config.json"]))).encode()
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


# The layout.
def test_a_published_folder_has_a_card_the_weights_and_a_page_and_loads(tmp_path):
    model, x = small(), np.ones((1, 2))
    card, path = published(tmp_path / "hub", model)
    assert sorted(file.name for file in (tmp_path / "hub").iterdir()) == ["README.md", "card.json", "made.keras"]
    assert path == tmp_path / "hub" / "made.keras"
    for address in (tmp_path / "hub", str(tmp_path / "hub")):
        loaded = models.load_pretrained(address, timesteps=4)
        assert (loaded.name, loaded.timesteps, card.accuracies) == ("made", 4, {2: 0.5, 4: 0.75})
        np.testing.assert_array_equal(
            loaded.network.predict(x, verbose=0), models.load_pretrained(address).network.predict(x, verbose=0)
        )
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_the_page_of_a_network_has_metrics_licence_and_citation_and_front_matter_that_no_text_can_break(folder):
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith("---\n")
    # YAML, of which JSON is a part.
    lines = page.removeprefix("---\n").split("---\n")[0].splitlines()
    head = {name: json.loads(value) for name, value in (line.split(": ", 1) for line in lines)}
    assert (head["license"], head["library_name"]) == ("apache-2.0", "keras")
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.5
    assert result["dataset"]["name"] == "Noise: 4 images\n---"
    assert "| 4 | 75.00% |" in page
    citing = (_files.FOLDER.parents[2] / "docs" / "citing.md").read_text(encoding="utf-8")
    assert hub_page.CITATION in page
    assert hub_page.CITATION in citing


def test_a_published_folder_is_replaced_only_on_request(folder):
    with pytest.raises(ValueError, match=r"there is a network in .*card.json. To replace it, add --replace"):
        published(folder)
    published(folder, replace=True)


def test_a_published_file_of_half_the_size_holds_the_network_that_was_tested(tmp_path, capsys, monkeypatch):
    run, hub = tmp_path / "run", tmp_path / "hub"
    run.mkdir()
    model = small(layers.Dense(9000), layers.BatchNormalization())
    model.save(run / "last.keras")
    (run / "result.json").write_text(json.dumps(RECORD))
    tested = []
    monkeypatch.setattr(publish, "measured", lambda model, *args: tested.append(model) or {2: 0.5})
    options = ["--name", "made", "--data-set", "Noise", "--preprocessing", "None", "--licence", "CC0-1.0", "--half"]
    assert publish.main([str(run), *options, "--to", str(hub)]) == 0
    loaded = models.load_pretrained(str(hub))
    for stored, weight, of_test in zip(loaded.weights, model.weights, tested[0].weights, strict=True):
        value, *others = map(keras.ops.convert_to_numpy, (weight, stored, of_test))
        rounded = value.astype("float16").astype("float32") if value.ndim > 1 else value
        for other in others:
            np.testing.assert_array_equal(other, rounded)
    sizes = [(folder / name).stat().st_size for folder, name in ((hub, "made.keras"), (run, "last.keras"))]
    assert sizes[0] < sizes[1]
    model.weights[0].assign(model.weights[0] + 1e5)
    model.save(run / "last.keras")
    assert publish.main([str(run), *options, "--to", str(tmp_path / "other")]) == 2
    assert "--half needs weights of at most 65504. Received: 1000" in capsys.readouterr().err


def test_the_command_line_publishes_a_run_to_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", HuggingFace(tmp_path))
    run, hub = tmp_path / "run", tmp_path / "hub"
    run.mkdir()
    small().save(run / "last.keras")
    (run / "result.json").write_text(json.dumps(RECORD))
    options = ["--name", "made", "--data-set", "Noise", "--preprocessing", "None", "--licence", "CC0-1.0"]
    assert publish.main([str(run), *options, "--to", str(hub)]) == 0
    assert f"load_pretrained({str(hub)!r}) loads it: test accuracy 0.5000, SHA-256" in capsys.readouterr().out
    assert models.load_pretrained(hub).timesteps == 2
    for address, said in ((str(hub), "--replace"), ("hf://a/b@main", "must not name a version"), ("hf://a", "hf://user/name")):
        assert publish.main([str(run), *options, "--to", address]) == 2
        assert said in capsys.readouterr().err


# Addresses.
@pytest.mark.parametrize(
    "address", ["hf://user", "hf://../name", "hf://user/name@../x", "hf://user/name@a/../b", "kaggle://a/b", "s3://a/b"]
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


@pytest.mark.parametrize(("address", "package"), [("hf://a/b", "huggingface_hub"), ("kaggle://a/b/keras/d", "kagglehub")])
def test_the_error_names_the_package_of_a_hub_that_is_missing(address, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"`{address}` needs the package {package}, .*\[hubs\]"):
        models.load_pretrained(address)


class HuggingFace(types.ModuleType):
    """The part of `huggingface_hub` that is called, on a folder."""

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.calls, self.created = folder, [], []

    def hf_hub_download(self, repo_id, filename, revision, library_name, dry_run=False):
        self.calls.append((repo_id, filename, revision, dry_run))
        path = self.folder / filename
        if not path.exists():
            raise KeyError(f"no {filename}")
        return types.SimpleNamespace(file_size=path.stat().st_size) if dry_run else str(path)

    def HfApi(self, library_name):
        def upload_folder(repo_id, folder_path, commit_message):
            self.created.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

        return types.SimpleNamespace(create_repo=lambda repo_id, exist_ok: None, upload_folder=upload_folder)


@pytest.fixture
def hugging_face(folder, monkeypatch):
    hub = HuggingFace(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


def test_a_network_of_hugging_face_is_loaded_in_a_revision_and_published(hugging_face):
    assert models.load_pretrained("hf://some-one/digits@v1.0").count_params() == small().count_params()
    assert hugging_face.calls[-1] == ("some-one/digits", "made.keras", "v1.0", False)
    published("hf://some-one/digits")
    assert hugging_face.created == [("some-one/digits", ["README.md", "card.json", "made.keras"])]
    with pytest.raises(ValueError, match="must not name a version"):
        published("hf://some-one/digits@v1.0")


def test_a_file_that_is_too_large_is_not_downloaded(hugging_face, monkeypatch):
    monkeypatch.setattr(_hubs, "_BESIDE_PARAMETERS", 10)
    refused("hf://a/b", "made.keras of hf://a/b has .* bytes, but may have")
    assert ("a/b", "made.keras", None, False) not in hugging_face.calls


def test_what_a_client_raises_is_an_error_that_says_what_could_not_be_downloaded(hugging_face):
    (hugging_face.folder / "made.keras").unlink()
    refused("hf://a/b", r"made.keras of hf://a/b cannot be downloaded \(KeyError: .*network connection", OSError)


def test_a_network_of_kaggle_is_loaded_in_a_version_and_published(folder, monkeypatch):
    calls, hub = [], types.ModuleType("kagglehub")
    hub.model_download = lambda handle, path: calls.append((handle, path)) or str(folder / path)
    hub.model_upload = lambda handle, local_model_dir, version_notes: calls.append(
        (handle, sorted(os.listdir(local_model_dir)))
    )
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    models.load_pretrained("kaggle://me/digits/keras/small/3")
    models.load_pretrained("kaggle://me/digits/keras/small")
    published("kaggle://me/digits/keras/small")
    handle = "me/digits/keras/small"
    files = [("card.json"), ("made.keras")]
    assert calls[:4] == [(f"{handle}/3", files[0]), (f"{handle}/3", files[1]), (handle, files[0]), (handle, files[1])]
    assert calls[4] == (handle, ["README.md", "card.json", "made.keras"])
    with pytest.raises(ValueError, match="must not name a version"):
        published("kaggle://me/digits/keras/small/3")


# Hostile folders.
def test_a_file_of_another_hash_is_refused(folder):
    (folder / "made.keras").write_bytes((folder / "made.keras").read_bytes() + b" ")
    refused(folder, "do not match its card: .*Ask its author")


@pytest.mark.parametrize("file", ["../made.keras", "/etc/made.keras", "..\\made.keras", ".keras", "a/b.keras", "made.keras\n"])
def test_a_card_that_names_a_file_elsewhere_is_refused(file, folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "file": file}))
    refused(folder, "card.json is damaged: `file` must be the name of a .keras file, without a folder.*Ask its author")


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


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "\x00", "{}", '"card"'])
def test_a_card_that_is_none_is_refused(text, folder):
    (folder / "card.json").write_text(text)
    refused(folder, "The card .* is damaged")


def test_pickles_and_other_members_are_refused(folder):
    rewritten(folder, **{"data.pkl": pickle.dumps(print)})
    refused(folder, "must contain config.json, metadata.json, model.weights.h5 and nothing else, but contain .*data.pkl")
    (folder / "made.keras").write_bytes(pickle.dumps(print))
    with_hash(folder)
    refused(folder, "are not a .keras file")


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/evil", "assets/a/vocabulary.txt"])
def test_members_with_other_paths_are_refused(name, folder):
    rewritten(folder, **{name: b""})
    refused(folder, "and nothing else")


def test_compressed_members_are_refused(folder):
    rewritten(folder, config=lambda config: {**config, "padding": " " * 10**7}, compression=zipfile.ZIP_DEFLATED)
    refused(folder, "in compressed form")


def test_a_configuration_that_is_too_long_or_too_deep_is_refused(folder, monkeypatch):
    monkeypatch.setattr(_archive, "_LONGEST", {"config.json": 100})
    refused(folder, "contain config.json of .* bytes; the most are 100")
    monkeypatch.undo()
    path = folder / "made.keras"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": b"[" * 10**6}.items():
            archive.writestr(name, content)
    with_hash(folder)
    refused(folder, "cannot be read: they are damaged or were made to be .RecursionError")


def test_a_lambda_is_refused_also_where_the_user_allows_it_for_all_files(tmp_path, monkeypatch):
    published(tmp_path, small(layers.Lambda(lambda x: x)))
    with serialization_lib.SafeModeScope(False):
        refused(tmp_path, "contain a (Lambda|__lambda__), which would run code that is stored with it")
        # Keras would refuse it, too.
        monkeypatch.setattr(_archive, "_FOREIGN", ())
        refused(tmp_path, "unsafe_deserialization")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"class_name": "TFSMLayer", "module": "keras.layers", "config": {}}, "contain a TFSMLayer, which would run code"),
        ({"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {}}, "a TorchModuleWrapper"),
        ({"class_name": "StringLookup", "module": "keras.layers", "config": {}}, "a StringLookup, which may read other files"),
        ({"class_name": "Popen", "module": "subprocess", "config": {}}, "contain subprocess.Popen, which is not a part of"),
        ({"class_name": "function", "module": "os", "config": "system"}, "contain os.system, which is not a part of"),
    ],
)
def test_other_code_is_refused_wherever_it_is_in_the_configuration(layer, said, folder):
    rewritten(folder, config=lambda config: {**config, "config": {**config["config"], "extra": [[layer]]}})
    refused(folder, said)


def test_a_function_of_keras_that_reads_files_is_refused(folder):
    function = {"class_name": "function", "module": "keras.utils", "config": "get_file", "registered_name": "get_file"}

    def with_function(config):
        network = config["config"]["network"]["config"]
        network["layers"][-1]["config"]["activation"] = function
        return config

    rewritten(folder, config=with_function)
    refused(folder, "contain keras.utils.get_file, which is not a part of networks")


def test_a_network_of_more_parameters_than_the_card_says_is_refused_before_memory_is_taken(folder):
    def wide(config):
        config["config"]["network"]["config"]["layers"][-1]["config"]["units"] = 10**12
        return config

    rewritten(folder, config=wide)
    refused(folder, "declare 3000000000000 parameters, but the card says 9")


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
        (_bomb, r"/bomb, which has the shape \(1000000000,\), more than the file contains"),
        (_text, "/text, which is no array of numbers"),
        (_outside, "/outside, a link to another place"),
        (_external, "/outside, which is stored in another file"),
        (_compressed, "/zeros, which is compressed"),
        (_circle, "/circle(/.*)?, .*|two places"),
    ],
)
def test_weights_that_refer_elsewhere_or_declare_more_than_they_contain_are_refused(weights, said, folder):
    rewritten(folder, weights=weights)
    refused(folder, said)


def test_classes_that_the_user_has_registered_are_loaded(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Twice(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    published(tmp_path, small(Twice()))
    assert models.load_pretrained(tmp_path).count_params() == 9
    keras.saving.get_custom_objects().pop("mine>Twice")
    refused(tmp_path, "Twice, which is not a part of networks .* is not registered")

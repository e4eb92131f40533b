"""The audit of a file, as a command."""

import json

import keras
import numpy as np
import pytest
from helpers import chain
from keras import layers
from published_cases import FOLDER

import keras_ratesnn as rsnn
from recipes import audit
from tests.recipes.recipe_runs import error_of


def files_of(folder, *arguments):
    """The page and the numbers that the command writes."""
    assert audit.main([*arguments, "--output", str(folder)]) == 0
    assert (folder / "audit.png").exists()
    page = (folder / "audit.md").read_text()
    return page, json.loads((folder / "audit.json").read_text())


def test_two_audits_print_the_same_and_say_that_images_are_drawn(tmp_path, capsys):
    file = str(FOLDER / "ratebp_vgg11.pth")
    printed = []
    for run in ("one", "two"):
        page, content = files_of(tmp_path / run, file, "--samples", "3")
        printed.append(capsys.readouterr().out)
        assert printed[-1] in page
    assert printed[0] == printed[1]
    assert content["data"] == "3 images (drawn, of no data set)"
    assert page.count("3 of 3 images (drawn, of no data set)") == 3
    assert "assumed: timesteps=4" in content["origin"]


def test_what_weights_do_not_tell_is_an_argument(tmp_path, capsys):
    file, folder = str(FOLDER / "spikformer_cifar.pth"), tmp_path / "files"
    arguments = ["--network", "spikformer", "--samples", "2", "--arguments"]
    _, content = files_of(folder, file, *arguments, '{"heads": 4}')
    assert content["timesteps"] == 2
    assert audit.main([file, "--output", str(folder)]) == 2
    assert "heads" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "digits" else pytest.mark.slow)
        for name in rsnn.models.list_pretrained()
    ],
)
def test_shipped_networks_are_audited(name, tmp_path):
    data = ["--data", "digits"] if name == "digits" else []
    page, content = files_of(tmp_path / "files", name, *data)
    assert content["dependence"] == ""
    assert page.startswith(f"# Audit of {name}\n")
    assert (content["accuracy"] is None) == (not data)


def test_a_file_of_keras_and_a_folder_of_images_are_read(tmp_path):
    parts = layers.Flatten(), rsnn.layers.LIF(), layers.Dense(2)
    network = chain(*parts, shape=(4, 4, 3))
    rsnn.SpikingModel(network, timesteps=2).save(tmp_path / "saved.keras")
    for label, pixels in enumerate((0, 255)):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True)
        image = np.full((6, 5, 3), pixels)
        keras.utils.save_img(folder / "image.png", image, scale=False)
    images = str(tmp_path / "images")
    saved = str(tmp_path / "saved.keras")
    _, content = files_of(tmp_path / "files", saved, "--data", images)
    assert content["data"] == f"2 images ({images})"
    assert sum(content["accuracy"]) == pytest.approx(1.0)


def save(path, inputs, outputs):
    """Writes a `.keras` file of a network with neurons before its outputs."""
    x = layers.Dense(2)(rsnn.layers.LIF()(outputs))
    rsnn.SpikingModel(keras.Model(inputs, x), timesteps=2).save(path)


def test_a_folder_keeps_the_audit_of_one_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((3,))
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        save(folder / "net.keras", inputs, inputs)
    # The same file has two names.
    for name in ("net.keras", str(tmp_path / "net.keras")):
        assert audit.main([name, "--samples", "2"]) == 0
    capsys.readouterr()
    error = error_of(["other/net.keras"], capsys, audit.main)
    assert "audits/net.keras contains the audit of another file" in error
    assert "--output" in error


def test_what_cannot_be_audited_is_said_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((3,))
    save("whole.keras", inputs, inputs)
    whole = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.pth").write_bytes(b"PK")
    indices = keras.Input((3,), dtype="int32")
    save("embedding.keras", indices, layers.Embedding(9, 4)(indices))
    two = [keras.Input((3,)), keras.Input((4,))]
    save("two.keras", two, layers.Concatenate()(two))
    image = keras.Input((None, None, 3))
    save("sizeless.keras", image, layers.GlobalAveragePooling2D()(image))
    keras.Model(inputs, layers.Dense(2)(inputs)).save("ordinary.keras")
    for arguments, said in {
        "nosuch": "one of digits, fashion_mnist",
        "absent.keras": "Received: absent.keras",
        "cut.keras": "cut.keras is damaged",
        "cut.pth": "path='cut.pth', but it",
        "embedding.keras": "takes indices, for an Embedding. Audit it in Python",
        "two.keras": "takes 2 inputs",
        "sizeless.keras": "takes inputs of any size, (None, None, 3)",
        "ordinary.keras": "Wrap a network with neurons in SpikingModel",
        "whole.keras --data digits": "must have shape (batch, 3)",
        "whole.keras --data digits_segmentation": "that classify images",
    }.items():
        error = error_of(arguments.split(), capsys, audit.main)
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "audits").exists()

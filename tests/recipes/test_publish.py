"""`recipes.publish`: what a finished run becomes in the package, in a folder and on a
hub, and what is not published."""

import json
import shutil
import sys
import zipfile

import helpers
import keras
import numpy as np
import pytest
from keras import layers
from made_networks import PACKAGE, HuggingFace, Kaggle, packaged, sha256, small

import keras_ratesnn as rsnn
from keras_ratesnn import models
from recipes import publish

pytestmark = pytest.mark.runs_once


ARGUMENTS = {"input_shape": [16, 16, 3], "classes": 3, "width": 0.05}
"""Of a small VGG-11."""


RECORD = {
    "settings": {"name": "made", "gradient": "rate", "epochs": 3, "seed": 7},
    **{
        "test_accuracy": 0.5,
        "test_images": 4,
        "backend": "jax",
        "versions": {"keras": "3.15.1"},
    },
}


OPTIONS = [
    "--name",
    "made",
    "--data-set",
    "Noise",
    "--preprocessing",
    "None",
    "--licence",
    "CC0-1.0",
]


def published(model=None, **kwargs):
    texts = {
        "name": "made",
        "data_set": "Noise: 4 images\n---",
        "preprocessing": "Bytes",
        "licence": "Apache-2.0",
    }
    return publish.publish(
        model or small(), RECORD, accuracies={4: 0.75}, **{**texts, **kwargs}
    )


def finished(run, model):
    """The folder of a run that has trained a model, as text."""
    run.mkdir(exist_ok=True)
    model.save(run / "last.keras")
    (run / "result.json").write_text(json.dumps(RECORD))
    return str(run)


def vgg():
    return models.VGG11(**ARGUMENTS, timesteps=2)


def test_a_published_file_has_no_optimizer_and_its_card_describes_the_training(
    tmp_path, monkeypatch
):
    model = helpers.compiled(helpers.spiking(), keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    made, path = published(model, folder=tmp_path)
    assert path == tmp_path / "weights" / "made.keras"
    assert not keras.saving.load_model(path).compiled
    with zipfile.ZipFile(path) as archive:
        assert b"optimizer" not in archive.read("model.weights.h5") + archive.read(
            "config.json"
        )
    packaged(monkeypatch, tmp_path)
    assert made == models.list_pretrained()["made"]
    assert (made.architecture, made.arguments, made.timesteps, made.seed) == (
        "made",
        {},
        3,
        7,
    )
    assert (made.parameters, made.sha256, made.test_accuracy) == (
        model.count_params(),
        sha256(path),
        0.5,
    )
    further = {
        **RECORD,
        "settings": {
            **RECORD["settings"],
            "random_timesteps": [1, 4],
            "start_from": "digits",
        },
    }
    texts = {
        "name": "further",
        "data_set": "Noise",
        "preprocessing": "None",
        "licence": "CC0-1.0",
    }
    card, _ = publish.publish(model, further, folder=tmp_path, **texts)
    assert card.gradient == "rate, T from 1 to 4, from the weights of digits"


def test_a_finished_run_is_published_by_the_command_line(tmp_path, monkeypatch, capsys):
    run, folder = tmp_path / "run", tmp_path / "package"
    command = [
        finished(run, helpers.compiled(helpers.spiking())),
        *OPTIONS,
        "--folder",
        str(folder),
    ]
    assert publish.main(command) == 0
    packaged(monkeypatch, folder)
    assert models.list_pretrained()["made"].licence == "CC0-1.0"
    assert models.load_pretrained("made").timesteps == 3

    # Another network takes its name only on request.
    assert publish.main(command) == 2
    assert "To replace it, add --replace" in capsys.readouterr().err
    command.append("--replace")
    url = (run / "made.keras").as_uri()
    assert publish.main([*command, "--url", url]) == 0
    assert models.list_pretrained()["made"].url == url
    assert (run / "made.keras").exists()
    assert f"upload them to {url}" in capsys.readouterr().out

    assert (
        publish.main([*command, "--architecture", "VGG11", "--arguments", '{"a": 1}'])
        == 2
    )
    assert "'a'" in capsys.readouterr().err
    monkeypatch.setattr(publish, "LARGEST_SHIPPED", 10)
    assert publish.main(command) == 2
    assert "--url" in capsys.readouterr().err
    assert publish.main([str(tmp_path / "nowhere"), *command[1:]]) == 2
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "name=''"),
        ({"name": "../a"}, "`name`"),
        ({"name": "last"}, "that of a checkpoint"),
        ({"arguments": {"b": 1}}, "`arg"),
        ({"architecture": "VGG12"}, "`architecture` must be one of .*'VGG11'"),
        ({"architecture": "load_pretrained"}, "`architecture` must be one of"),
        (
            {"architecture": "VGG13", "arguments": ARGUMENTS},
            r"^`architecture` and `arguments` must build .* another network",
        ),
        (
            {"architecture": "VGG11", "arguments": {**ARGUMENTS, "width": 0.1}},
            "belongs to another network",
        ),
    ],
)
def test_what_does_not_fit_is_not_published(options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        published(vgg(), folder=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_fits_a_part_of_the_network_is_published(tmp_path):
    network = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Rescaling(1 / 255), vgg().network]
    )
    card, _ = published(
        rsnn.SpikingModel(network, 2),
        folder=tmp_path,
        architecture="VGG11",
        arguments=ARGUMENTS,
    )
    assert card.network == "VGG11(input_shape=[16, 16, 3], classes=3, width=0.05)"


@pytest.mark.parametrize("place", ["package", "folder"])
def test_publishing_that_is_interrupted_leaves_the_network_before(
    place, tmp_path, monkeypatch
):
    """By Ctrl-C or a full disk while a file is copied; and what a killed process leaves
    behind is no network."""
    packaged(monkeypatch, tmp_path)
    where, name = (
        ({"folder": tmp_path}, "made")
        if place == "package"
        else ({"to": tmp_path}, tmp_path)
    )
    copy, other = shutil.copyfile, small(layers.Dense(2))

    def found():
        return {
            path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        }

    published(**where)
    before = found()
    for error in (KeyboardInterrupt(), OSError("No space left on device")):
        for whole in range(len(before)):
            copied = []

            def interrupted(file, part, copied=copied, whole=whole, error=error):
                copied.append(copy(file, part))
                if len(copied) > whole:
                    part.write_bytes(b"half")
                    raise error

            with monkeypatch.context() as patched:
                patched.setattr(shutil, "copyfile", interrupted)
                with pytest.raises(type(error)) as raised:
                    published(other, **where, replace=True)
            assert isinstance(
                error, KeyboardInterrupt
            ) or "cannot be written (No space left" in str(raised.value)
            assert found() == before
    for path in before:
        path.with_name(f".unfinished-{path.name}").write_bytes(b"half")
    assert [*models.list_pretrained()] == (["made"] if place == "package" else [])
    assert len(models.load_pretrained(name).get_weights()) == 2
    published(other, **where, replace=True)
    assert len(models.load_pretrained(name).get_weights()) == 4
    assert sorted(found()) == sorted(before)


def test_a_published_folder_has_a_card_the_weights_and_a_page_and_loads(tmp_path):
    model, x = small(), np.ones((1, 2))
    card, path = published(model, to=tmp_path / "hub")
    assert sorted(file.name for file in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "card.json",
        "made.keras",
    ]
    assert path == tmp_path / "hub" / "made.keras"
    for address in (tmp_path / "hub", str(tmp_path / "hub")):
        loaded = models.load_pretrained(address, timesteps=4)
        assert (loaded.name, loaded.timesteps, card.accuracies) == (
            "made",
            4,
            {2: 0.5, 4: 0.75},
        )
        np.testing.assert_array_equal(
            loaded.network.predict(x, verbose=0),
            models.load_pretrained(address).network.predict(x, verbose=0),
        )
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_the_page_of_a_network_has_metrics_licence_citation_and_safe_front_matter(
    tmp_path,
):
    published(to=tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert page.startswith("---\n")
    # YAML, of which JSON is a part.
    lines = page.removeprefix("---\n").split("---\n")[0].splitlines()
    head = {
        name: json.loads(value)
        for name, value in (line.split(": ", 1) for line in lines)
    }
    assert (head["license"], head["library_name"]) == ("apache-2.0", "keras")
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.5
    assert result["dataset"]["name"] == "Noise: 4 images\n---"
    assert "| 4 | 75.00% |" in page
    citing = (PACKAGE.parents[2] / "docs" / "citing.md").read_text(encoding="utf-8")
    citation = page.split("```bibtex\n")[1].split("```")[0]
    assert "2410.11488" in citation
    assert citation in citing


@pytest.mark.parametrize(
    ("address", "library"),
    [
        ("", "keras_ratesnn"),
        ("https://example.org", "[keras_ratesnn](https://example.org)"),
    ],
)
def test_the_page_of_a_network_links_to_the_library_where_it_has_an_address(
    address, library, tmp_path, monkeypatch
):
    monkeypatch.setattr(publish.addresses, "repository", lambda: address)
    published(to=tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"made with {library}:" in page


def test_a_published_file_of_half_the_size_holds_the_network_that_was_tested(
    tmp_path, capsys, monkeypatch
):
    run, hub = tmp_path / "run", tmp_path / "hub"
    model = small(layers.Dense(9000), layers.BatchNormalization())
    command, tested = [finished(run, model), *OPTIONS, "--half", "--to"], []
    monkeypatch.setattr(
        publish, "measured", lambda model, *args: tested.append(model) or {2: 0.5}
    )
    assert publish.main([*command, str(hub)]) == 0
    loaded = models.load_pretrained(str(hub))
    for stored, weight, of_test in zip(
        loaded.weights, model.weights, tested[0].weights, strict=True
    ):
        value, *others = map(keras.ops.convert_to_numpy, (weight, stored, of_test))
        rounded = value.astype("float16").astype("float32") if value.ndim > 1 else value
        for other in others:
            np.testing.assert_array_equal(other, rounded)
    sizes = [
        (folder / name).stat().st_size
        for folder, name in ((hub, "made.keras"), (run, "last.keras"))
    ]
    assert sizes[0] < sizes[1]
    model.weights[0].assign(model.weights[0] + 1e5)
    finished(run, model)
    assert publish.main([*command, str(tmp_path / "other")]) == 2
    assert (
        "--half needs weights of at most 65504. Received: 1000"
        in capsys.readouterr().err
    )


def test_the_command_line_publishes_a_run_to_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", HuggingFace(tmp_path))
    hub = tmp_path / "hub"
    command = [finished(tmp_path / "run", small()), *OPTIONS, "--to"]
    assert publish.main([*command, str(hub)]) == 0
    assert (
        f"load_pretrained({str(hub)!r}) loads it: test accuracy 0.5000, SHA-256"
        in capsys.readouterr().out
    )
    assert models.load_pretrained(hub).timesteps == 2
    for address, said in (
        (str(hub), "--replace"),
        ("hf://a/b@main", "must not name a version"),
        ("hf://a", "hf://user/name"),
    ):
        assert publish.main([*command, address]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("client", "address", "version"),
    [
        (HuggingFace, "hf://some-one/digits", "@v1.0"),
        (Kaggle, "kaggle://me/digits/keras/small", "/3"),
    ],
)
def test_a_network_is_published_on_a_hub_in_a_new_version(
    client, address, version, tmp_path, monkeypatch
):
    hub = client(tmp_path)
    monkeypatch.setitem(sys.modules, hub.__name__, hub)
    published(to=address)
    assert hub.created == [
        (address.split("://")[1], ["README.md", "card.json", "made.keras"])
    ]
    with pytest.raises(ValueError, match="must not name a version"):
        published(to=address + version)

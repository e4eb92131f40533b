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

from keras_ratesnn import models
from recipes import command_line, publish

RECORD = {
    "settings": {"name": "made", "gradient": "rate", "epochs": 3, "seed": 7},
    "test_accuracy": 0.5,
    "test_images": 4,
    "backend": "jax",
    "versions": {"keras": "3.15.1"},
}
OPTIONS = "--name made --data-set Noise --preprocessing None --licence CC0-1.0"
TEXTS = {
    "name": "made",
    "data_set": "Noise: 4 images\n---",
    "preprocessing": "Bytes",
    "licence": "Apache-2.0",
}


def published(model=None, record=RECORD, **options):
    parser = command_line.parser("publish", "Publishes.", publish.add_arguments)
    arguments = parser.parse_args(["run", *OPTIONS.split()])
    vars(arguments).update(TEXTS | options)
    place = publish.checked_place(arguments, record)
    model = model or small()
    accuracies = {model.timesteps: record["test_accuracy"], 4: 0.75}
    return publish.publish(model, record, arguments, place, accuracies)


def finished(run, model):
    """The folder of a run that has trained a model, as text."""
    run.mkdir(exist_ok=True)
    model.save(run / "last.keras")
    (run / "result.json").write_text(json.dumps(RECORD))
    return str(run)


def test_a_published_file_has_no_optimizer_and_its_card_describes_the_training(
    tmp_path, monkeypatch
):
    model = helpers.compiled(helpers.spiking(), keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    made, path = published(model, folder=tmp_path)
    assert path == tmp_path / "weights" / "made.keras"
    assert not keras.saving.load_model(path).compiled
    with zipfile.ZipFile(path) as archive:
        names = "model.weights.h5", "config.json"
        assert b"optimizer" not in b"".join(map(archive.read, names))
    packaged(monkeypatch, tmp_path)
    assert made == models.list_pretrained()["made"]
    network = (made.architecture, made.arguments, made.timesteps, made.seed)
    assert network == ("made", {}, 3, 7)
    facts = (made.parameters, made.sha256, made.test_accuracy)
    assert facts == (model.count_params(), sha256(path), 0.5)
    settings = {"random_timesteps": [1, 4], "start_from": "digits"}
    record = {**RECORD, "settings": {**RECORD["settings"], **settings}}
    card, _ = published(model, record, folder=tmp_path, name="further")
    assert card.gradient == "rate, T from 1 to 4, from the weights of digits"


def test_a_name_is_given_again_only_on_request(tmp_path, monkeypatch, capsys):
    path = finished(tmp_path / "run", small())
    command = [path, *OPTIONS.split(), "--folder", str(tmp_path / "package")]
    assert publish.main(command) == 0
    assert publish.main(command) == 2
    assert "To replace it, add --replace" in capsys.readouterr().err
    command.append("--replace")
    assert publish.main(command) == 0

    nowhere = [str(tmp_path / "nowhere"), *command[1:]]
    monkeypatch.setattr(publish, "LARGEST_SHIPPED", 10)
    for arguments, said in ((nowhere, nowhere[0]), (command, "--to")):
        assert publish.main(arguments) == 2
        assert said in capsys.readouterr().err


def test_what_does_not_fit_is_not_published(tmp_path):
    for name, said in (("../a", "`name`"), ("last", "that of a checkpoint")):
        with pytest.raises(ValueError, match=said):
            published(folder=tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["package", "folder"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_publishing_that_is_interrupted_leaves_the_network_before(
    place, error, tmp_path, monkeypatch
):
    """By Ctrl-C or a full disk while a file is copied; and what a killed process leaves
    behind is no network."""
    packaged(monkeypatch, tmp_path)
    is_package = place == "package"
    where = {"folder" if is_package else "to": tmp_path, "replace": True}
    copy, replacement = shutil.copyfile, small(layers.Dense(2))

    def contents():
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    published(**where)
    before = contents()
    for whole in range(len(before)):
        left = iter(range(whole))

        def interrupted(file, part, left=left):
            copy(file, part)
            if next(left, None) is None:
                part.write_bytes(b"half")
                raise error("No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copyfile", interrupted)
            with pytest.raises(error, match="No space left"):
                published(replacement, **where)
        assert contents() == before
    for path in before:
        path.with_name(f".unfinished-{path.name}").write_bytes(b"half")
    assert [*models.list_pretrained()] == ["made"] * is_package
    name = "made" if is_package else tmp_path
    assert len(models.load_pretrained(name).get_weights()) == 2
    published(replacement, **where)
    assert len(models.load_pretrained(name).get_weights()) == 4
    assert sorted(contents()) == sorted(before)


def test_a_published_folder_has_a_card_the_weights_and_a_page_and_loads(tmp_path):
    model, hub, x = small(), tmp_path / "hub", np.ones((1, 2))
    card, path = published(model, to=hub)
    names = sorted(file.name for file in hub.iterdir())
    assert names == ["README.md", "card.json", "made.keras"]
    assert path == hub / "made.keras"
    assert card.accuracies == {2: 0.5, 4: 0.75}
    outputs = model.network.predict(x, verbose=0)
    for address in (hub, str(hub)):
        loaded = models.load_pretrained(address, timesteps=4)
        assert (loaded.name, loaded.timesteps) == ("made", 4)
        again = loaded.network.predict(x, verbose=0)
        np.testing.assert_array_equal(again, outputs)
    page = (hub / "README.md").read_text(encoding="utf-8")
    # YAML, of which JSON is a part: no text of a card ends it.
    begin, front_matter, text = page.split("---\n", 2)
    assert begin == ""
    pairs = (line.split(": ", 1) for line in front_matter.splitlines())
    head = {name: json.loads(value) for name, value in pairs}
    assert (head["license"], head["library_name"]) == ("apache-2.0", "keras")
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.5
    assert result["dataset"]["name"] == TEXTS["data_set"]
    assert "| 4 | 75.00% |" in text
    citing = (PACKAGE.parents[2] / "docs" / "citing.md").read_text(encoding="utf-8")
    citation = text.split("```bibtex\n")[1].split("```")[0]
    assert "2410.11488" in citation
    assert citation in citing


def test_a_published_file_of_half_the_size_holds_the_network_that_was_tested(
    tmp_path, capsys, monkeypatch
):
    run, hub = tmp_path / "run", tmp_path / "hub"
    model = small(layers.Dense(9000), layers.BatchNormalization())
    command, tested = [finished(run, model), *OPTIONS.split(), "--half", "--to"], []
    monkeypatch.setattr(
        publish, "measured", lambda model, *args: tested.append(model) or {2: 0.5}
    )
    assert publish.main([*command, str(hub)]) == 0
    printed = capsys.readouterr().out
    assert f"{hub / 'made.keras'}: test accuracy 0.5000, SHA-256 " in printed
    assert f"load_pretrained({str(hub)!r}) loads it" in printed
    loaded = models.load_pretrained(str(hub))
    for weight, *stored in zip(
        model.weights, loaded.weights, tested[0].weights, strict=True
    ):
        value = helpers.to_numpy(weight)
        rounded = value.astype("float16").astype("float32") if value.ndim > 1 else value
        for weight_again in stored:
            np.testing.assert_array_equal(helpers.to_numpy(weight_again), rounded)
    whole, half = run / "last.keras", hub / "made.keras"
    assert half.stat().st_size < whole.stat().st_size
    model.weights[0].assign(model.weights[0] + 1e5)
    finished(run, model)
    assert publish.main([*command, str(tmp_path / "other")]) == 2
    said = "--half needs weights of at most 65504. Received: 1000"
    assert said in capsys.readouterr().err
    # A folder that is there is replaced only on request.
    assert publish.main([*command, str(hub)]) == 2
    assert "--replace" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (HuggingFace, "hf://some-one/digits"),
        (Kaggle, "kaggle://me/digits/keras/small"),
    ],
)
def test_a_network_is_published_on_a_hub(client, address, tmp_path, monkeypatch):
    hub = client(tmp_path)
    monkeypatch.setitem(sys.modules, hub.__name__, hub)
    published(to=address)
    files = ["README.md", "card.json", "made.keras"]
    assert hub.created == [(address.split("://")[1], files)]

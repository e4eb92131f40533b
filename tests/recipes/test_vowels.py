"""Speech in sequences of unequal length: its files, their errors, and a recipe that
trains on it."""

import re

import numpy as np
import pytest

from keras_ratesnn import layers
from keras_ratesnn.models import load_pretrained
from recipes import catalogue, publish
from recipes import run as recipes_run
from recipes.compare import results, shuffled
from recipes.data import japanese_vowels
from recipes.run_folder import load_model
from tests.recipes.recipe_runs import (
    error_of,
    trained,
)

pytestmark = pytest.mark.runs_once

T = japanese_vowels.LONGEST


def write_vowels(folder, samples=18, seed=0):
    """The two files, with sequences of which the class shows in the first channel;
    returns the sequences of the tests."""
    random = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for name in japanese_vowels.FILES:
        sequences, lines = [], ["#a comment", "@problemName JapaneseVowels", "@data"]
        for label in sorted(
            range(samples), key=lambda sample: sample % japanese_vowels.CLASSES
        ):
            sequence = random.normal(
                0.0, 0.1, (random.integers(7, T + 1), japanese_vowels.CHANNELS)
            ).round(6)
            sequence[:, 0] += label % japanese_vowels.CLASSES
            sequences.append(sequence)
            channels = [",".join(map(str, channel)) for channel in sequence.T]
            lines.append(
                ":".join([*channels, str(label % japanese_vowels.CLASSES + 1)])
            )
        (folder / name).write_text("\n".join(lines) + "\n")
    return sequences


def test_sequences_are_padded_and_standardised_by_those_of_training(tmp_path):
    sequences = write_vowels(tmp_path / "data")
    data = japanese_vowels.load(tmp_path / "data", T + 1)
    assert data.train_images.shape == data.test_images.shape == (18, T + 1, 12)
    counts = np.isfinite(data.test_images[..., 0]).sum(axis=1)
    assert counts.tolist() == [len(sequence) for sequence in sequences]
    assert all(
        np.isnan(row[count:]).all()
        for row, count in zip(data.test_images, counts, strict=True)
    )
    steps = data.train_images[np.isfinite(data.train_images[..., 0])]
    np.testing.assert_allclose(steps.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(steps.std(axis=0), 1.0, rtol=1e-5)
    raw, _ = japanese_vowels.read_ts(tmp_path / "data" / japanese_vowels.FILES[0])
    raw = np.concatenate(raw)
    np.testing.assert_allclose(
        data.test_images[0, 0],
        (sequences[0][0] - raw.mean(axis=0)) / raw.std(axis=0),
        rtol=1e-4,
    )
    assert len(set(data.train_labels[:6].tolist())) > 3


SMALL = ("width=0.0625", "epochs=1", "batch_size=16", "windows=1")


def train(folder, *settings):
    """Trains the recipe for an epoch on written files; returns the folder of the run
    and its record."""
    write_vowels(folder / "data")
    path = folder / "run"
    arguments = (
        "japanese_vowels",
        "--data-dir",
        str(folder / "data"),
        "--set",
        *SMALL,
        *settings,
    )
    return path, trained(path, *arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("leaky"))


@pytest.fixture(scope="module")
def run_with_delays(tmp_path_factory):
    return train(tmp_path_factory.mktemp("delays"), "temporal=delays")


@pytest.mark.on_each_backend
def test_the_recipe_trains(run):
    _, record = run
    assert np.isfinite(record["curve"]["loss"]).all()
    assert record["score"] == "accuracy"


def test_padding_stays_padding_in_a_published_network_which_teaches_sequences(
    run, tmp_path
):
    path, record = run
    texts = (
        "--name",
        "vowels",
        "--data-set",
        "speech",
        "--preprocessing",
        "none",
        "--licence",
        "Apache-2.0",
    )
    assert publish.main([str(path), *texts, "--to", str(tmp_path / "hub")]) == 0
    data = japanese_vowels.load(path.parent / "data", T)
    found = load_pretrained(tmp_path / "hub").predict(data.test_images, verbose=0)
    assert np.isfinite(found).all()
    assert np.mean(found.argmax(-1) == data.test_labels) == pytest.approx(
        record["test_accuracy"], abs=1e-6
    )
    taught = train(tmp_path, f"teachers={tmp_path / 'hub'}", "teacher_weight=0.5")[1]
    assert np.isfinite(taught["curve"]["loss"]).all()


def test_padding_is_no_step_that_teaches_the_others(tmp_path):
    write_vowels(tmp_path)
    recipe = catalogue.find("japanese_vowels").with_settings(
        ["width=0.0625", "step_distillation=0.5"]
    )
    data = recipe.load(tmp_path)
    model = recipes_run.build(recipe, data)
    fitted = recipes_run.to_fit(model, recipe, data)
    # So that all neurons spike, and a step of padding would be one of the first class.
    random = np.random.default_rng(0)
    model.set_weights(
        [random.normal(0, 2, weight.shape) ** 2 / 2 for weight in model.get_weights()]
    )
    *_, bias = model.trainable_variables
    bias.assign(10.0 * np.eye(japanese_vowels.CLASSES)[0])
    measured = fitted.evaluate(
        data.test_images, data.test_labels, return_dict=True, verbose=0
    )
    right = model.predict(data.test_images, verbose=0).argmax(-1) == data.test_labels
    assert measured["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert np.isfinite(measured["loss"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("recurrent", layers.Recurrent),
        ("sliding_psn", layers.SlidingPSN),
        ("delays", layers.Delay),
    ],
)
def test_a_network_has_the_temporal_part_that_is_set(name, kind):
    recipe = catalogue.find("japanese_vowels").with_settings([f"temporal={name}"])
    kinds = [type(layer) for layer in recipe.network().layers]
    parts = (layers.Recurrent, layers.SlidingPSN, layers.Delay)
    assert [part for part in parts if part in kinds] == [kind]
    assert kinds.count(kind) == 2


def test_kernels_of_delays_become_narrow_in_a_quarter_of_the_epochs(run_with_delays):
    path, _ = run_with_delays
    recipe = catalogue.find("japanese_vowels").with_settings(["temporal=delays"])
    (lower,) = recipes_run._changes_in_time(recipe)
    assert lower.epochs == recipe.epochs // 4
    network = load_model(path / "last.keras").network
    delays = [layer for layer in network.layers if isinstance(layer, layers.Delay)]
    # An epoch begins with the width that it trains with.
    assert [layer.sigma for layer in delays] == [2, 2]


def test_the_accuracy_of_shuffled_spikes_is_in_the_result_and_in_short_tables(
    run, run_with_delays, tmp_path, capsys
):
    (path, record), (_, with_delays) = run, run_with_delays
    assert shuffled.main([str(path), "--data-dir", str(path.parent / "data")]) == 0
    found = results.RunFolder(path).read_result()
    assert {**record, "shuffled_accuracy": found["shuffled_accuracy"]} == found
    assert 0 <= found["shuffled_accuracy"] <= 1
    place = (
        "<!-- results of japanese_vowels: made by python -m "
        "recipes.compare.results -->\n\nold\n\n<!-- end of results -->"
    )
    heading, _, *rows = results.with_tables(place, [found, with_delays]).splitlines()[
        2:-2
    ]
    assert heading.endswith("| test accuracy | shuffled in time |")
    names = [row.split(" | ")[0] for row in rows]
    assert names == ["| rate", "| rate with delays"]
    assert [row.split(" | ")[-1] for row in rows] == [
        f"{found['shuffled_accuracy']:.4f} |",
        " |",
    ]
    assert results.SHUFFLED not in results.with_tables(place, [with_delays])
    capsys.readouterr()
    assert "not finished" in error_of([tmp_path], capsys, shuffled.main)
    assert f"There is no folder {tmp_path / 'nowhere'}" in error_of(
        [tmp_path / "nowhere"], capsys, shuffled.main
    )


def test_the_files_of_aeon_are_found_without_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "aeon" / "datasets" / "data" / "JapaneseVowels"
    folder.mkdir(parents=True)
    (tmp_path / "aeon" / "__init__.py").write_text("raise RuntimeError('imported')")
    write_vowels(folder)
    monkeypatch.syspath_prepend(tmp_path)
    assert japanese_vowels.load(None, T).train_size == 18


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2:3,4:1", "must have 12 channels of one length"),
        (
            ":".join(["1,2"] * 11 + ["1,2,3", "1"]),
            r"Received: 12 channels of lengths \[2, 3\], class '1'",
        ),
        (":".join(["1,2"] * 12 + ["10"]), "a class from 1 to 9"),
        (":".join(["1,x"] * 12 + ["1"]), "must hold numbers"),
        (":".join(["1,nan"] * 12 + ["1"]), "must hold finite numbers"),
        (":".join([",".join(["1"] * 30)] * 12 + ["1"]), "one length from 1 to 29"),
        ("", "has no sequences after a line @data"),
    ],
)
def test_files_of_another_format_are_errors_that_name_the_line(tmp_path, line, said):
    path = tmp_path / "file.ts"
    path.write_text(f"@data\n{line}\n")
    with pytest.raises(ValueError, match=said) as error:
        japanese_vowels.read_ts(path)
    assert str(path) in str(error.value)


def test_other_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"`timesteps` must be at least 29.*timesteps=4"
    ):
        japanese_vowels.load(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match=re.escape(japanese_vowels.FILES[0])):
        japanese_vowels.load(tmp_path, T)
    monkeypatch.setattr(japanese_vowels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install -e ".\[timeseries\]"'):
        japanese_vowels.load(None, T)
    with open(tmp_path / "large.ts", "wb") as file:
        file.truncate(japanese_vowels.LARGEST_FILE + 1)
    with pytest.raises(ValueError, match="is larger than 16 MiB"):
        japanese_vowels.read_ts(tmp_path / "large.ts")

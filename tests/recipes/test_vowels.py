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

T = japanese_vowels.LONGEST


def write_vowels(folder, samples=18):
    """The two files, with sequences of which the class shows in the first channel;
    returns the sequences of the tests."""
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for name in japanese_vowels.FILES:
        sequences, lines = [], ["#a comment", "@problemName JapaneseVowels", "@data"]
        for label in np.sort(np.arange(samples) % japanese_vowels.CLASSES):
            shape = random.integers(7, T + 1), japanese_vowels.CHANNELS
            sequence = random.normal(0.0, 0.1, shape).round(6)
            sequence[:, 0] += label
            sequences.append(sequence)
            channels = [",".join(map(str, channel)) for channel in sequence.T]
            lines.append(":".join([*channels, str(label + 1)]))
        (folder / name).write_text("\n".join(lines) + "\n")
    return sequences


def test_sequences_are_padded_and_standardised_by_those_of_training(tmp_path):
    sequences = write_vowels(tmp_path)
    data = japanese_vowels.load(tmp_path, T + 1)
    assert data.train_images.shape == data.test_images.shape == (18, T + 1, 12)
    raw, _ = japanese_vowels.read_ts(tmp_path / japanese_vowels.FILES[0])
    raw = np.concatenate(raw)
    for row, sequence in zip(data.test_images, sequences, strict=True):
        expected = (sequence - raw.mean(axis=0)) / raw.std(axis=0)
        np.testing.assert_allclose(row[: len(sequence)], expected, rtol=1e-3, atol=1e-4)
        assert np.isnan(row[len(sequence) :]).all()
    assert len(set(data.train_labels[:6].tolist())) > 3


SMALL = ("width=0.0625", "epochs=1", "batch_size=16", "windows=1")


def train(folder, *settings):
    """Trains the recipe for an epoch on written files; returns the folder of the run
    and its record."""
    write_vowels(folder / "data")
    path = folder / "run"
    data = ("--data-dir", str(folder / "data"))
    settings = ("--set", *SMALL, *settings)
    return path, trained(path, "japanese_vowels", *data, *settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("leaky"))


@pytest.fixture(scope="module")
def run_with_delays(tmp_path_factory):
    return train(tmp_path_factory.mktemp("delays"), "temporal=delays")


def test_the_recipe_trains(run):
    _, record = run
    assert np.isfinite(record["curve"]["loss"]).all()
    assert record["score"] == "accuracy"


def test_padding_stays_padding_in_a_published_network_which_teaches_sequences(
    run, tmp_path
):
    path, record = run
    texts = "--name vowels --data-set speech --preprocessing none --licence MIT"
    hub = ["--to", str(tmp_path / "hub")]
    assert publish.main([str(path), *texts.split(), *hub]) == 0
    data = japanese_vowels.load(path.parent / "data", T)
    outputs = load_pretrained(tmp_path / "hub").predict(data.test_images, verbose=0)
    assert np.isfinite(outputs).all()
    right = outputs.argmax(-1) == data.test_labels
    assert right.mean() == pytest.approx(record["test_accuracy"], abs=1e-6)
    taught = train(tmp_path, f"teachers={tmp_path / 'hub'}", "teacher_weight=0.5")[1]
    assert np.isfinite(taught["curve"]["loss"]).all()


def test_padding_is_no_step_that_teaches_the_others(tmp_path):
    write_vowels(tmp_path)
    settings = ["width=0.0625", "step_distillation=0.5"]
    recipe = catalogue.find("japanese_vowels").with_settings(settings)
    data = recipe.load(tmp_path)
    model = recipes_run.build(recipe, data)
    fitted = recipes_run.to_fit(model, recipe, data)
    # So that all neurons spike, and a step of padding would be one of the first class.
    random = np.random.default_rng(0)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([random.normal(0, 2, shape) ** 2 / 2 for shape in shapes])
    *_, bias = model.trainable_variables
    bias.assign(10.0 * np.eye(japanese_vowels.CLASSES)[0])
    test = data.test_images, data.test_labels
    measured = fitted.evaluate(*test, return_dict=True, verbose=0)
    right = model.predict(data.test_images, verbose=0).argmax(-1) == data.test_labels
    assert measured["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert np.isfinite(measured["loss"])


PARTS = {
    "recurrent": layers.Recurrent,
    "sliding_psn": layers.SlidingPSN,
    "delays": layers.Delay,
}


def test_a_network_has_the_temporal_part_that_is_set():
    recipe = catalogue.find("japanese_vowels")
    for name, kind in PARTS.items():
        network = recipe.with_settings([f"temporal={name}"]).network()
        kinds = [type(layer) for layer in network.layers]
        assert [part for part in PARTS.values() if part in kinds] == [kind]
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
    written = results.RunFolder(path).read_result()
    accuracy = written["shuffled_accuracy"]
    assert {**record, "shuffled_accuracy": accuracy} == written
    assert 0 <= accuracy <= 1
    place = (
        "<!-- results of japanese_vowels: made by python -m "
        "recipes.compare.results -->\n\nold\n\n<!-- end of results -->"
    )
    table = results.with_tables(place, [written, with_delays]).splitlines()[2:-2]
    cells = [row.strip("|").split(" | ") for row in table]
    assert cells[0][-1] == "shuffled in time "
    assert [row[0] for row in cells[2:]] == [" rate", " rate with delays"]
    assert [row[-1].strip() for row in cells[2:]] == [f"{accuracy:.4f}", ""]
    assert results.SHUFFLED not in results.with_tables(place, [with_delays])
    capsys.readouterr()
    assert "is not finished" in error_of([tmp_path / "no"], capsys, shuffled.main)


def test_the_files_of_aeon_are_found_without_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "aeon" / "datasets" / "data" / "JapaneseVowels"
    folder.mkdir(parents=True)
    (tmp_path / "aeon" / "__init__.py").write_text("raise RuntimeError('imported')")
    write_vowels(folder)
    monkeypatch.syspath_prepend(tmp_path)
    assert japanese_vowels.load(None, T).train_size == 18


WRONG = ["1,2:3,4:1", "1,2:" * 11 + "1,2,3:1", "1,2:" * 12 + "10", "1,x:" * 12 + "1"]
WRONG += ["1,nan:" * 12 + "1", ("1," * 29 + "1:") * 12 + "1"]


def test_files_of_another_format_are_errors_that_name_the_file_and_the_line(tmp_path):
    path = tmp_path / "file.ts"
    for line in WRONG:
        path.write_text(f"#\n@data\n{line}\n")
        with pytest.raises(ValueError, match="must have 12 channels") as error:
            japanese_vowels.read_ts(path)
        assert str(path) in str(error.value)
        assert line[:60] in str(error.value)
    path.write_text("#\n@data\n")
    with pytest.raises(ValueError, match="no sequences after a line @data"):
        japanese_vowels.read_ts(path)


def test_other_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"`timesteps` must be at least 29.*timest"):
        japanese_vowels.load(tmp_path, 4)
    with pytest.raises(FileNotFoundError, match=re.escape(japanese_vowels.FILES[0])):
        japanese_vowels.load(tmp_path, T)
    monkeypatch.setattr(japanese_vowels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install -e ".\[timeseries\]"'):
        japanese_vowels.load(None, T)

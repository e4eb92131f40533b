"""Speech in sequences of unequal length: its files, their errors, and a recipe that trains on it."""

import re

import numpy as np
import pytest
from recipe_runs import trained

from recipes.data import japanese_vowels

pytestmark = pytest.mark.runs_once

T = japanese_vowels.LONGEST


def write(folder, samples=18, seed=0):
    """The two files, with sequences of which the class shows in the first channel; returns the sequences of the tests."""
    random = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for name in japanese_vowels.FILES:
        sequences, lines = [], ["#a comment", "@problemName JapaneseVowels", "@data"]
        for label in sorted(range(samples), key=lambda sample: sample % japanese_vowels.CLASSES):
            sequence = random.normal(0.0, 0.1, (random.integers(7, T + 1), japanese_vowels.CHANNELS)).round(6)
            sequence[:, 0] += label % japanese_vowels.CLASSES
            sequences.append(sequence)
            channels = [",".join(map(str, channel)) for channel in sequence.T]
            lines.append(":".join([*channels, str(label % japanese_vowels.CLASSES + 1)]))
        (folder / name).write_text("\n".join(lines) + "\n")
    return sequences


def test_sequences_are_padded_and_standardised_by_those_of_training(tmp_path):
    sequences = write(tmp_path / "data")
    data = japanese_vowels.load(tmp_path / "data", T + 1)
    assert data.train_images.shape == data.test_images.shape == (18, T + 1, 12)
    counts = np.isfinite(data.test_images[..., 0]).sum(axis=1)
    assert counts.tolist() == [len(sequence) for sequence in sequences]
    assert all(np.isnan(row[count:]).all() for row, count in zip(data.test_images, counts, strict=True))
    steps = data.train_images[np.isfinite(data.train_images[..., 0])]
    np.testing.assert_allclose(steps.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(steps.std(axis=0), 1.0, rtol=1e-5)
    raw, _ = japanese_vowels.read_ts(tmp_path / "data" / japanese_vowels.FILES[0])
    raw = np.concatenate(raw)
    np.testing.assert_allclose(data.test_images[0, 0], (sequences[0][0] - raw.mean(axis=0)) / raw.std(axis=0), rtol=1e-4)
    assert len(set(data.train_labels[:6].tolist())) > 3


@pytest.mark.on_each_backend
def test_the_recipe_trains(tmp_path):
    write(tmp_path / "data")
    settings = ("width=0.125", "epochs=1", "batch_size=16", "windows=1")
    record = trained(tmp_path / "run", "japanese_vowels", "--data-dir", str(tmp_path / "data"), "--set", *settings)
    assert np.isfinite(record["curve"]["loss"]).all()
    assert record["score"] == "accuracy"


def test_the_files_of_aeon_are_found_without_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "aeon" / "datasets" / "data" / "JapaneseVowels"
    folder.mkdir(parents=True)
    (tmp_path / "aeon" / "__init__.py").write_text("raise RuntimeError('imported')")
    write(folder)
    monkeypatch.syspath_prepend(tmp_path)
    assert japanese_vowels.load(None, T).train_size == 18


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2:3,4:1", "must have 12 channels of one length"),
        (":".join(["1,2"] * 11 + ["1,2,3", "1"]), r"Received: 12 channels of lengths \[2, 3\], class '1'"),
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
    with pytest.raises(ValueError, match=r"`timesteps` must be at least 29.*timesteps=4"):
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

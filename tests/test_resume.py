"""A run that is stopped, however, goes on with the same command and comes out the same."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from recipe_runs import QUICKLY, error_of, trained

from recipes import callbacks, run
from recipes.run_folder import RunFolder
from recipes.train import main

ROOT = pathlib.Path(__file__).parent.parent
EPOCHS = 4
RUN = ("digits", "--set", f"epochs={EPOCHS}", "augment=fashion_mnist", *QUICKLY)
SECONDS = 240


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The record of a run that nobody stopped."""
    return trained(tmp_path_factory.mktemp("whole"), *RUN)


def stopped_at_the_end_of(epoch, folder, monkeypatch, error=KeyboardInterrupt):
    """A run that is stopped after it logged an epoch, before it saved it."""
    save = callbacks.Checkpoint.on_epoch_end

    def stop(self, number, logs=None):
        if number == epoch:
            raise error
        save(self, number, logs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpoint, "on_epoch_end", stop)
        return main([*RUN, "--output", str(folder)])


def curve_without_times(record):
    return {name: values for name, values in record["curve"].items() if name not in ("seconds", "images_per_second")}


def test_a_run_that_was_stopped_goes_on_to_the_same_curve(whole_run, tmp_path, monkeypatch, capsys):
    assert stopped_at_the_end_of(2, tmp_path, monkeypatch) == 130
    assert "the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "result.json").exists()
    keras.saving.load_model(tmp_path / "last.keras")

    record = trained(tmp_path, *RUN)
    assert "goes on after 2 epochs" in capsys.readouterr().out
    # Order, augmentation, momentum, learning rate: all as they would have been, to rounding.
    for name, values in curve_without_times(record).items():
        np.testing.assert_allclose(values, whole_run["curve"][name], rtol=2e-2, atol=2e-2, err_msg=name)
    assert record["curve"]["learning_rate"] == pytest.approx(whole_run["curve"]["learning_rate"], abs=1e-7)


def test_a_run_that_is_killed_goes_on_to_the_same_accuracy(whole_run, tmp_path):
    """`kill -9`, in the middle of an epoch."""
    command = [sys.executable, "-m", "recipes.train", *RUN, "--output", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "last.keras").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "result.json").exists()

    record = trained(tmp_path, *RUN)
    assert len(record["curve"]["loss"]) == EPOCHS
    assert record["test_accuracy"] == pytest.approx(whole_run["test_accuracy"], abs=0.03)


def test_a_finished_run_is_not_trained_again_but_on_request(whole_run, tmp_path, capsys):
    first = trained(tmp_path, "digits", "--set", "epochs=1", *QUICKLY)
    capsys.readouterr()
    command = ["digits", "--output", str(tmp_path), "--set", "epochs=1", *QUICKLY]
    assert main(command) == 0
    assert f"test accuracy: {first['test_accuracy']:.4f}" in capsys.readouterr().out
    written = (tmp_path / "result.json").stat().st_mtime_ns
    assert main([*command, "--restart"]) == 0
    assert (tmp_path / "result.json").stat().st_mtime_ns > written
    assert len(RunFolder(tmp_path).rows()) == 1


def test_a_folder_of_a_run_with_other_settings_is_left_alone(tmp_path, capsys):
    trained(tmp_path, "digits", "--set", "epochs=1", *QUICKLY)
    kept = (tmp_path / "result.json").read_bytes()
    capsys.readouterr()
    error = error_of(["digits", "--output", tmp_path, "--set", "epochs=2", *QUICKLY], capsys)
    assert "epochs=1, now 2" in error
    assert "--restart" in error
    assert (tmp_path / "result.json").read_bytes() == kept


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_checkpoint_is_named_and_kept(content, tmp_path, monkeypatch, capsys):
    stopped_at_the_end_of(1, tmp_path, monkeypatch)
    path = tmp_path / "last.keras"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    capsys.readouterr()
    error = error_of([*RUN, "--output", tmp_path], capsys)
    assert str(path) in error
    assert path.exists()


def test_a_damaged_settings_file_or_log_is_named(tmp_path, monkeypatch, capsys):
    stopped_at_the_end_of(2, tmp_path, monkeypatch)
    log = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text("epoch\n")
    capsys.readouterr()
    assert str(tmp_path / "log.csv") in error_of([*RUN, "--output", tmp_path], capsys)
    (tmp_path / "log.csv").write_text(log)
    (tmp_path / "settings.json").write_text("{")
    assert str(tmp_path / "settings.json") in error_of([*RUN, "--output", tmp_path], capsys)


def test_a_checkpoint_holds_the_momentum_and_the_step(tmp_path, monkeypatch):
    stopped_at_the_end_of(1, tmp_path, monkeypatch)
    saved = keras.saving.load_model(tmp_path / "last.keras")
    assert int(saved.optimizer.iterations) == 3
    momenta = [variable for variable in saved.optimizer.variables if "momentum" in variable.path]
    assert momenta
    assert all(keras.ops.convert_to_numpy(variable).any() for variable in momenta)


def test_the_best_checkpoint_stays_the_best_after_a_stop(tmp_path, monkeypatch):
    stopped_at_the_end_of(1, tmp_path, monkeypatch)
    checkpoint = callbacks.Checkpoint(tmp_path / "last.keras", tmp_path / "best.keras", best_accuracy=0.9)
    checkpoint.set_model(keras.saving.load_model(tmp_path / "last.keras"))
    before = (tmp_path / "best.keras").stat().st_mtime_ns
    checkpoint.on_epoch_end(2, {"val_accuracy": 0.8})
    assert (tmp_path / "best.keras").stat().st_mtime_ns == before
    checkpoint.on_epoch_end(3, {"val_accuracy": 0.95})
    assert (tmp_path / "best.keras").stat().st_mtime_ns > before


def test_a_resumed_run_knows_the_best_accuracy_so_far(tmp_path, monkeypatch):
    stopped_at_the_end_of(2, tmp_path, monkeypatch)
    seen = {}

    class Seeing(callbacks.Checkpoint):
        def __init__(self, last, best, best_accuracy):
            seen["best"] = best_accuracy
            super().__init__(last, best, best_accuracy)

    monkeypatch.setattr(run.callbacks, "Checkpoint", Seeing)
    record = trained(tmp_path, *RUN)
    assert seen["best"] == max(record["curve"]["test_accuracy"][:2])
    assert json.loads((tmp_path / "settings.json").read_text())["epochs"] == EPOCHS

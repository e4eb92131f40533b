"""A run that is stopped, however, goes on with the same command and comes out the same."""

import contextlib
import io
import json
import os
import pathlib
import shutil
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


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """`(folder, exit status, what was printed)` of a run stopped after it logged its third epoch, before it saved it."""
    save = callbacks.Checkpoint.on_epoch_end

    def stop(self, number, logs=None):
        if number == 2:
            raise KeyboardInterrupt
        save(self, number, logs)

    folder, printed = tmp_path_factory.mktemp("stopped"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(callbacks.Checkpoint, "on_epoch_end", stop)
        status = main([*RUN, "--output", str(folder)])
    return folder, status, printed.getvalue()


@pytest.fixture
def folder(stopped_run, tmp_path):
    """A folder of one's own of that run."""
    return shutil.copytree(stopped_run[0], tmp_path / "run")


def curve_without_times(record):
    return {name: values for name, values in record["curve"].items() if name not in ("seconds", "images_per_second")}


def test_a_run_that_was_stopped_goes_on_to_the_same_curve(whole_run, stopped_run, folder, capsys):
    _, status, printed = stopped_run
    assert status == 130
    assert "the same command goes on" in printed
    assert not (folder / "result.json").exists()
    keras.saving.load_model(folder / "last.keras")

    record = trained(folder, *RUN)
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
def test_a_damaged_checkpoint_is_named_and_kept(content, folder, capsys):
    path = folder / "last.keras"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    error = error_of([*RUN, "--output", folder], capsys)
    assert str(path) in error
    assert path.exists()


def test_a_damaged_settings_file_or_log_is_named(folder, capsys):
    log = (folder / "log.csv").read_text()
    (folder / "log.csv").write_text("epoch\n")
    assert str(folder / "log.csv") in error_of([*RUN, "--output", folder], capsys)
    (folder / "log.csv").write_text(log)
    (folder / "settings.json").write_text("{")
    assert str(folder / "settings.json") in error_of([*RUN, "--output", folder], capsys)


def test_a_checkpoint_holds_the_momentum_and_the_step(folder):
    saved = keras.saving.load_model(folder / "last.keras")
    # Two epochs of two batches.
    assert int(saved.optimizer.iterations) == 4
    momenta = [variable for variable in saved.optimizer.variables if "momentum" in variable.path]
    assert momenta
    assert all(keras.ops.convert_to_numpy(variable).any() for variable in momenta)


def test_the_best_checkpoint_stays_the_best_after_a_stop(folder):
    checkpoint = callbacks.Checkpoint(folder / "last.keras", folder / "best.keras", best_accuracy=0.9)
    checkpoint.set_model(keras.saving.load_model(folder / "last.keras"))
    before = (folder / "best.keras").stat().st_mtime_ns
    checkpoint.on_epoch_end(2, {"val_accuracy": 0.8})
    assert (folder / "best.keras").stat().st_mtime_ns == before
    checkpoint.on_epoch_end(3, {"val_accuracy": 0.95})
    assert (folder / "best.keras").stat().st_mtime_ns > before


def test_a_resumed_run_knows_the_best_accuracy_so_far(folder, monkeypatch):
    seen = {}

    class Seeing(callbacks.Checkpoint):
        def __init__(self, last, best, best_accuracy):
            seen["best"] = best_accuracy
            super().__init__(last, best, best_accuracy)

    monkeypatch.setattr(run.callbacks, "Checkpoint", Seeing)
    record = trained(folder, *RUN)
    assert seen["best"] == max(record["curve"]["test_accuracy"][:2])
    assert json.loads((folder / "settings.json").read_text())["epochs"] == EPOCHS

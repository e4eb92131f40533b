"""Interrupted runs resume with the same command and give the same result; what is left,
and what is said, if they stop in any phase."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from helpers import assert_close, chain, compiled, spiking

import keras_ratesnn
from recipes import callbacks, device, evaluate, run_folder
from recipes.benchmark.measure import recorded_at_once
from recipes.recipe import Recipe
from recipes.run_folder import RunFolder
from recipes.train import main
from tests.recipes.recipe_runs import (
    QUICKLY,
    assert_same_states,
    curve_without_times,
    error_of,
    stopped,
    trained,
)

ROOT = pathlib.Path(__file__).parents[2]
EPOCHS = 3
RUN = ("digits", "--set", f"epochs={EPOCHS}", "augment=fashion_mnist", *QUICKLY)
SHORT = ("digits", "--set", "epochs=1", *QUICKLY)
SECONDS = 240


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The record of an uninterrupted run, whose calls PyTorch records."""
    with recorded_at_once():
        return trained(tmp_path_factory.mktemp("whole"), *RUN)


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """`(folder, output)` of a run interrupted at the end of its third epoch, before it
    was saved."""
    folder, printed = tmp_path_factory.mktemp("stopped"), io.StringIO()
    with recorded_at_once(), contextlib.redirect_stdout(printed):
        stopped(folder, 2, *RUN)
    return folder, printed.getvalue()


@pytest.fixture
def folder(stopped_run, tmp_path):
    """A separate copy of the folder of that run."""
    return shutil.copytree(stopped_run[0], tmp_path / "run")


@pytest.mark.backends(3)
def test_an_interrupted_run_resumes_to_the_same_curve(
    whole_run, stopped_run, folder, capsys
):
    stopped_folder, printed = stopped_run
    resume = (
        "repeat the command without --restart to resume after the last completed "
        "epoch, which is saved in"
    )
    assert f"{resume} {stopped_folder}" in printed
    assert not (folder / "result.json").exists()
    with recorded_at_once():
        record = trained(folder, *RUN)
    assert "resumes after 2 epochs" in capsys.readouterr().out
    # Order, augmentation, momentum, learning rate: all as they would have been.
    assert curve_without_times(record) == curve_without_times(whole_run)


def test_a_finished_run_is_trained_again_and_changed_only_on_request(
    tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "run"
    record, whole = trained(folder, *SHORT), contents(folder)
    command = [*SHORT, "--output", str(folder)]
    capsys.readouterr()
    assert main(command) == 0
    score = f"test accuracy: {record['test_accuracy']:.4f}"
    assert score in capsys.readouterr().out
    error = error_of([*command, "--set", "epochs=2"], capsys)
    assert "epochs=1, now 2" in error
    assert "--restart" in error
    assert contents(folder) == whole
    # Killed before it wrote its result, it writes the same one, though another process
    # has another peak of memory.
    (folder / "result.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(device, "peak_bytes", lambda: 2**40)
        assert trained(folder, *SHORT) == record
    written = (folder / "last.keras").stat().st_mtime_ns
    assert main([*command, "--restart"]) == 0
    assert (folder / "last.keras").stat().st_mtime_ns > written
    assert len((folder / "log.csv").read_text().splitlines()) == 2


@pytest.mark.backends(3)
def test_each_epoch_draws_the_same_noise_whatever_was_before(tmp_path):
    def model():
        layers = keras.layers
        parts = layers.Dense(8), layers.Dropout(0.5), keras_ratesnn.layers.LIF()
        network = chain(*parts, layers.Dense(3))
        gradient = keras_ratesnn.gradients.SLTT(random_steps=1)
        return compiled(spiking(network, 3, gradient, step_mode="single"))

    x, y = np.ones((4, 6), "float32"), np.arange(4) % 3
    seed, whole, resumed = callbacks.SeedOfEpoch(7), model(), model()
    options = {"verbose": 0, "shuffle": False, "callbacks": [seed]}
    whole.fit(x, y, epochs=1, **options)
    resumed.set_weights(whole.get_weights())
    whole.fit(x, y, epochs=2, initial_epoch=1, **options)
    resumed.fit(x, y, epochs=2, initial_epoch=1, **options)
    assert_close(whole.weights, resumed.weights, rtol=0)


# The lock


def contents(folder):
    """The bytes of the files of a run."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_second_process_does_not_disturb_a_running_run(folder, capsys):
    with RunFolder(folder).lock():
        before = contents(folder)
        for options in ((), ("--restart",)):
            error = error_of([*RUN, "--output", folder, *options], capsys)
            assert f"already running, as process {os.getpid()}." in error
            assert error.count("\n") == 1
        assert contents(folder) == before


# The checkpoint decides


@pytest.mark.parametrize("damaged", [None, "", "epoch,loss\n0,1", "\0\xff,\n"])
def test_a_log_is_repaired_from_the_checkpoint(damaged, folder):
    log, files = folder / "log.csv", RunFolder(folder)
    whole = log.read_text()
    log.unlink() if damaged is None else log.write_text(damaged)
    model = keras.saving.load_model(files.last)
    assert files.restore(model, model, {}, 1024).epochs == 2
    assert log.read_text() == whole
    # Without one the run starts again.
    files.last.unlink()
    assert files.restore(None, None, {}, 1).epochs == 0
    assert not log.exists()


def test_the_error_names_a_damaged_checkpoint(folder, capsys):
    path = folder / "last.keras"
    whole = path.read_bytes()
    # Keras would load weights with another bit.
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", whole[:-1000], flipped):
        path.write_bytes(damaged)
        error = error_of([*RUN, "--output", folder], capsys)
        assert f"The checkpoint {path} is damaged" in error
        assert "--restart" in error
        assert error.count("\n") == 1
        assert path.read_bytes() == damaged


def test_the_best_checkpoint_follows_from_the_last(folder):
    best, last = folder / "best.keras", folder / "last.keras"
    accuracies = [row["val_accuracy"] for row in run_folder.load_progress(last).rows]
    best.write_bytes(b"of a run that was killed before it wrote it")
    progress = run_folder.load_progress(last)
    progress.rows[-1]["val_accuracy"] = max(accuracies) + 0.01
    RunFolder(folder).follow_last(progress)
    assert best.read_bytes() == last.read_bytes()
    progress.rows[-1]["val_accuracy"] = min(accuracies) - 0.01
    best.write_bytes(b"of an epoch before")
    RunFolder(folder).follow_last(progress)
    assert best.read_bytes() == b"of an epoch before"


def test_other_data_and_another_network_are_refused(folder):
    files = RunFolder(folder)
    model = keras.saving.load_model(files.last)
    with pytest.raises(
        ValueError,
        match="started with 1,024 training images, but the data now has 1,000",
    ):
        files.restore(model, model, {}, 1000)
    small_model = compiled(spiking())
    small_model.optimizer.build(small_model.trainable_variables)
    with pytest.raises(
        ValueError, match=re.escape(f"{files.last} is damaged or of another network")
    ):
        files.restore(small_model, small_model, {}, 1024)


def test_the_error_names_a_file_with_the_wrong_format(folder, capsys):
    result = '{"settings": {}, "backend": "jax", "test_accuracy": "high"}'
    settings = '{"name": 3}', '{"name": "digit"}', '{"name": "digits", "colour": 1}'
    for name, texts, arguments, command in (
        ("result.json", ("\0", result), [*RUN, "--output", folder], main),
        ("settings.json", settings, [folder], evaluate.main),
    ):
        for text in ("[]", "{}", *texts):
            (folder / name).write_text(text)
            error = error_of(arguments, capsys, command)
            assert str(folder / name) in error
            assert error.count("\n") == 1


def test_the_result_of_a_run_that_resumes_elsewhere_names_both(folder, monkeypatch):
    elsewhere = {"backend": "abacus", "device": "wood", "versions": {"abacus": "1"}}
    saved = run_folder.load_progress(folder / "last.keras")
    here = saved.parts[0]
    monkeypatch.setattr(
        run_folder,
        "load_progress",
        lambda path: dataclasses.replace(saved, parts=[{**here, **elsewhere}]),
    )
    record = trained(folder, *RUN)
    assert record["backend"] == f"abacus+{here['backend']}"
    assert record["device"] == f"wood+{here['device']}"
    assert record["versions"] == {"abacus": "1", **here["versions"]}


def test_a_run_that_diverges_stops_and_says_where(tmp_path, capsys):
    settings = ["--set", "epochs=2", "learning_rate=1e30", *QUICKLY]
    command = ["digits", "--output", str(tmp_path), *settings]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: the run in {tmp_path} diverged: ")
    said = "loss became (nan|inf) in epoch 1, which started with a learning rate of 1e"
    assert re.search(f"{said}[+]30", error)
    assert "--set learning_rate=" in error
    assert error.count("\n") == 1
    text = (tmp_path / "result.json").read_text()
    record = json.loads(text, parse_constant=pytest.fail)
    assert record["diverged"]["epoch"] == 1
    assert record["diverged"]["learning_rate"] == pytest.approx(1e30)
    assert record["test_accuracy"] is None
    assert not (tmp_path / "last.keras").exists()
    # Not trained again, and no success either.
    assert main(command) == 1
    assert capsys.readouterr().err == error


# Stopped in each phase

PHASES = (
    "digits",
    "--set",
    "epochs=2",
    "ordinary=first",
    "ordinary_epochs=1",
    "levels=2",
    *QUICKLY,
    "timesteps=2",
    "windows=(1,1)",
)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Shells start commands in the background with signals of Ctrl-C ignored, and tests
    with them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole_phases(tmp_path_factory):
    """`(folder, record)` of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("phases")
    return folder, trained(folder, *PHASES)


def assert_goes_on_to_the_same(folder, whole_phases):
    whole, record = whole_phases
    again = trained(folder, *PHASES)
    assert curve_without_times(again) == curve_without_times(record)
    for name in ("last.keras", "best.keras", "ordinary/last.keras"):
        assert_same_states(folder / name, whole / name)


def test_a_killed_run_resumes_bit_identically(whole_phases, tmp_path):
    """`kill -9` in the middle of an epoch."""
    shutil.copytree(whole_phases[0] / "ordinary", tmp_path / "ordinary")
    command = [sys.executable, "-m", "recipes.train", *PHASES, "--output", tmp_path]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, **silent)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "last.keras").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "result.json").exists()
    assert_goes_on_to_the_same(tmp_path, whole_phases)


def test_ctrl_c_in_each_phase_leaves_whole_files_and_says_how_to_go_on(
    whole_phases, tmp_path, capsys, monkeypatch
):
    folder = RunFolder(tmp_path / "stopped")
    start = " before training began; repeat the command to start or resume"
    again = "; repeat the command to start again"
    ordinary, both = (
        "; repeat the command without --restart to resume after the last completed "
        f"epoch, which is saved in {path.last}"
        for path in (folder.ordinary, folder)
    )
    # What has just been done when it comes.
    for owner, name, said in [
        (Recipe, "load", start),
        (callbacks.StopWhereDiverged, "on_train_batch_end", again),
        (keras.Model, "evaluate", again),
        (keras.Model, "save", again),
        (shutil, "copyfile", ordinary),
        (run_folder, "save", both),
        (pathlib.Path, "write_text", both),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, _then_ctrl_c(getattr(owner, name)))
            assert main([*PHASES, "--output", str(folder.path)]) == 130
        printed = capsys.readouterr()
        assert printed.out.endswith(f"\ninterrupted{said}\n"), (owner, name)
        assert not list(tmp_path.rglob(".unfinished*"))
        assert folder.path.exists() == (said is not start)
    assert_goes_on_to_the_same(folder.path, whole_phases)


def _then_ctrl_c(function):
    def stopped(*args, **kwargs):
        function(*args, **kwargs)
        signal.raise_signal(signal.SIGINT)

    return stopped


@contextlib.contextmanager
def full_disk(size):
    """A context in which no file grows beyond `size` bytes: what is longer is cut, with
    an error of the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_keeps_the_last_epoch_and_the_run_goes_on_later(
    whole_phases, tmp_path, capsys, monkeypatch
):
    last, saved = tmp_path / "last.keras", []
    shutil.copytree(whole_phases[0] / "ordinary", tmp_path / "ordinary")
    save = callbacks.Checkpoint.on_epoch_end

    def on_epoch_end(callback, epoch, logs=None):
        if epoch == 1:
            saved.append(last.read_bytes())
        with full_disk(len(saved[0]) // 2) if saved else contextlib.nullcontext():
            save(callback, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpoint, "on_epoch_end", on_epoch_end)
        assert main([*PHASES, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {last} cannot be written (")
    assert error.endswith(
        "Then repeat the command without --restart to resume after the last completed "
        f"epoch, which is saved in {last}.\n"
    )
    assert error.count("\n") == 1
    assert [last.read_bytes()] == saved
    assert not list(tmp_path.rglob(".unfinished*"))
    assert_goes_on_to_the_same(tmp_path, whole_phases)

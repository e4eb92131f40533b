"""Ctrl-C in each phase of a run, and a disk that is full: what is left, what is said,
and how the run goes on."""

import contextlib
import pathlib
import resource
import shutil
import signal
import time

import keras
import pytest
from helpers import compiled

import keras_ratesnn
from recipes import callbacks, checkpoint, command_line, run_folder
from recipes.progress import Progress
from recipes.recipe import Recipe
from recipes.train import main
from tests.recipes.recipe_runs import (
    QUICKLY,
    assert_same_states,
    curve_without_times,
    error_of,
    trained,
)

pytestmark = pytest.mark.runs_once

RUN = (
    "digits",
    "--set",
    "epochs=2",
    "ordinary=first",
    "ordinary_epochs=1",
    "levels=2",
    *QUICKLY,
)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Shells start commands in the background with signals of Ctrl-C ignored, and tests
    with them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """`(folder, record)` of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, trained(folder, *RUN)


def assert_goes_on_to_the_same(folder, whole_run):
    whole, record = whole_run
    assert curve_without_times(trained(folder, *RUN)) == curve_without_times(record)
    for name in ("last.keras", "best.keras", "ordinary/last.keras"):
        assert_same_states(folder / name, whole / name)


def test_ctrl_c_in_each_phase_leaves_whole_files_and_says_how_to_go_on(
    whole_run, tmp_path, capsys, monkeypatch
):
    folder = run_folder.RunFolder(tmp_path / "stopped")
    start = "before training began; repeat the command to start or resume"
    again, resume = (
        "; repeat the command to start again",
        "; repeat the command without --restart to resume after the last ",
    )
    of_ordinary, of_spiking = (
        f"{resume}completed epoch, which is saved in {each.last}"
        for each in (folder.ordinary, folder)
    )
    # What has just been done when it comes.
    for owner, name, said in [
        (Recipe, "load", start),
        (callbacks.StopWhereDiverged, "on_train_batch_end", again),
        (keras.Model, "evaluate", again),
        (keras.Model, "save", again),
        (shutil, "copyfile", of_ordinary),
        (keras_ratesnn, "spikify", of_ordinary),
        (checkpoint, "save", of_spiking),
        (pathlib.Path, "write_text", of_spiking),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, _then_ctrl_c(getattr(owner, name)))
            assert main([*RUN, "--output", str(folder.path)]) == 130
        printed = capsys.readouterr()
        assert printed.out.endswith(f"\ninterrupted{' ' * (said is start)}{said}\n"), (
            owner,
            name,
        )
        assert not list(tmp_path.rglob(".unfinished*"))
        assert folder.path.exists() == (said is not start)
    assert_goes_on_to_the_same(folder.path, whole_run)


def _then_ctrl_c(function):
    def stopped(*args, **kwargs):
        function(*args, **kwargs)
        signal.raise_signal(signal.SIGINT)

    return stopped


def test_ctrl_c_is_not_lost_where_python_ignores_exceptions():
    class Freed:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work(arguments):
        Freed()
        time.sleep(5)

    assert (
        command_line.command(None, "none", "None.", lambda parser: None, work)([])
        == 130
    )


@contextlib.contextmanager
def full_disk(kept):
    """A context in which no file grows beyond `kept` bytes: what is longer is cut, with
    an error of the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_keeps_the_last_epoch_and_the_run_goes_on_later(
    whole_run, tmp_path, capsys, monkeypatch
):
    last, kept = tmp_path / "last.keras", []
    shutil.copytree(whole_run[0] / "ordinary", tmp_path / "ordinary")
    save = callbacks.Checkpoint.on_epoch_end

    def on_epoch_end(callback, epoch, logs=None):
        if epoch == 1:
            kept.append(last.read_bytes())
        with full_disk(len(kept[0]) // 2) if kept else contextlib.nullcontext():
            save(callback, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Checkpoint, "on_epoch_end", on_epoch_end)
        assert main([*RUN, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {last} cannot be written (")
    assert error.endswith(
        "Then repeat the command without --restart to resume after the last completed "
        f"epoch, which is saved in {last}.\n"
    )
    assert error.count("\n") == 1
    assert [last.read_bytes()] == kept
    assert not list(tmp_path.rglob(".unfinished*"))
    assert_goes_on_to_the_same(tmp_path, whole_run)


def test_a_full_disk_is_named_before_a_run_begins_and_nothing_is_left(tmp_path, capsys):
    folder = tmp_path / "new" / "run"
    with full_disk(0):
        error = error_of([*RUN, "--output", folder], capsys)
    assert error.startswith(f"error: {folder / 'lock'} cannot be written (")
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_part_of_a_checkpoint_that_does_not_fit_where_it_is_written_first_is_no_crash(
    tmp_path, monkeypatch
):
    model, fitted = (
        compiled(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
        for _ in range(2)
    )
    for each in (model, fitted):
        each.optimizer.build(each.trainable_variables)
    path = tmp_path / "last.keras"
    checkpoint.save(model, Progress({}, 1), path, fitted)
    kept = path.read_bytes()
    usage = shutil.disk_usage(tmp_path)._replace(free=checkpoint.BESIDE_ARRAYS)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(
        OSError,
        match=rf"{path} cannot be written .a part of it of up to 2 MiB does not fit in "
        r".*TMPDIR",
    ):
        checkpoint.save(model, Progress({}, 1), path, fitted)
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]

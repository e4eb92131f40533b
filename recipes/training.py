"""The training of a recipe in the folder of its run: what `python -m recipes.train`
does."""

import contextlib
import os
import pathlib

import keras

from recipes import batches, catalogue, command_line, distribution, run
from recipes.command_line import DIVERGED, INTERRUPTED, SMALLER, Ended
from recipes.run_folder import RunFolder, score_name, test_score, this_part


def start(arguments, command):
    """Trains the recipe of a command line, in this process or, by the same command, in
    one for each device.

    Args:
        arguments: Those of `recipes.train`.
        command: List of strings, the command after the name of Python.
    """
    with command_line.mistakes():
        recipe = catalogue.chosen(arguments)
        devices = distribution.wanted(arguments.devices)
        launcher = distribution.launcher(devices)
        if launcher[1:]:
            os.execv(launcher[0], [*launcher, *command])
        this_process = distribution.start(devices)
    with contextlib.ExitStack() as locks:
        if not this_process.is_first:
            silence = locks.enter_context(open(os.devnull, "w"))
            locks.enter_context(contextlib.redirect_stdout(silence))
        return _run(recipe, arguments, locks)


def _run(recipe, arguments, locks):
    """Trains a recipe in this process; `locks` is an exit stack for those of the run's
    folders, which are made when all that could go wrong before training has been
    tried."""
    this_process, restart = distribution.current, arguments.restart
    folder = RunFolder(arguments.output or pathlib.Path("runs", recipe.name))
    with command_line.mistakes():
        recipe.task.check_packages()
        if not restart and _is_finished(folder, recipe):
            return print_result(folder)
        dataset = recipe.load(arguments.data_dir)
        batches.check(dataset, recipe, this_process.part)
    if not recipe.has_ordinary_before:
        return _train_in(folder, recipe, dataset, locks, restart)
    ordinary, alone = folder.ordinary, recipe.ordinary_alone()
    with command_line.mistakes():
        # What is wrong with the settings of the spiking network is found before the
        # ordinary one is trained, and before --restart deletes a run.
        with _anew():
            run.to_fit(run.build(recipe, dataset), recipe, dataset)
        _begin(folder, recipe, locks, restart)
        is_finished = _is_finished(ordinary, alone)
    if not is_finished:
        status = _train_in(ordinary, alone, dataset, locks)
        if status:
            return status
    elif test_score(ordinary.read_result()) is None:
        return print_result(ordinary)
    return _train_in(folder, recipe, dataset)


@contextlib.contextmanager
def _anew():
    """A context to build and train in. The names of layers do not depend on what was
    before."""
    # Not in the scope of several devices, which it would end.
    keras.utils.clear_session(free_memory=False)
    with distribution.current.scope():
        yield


def _is_finished(folder, recipe):
    """Checks the folder of a run; whether it contains the run's result, which is not to
    be trained again."""
    if distribution.current.is_first:
        folder.check(recipe.settings())
    return distribution.current.from_first(folder.result.exists())


def _begin(folder, recipe, locks, restart=False):
    """Locks and prepares the folder of a run for training."""
    if distribution.current.is_first:
        locks.enter_context(folder.lock())
        folder.begin(recipe.settings(), restart)
    # The other processes may read the folder from now on.
    distribution.current.from_first(None)


def _train_in(folder, recipe, dataset, locks=None, restart=False):
    """Trains a recipe in a folder, which is prepared already if `locks` is None;
    returns the exit status."""
    try:
        with _anew():
            with command_line.mistakes():
                weights = folder.ordinary.last if recipe.has_ordinary_before else None
                model = run.build(recipe, dataset, weights)
                fitted = run.to_fit(model, recipe, dataset, weights)
                if locks is not None:
                    _begin(folder, recipe, locks, restart)
                progress = _restored(folder, recipe, dataset, model, fitted)
            print(introduction(recipe, dataset, model, progress), flush=True)
            return train(model, fitted, recipe, dataset, folder, progress)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {folder.resumption}")
        return INTERRUPTED


def _restored(folder, recipe, dataset, model, fitted):
    """The progress of a run, on all processes; its state is loaded into the models."""
    this_process, progress = distribution.current, None
    if this_process.is_first or not this_process.is_apart:
        settings, score = recipe.settings(), recipe.task.score
        progress = folder.restore(model, fitted, settings, dataset.train_size, score)
    return this_process.from_first(progress)


def print_result(folder):
    """Prints the result of the finished run in a folder; returns the exit status."""
    record = folder.read_result()
    if test_score(record) is None:
        raise Ended(diverged(folder, record["diverged"]["message"]), DIVERGED)
    print(
        f"{folder.path} already contains this run, finished; use --restart to train "
        "again"
    )
    print(f"{score_name(record)}: {test_score(record):.4f}")
    return 0


def train(model, fitted, recipe, dataset, folder, progress):
    """Trains a model by the fitted one, which may be around it, to the end of its run;
    returns the exit status."""
    try:
        record = run.fit(model, fitted, recipe, dataset, folder, progress)
    except run.Diverged as error:
        # Below the progress bar.
        print(flush=True)
        if distribution.current.is_first:
            raise Ended(diverged(folder, error), DIVERGED) from error
        return DIVERGED
    except OSError as error:
        print(flush=True)
        raise Ended(f"{error} Then {folder.resumption}.") from error
    print(
        f"trained in {record['seconds']:.0f} s; model and result saved: {folder.last}, "
        f"{folder.result.name}"
    )
    name, comparison = score_name(record), record.get("comparison", {})
    for what, key in (
        ("ordinary network", "ordinary"),
        ("converted, before training", "converted"),
    ):
        if key in comparison:
            print(f"{what}, {name}: {comparison[key][record['score']]:.4f}")
    print(f"{name}: {test_score(record):.4f}")
    return 0


def diverged(folder, what):
    return (
        f"the run in {folder.path} diverged: {what}. {SMALLER}, and --restart or "
        "another --output."
    )


def introduction(recipe, dataset, model, progress):
    """A summary of the run, and where it resumes."""
    here = this_part()
    method = f"gradient {recipe.gradient}, " if recipe.is_spiking else ""
    lines = [
        f"{recipe.name}: {here['backend']} backend, {method}{recipe.in_time}, "
        f"{recipe.epochs} epochs of batches of {recipe.batch_size}, seed {recipe.seed}",
        f"{model.count_params():,} parameters, {dataset.train_size:,} training images, "
        f"{dataset.test_size:,} {recipe.tested} images",
    ]
    if progress.epochs:
        lines.append(f"resumes after {progress.epochs} epochs")
    return "\n".join(lines)

"""The training of a recipe in the folder of its run: what `python -m recipes.train`
does."""

import contextlib
import os
import pathlib

import keras

from recipes import catalogue, command_line, device, engine, pipeline, run
from recipes.command_line import DIVERGED, INTERRUPTED, SMALLER, Ended
from recipes.progress import this_part
from recipes.run_folder import RunFolder, score_name, test_score


def start(arguments, command):
    """Trains the recipe of a command line, in this process or, by the same command, in
    one for each device."""
    with command_line.mistakes():
        recipe = catalogue.chosen(arguments)
        devices = engine.wanted(arguments.devices)
        if engine.launches(devices):
            return engine.launch(devices, command)
        this_process = engine.start(devices)
    with contextlib.ExitStack() as held:
        if not this_process.is_first:
            held.enter_context(
                contextlib.redirect_stdout(held.enter_context(open(os.devnull, "w")))
            )
        return _run(recipe, arguments, this_process, held)


def _run(recipe, arguments, this_process, held):
    """Trains a recipe in this process; `held` is an exit stack for the locks of the
    run's folders."""
    restart = arguments.restart
    folder = RunFolder(arguments.output or pathlib.Path("runs", recipe.name))
    with command_line.mistakes():
        recipe.task.check_packages()
        if _is_finished(folder, recipe, this_process, held, restart):
            return print_result(folder)
        dataset = recipe.load(arguments.data_dir)
        pipeline.check(dataset, recipe, this_process.part)
        if recipe.ordinary_stage is not None:
            ordinary = recipe.ordinary_alone()
            # Before the ordinary network is trained, and before --restart deletes a
            # run.
            _check_spiking(recipe, dataset, folder, this_process)
            _begin(folder, recipe, this_process, restart)
            restart = False
            if not _is_finished(folder.ordinary, ordinary, this_process, held):
                status = _train_in(folder.ordinary, ordinary, dataset, this_process)
                if status:
                    return status
            elif test_score(folder.ordinary.read_result()) is None:
                return print_result(folder.ordinary)
    return _train_in(folder, recipe, dataset, this_process, restart)


def _check_spiking(recipe, dataset, folder, this_process):
    """Finds what is wrong with the settings of the spiking network, or that there is no
    space for it, by building it."""
    with _anew(this_process):
        model = run.build(recipe, dataset)
        fitted = run.to_fit(model, recipe, dataset)
    if this_process.is_first:
        folder.check_space(model, fitted)


@contextlib.contextmanager
def _anew(this_process):
    """A context to build and train in. The names of layers do not depend on what was
    before."""
    # Not in the scope of several devices, which it would end.
    keras.utils.clear_session(free_memory=False)
    with this_process.scope():
        yield


def _is_finished(folder, recipe, this_process, held, restart=False):
    """Locks and checks the folder of a run; whether it contains the run's result, which
    is not to be trained again."""
    if this_process.is_first:
        held.enter_context(folder.lock())
        if not restart:
            folder.check(recipe.settings())
    return this_process.from_first(folder.result.exists() and not restart)


def _begin(folder, recipe, this_process, restart):
    """Prepares the folder of a run for training, after all that could go wrong before
    it."""
    if this_process.is_first:
        folder.begin(recipe.settings(), restart)
    # The other processes may read the folder from now on.
    this_process.from_first(None)


def _train_in(folder, recipe, dataset, this_process, restart=False):
    """Trains a recipe in a locked folder; returns the exit status."""
    try:
        with _anew(this_process):
            model, fitted, progress = _prepared(
                folder, recipe, dataset, this_process, restart
            )
            print(introduction(recipe, dataset, model, progress), flush=True)
            return train(model, fitted, recipe, dataset, folder, progress)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {folder.resumption}")
        return INTERRUPTED


def _prepared(folder, recipe, dataset, this_process, restart):
    """`(model, fitted, progress)`: what is trained, as `run.build` and `run.to_fit`
    make it, with the state of its run."""
    is_first = this_process.is_first
    with command_line.mistakes():
        ordinary_weights = (
            None if recipe.ordinary_stage is None else folder.ordinary.last
        )
        model = run.build(recipe, dataset, ordinary_weights)
        fitted = run.to_fit(model, recipe, dataset, ordinary_weights)
        if is_first:
            folder.check_space(model, fitted)
        _begin(folder, recipe, this_process, restart)
        progress = None
        if is_first or not this_process.is_apart:
            progress = folder.restore(
                model,
                fitted,
                recipe.settings(),
                dataset.train_size,
                recipe.task.score,
                writes=is_first,
            )
        return model, fitted, this_process.from_first(progress)


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
        if engine.current.is_first:
            raise Ended(diverged(folder, error), DIVERGED) from error
        return DIVERGED
    except OSError as error:
        print(flush=True)
        raise Ended(f"{error} Then {folder.resumption}.") from error
    print(
        f"trained in {record['seconds']:.0f} s; model and result saved: {folder.last}, "
        f"{folder.result.name}"
    )
    name = score_name(record)
    for what, key in (
        ("ordinary network", "ordinary"),
        ("converted, before training", "converted"),
    ):
        if key in record.get("comparison", {}):
            print(f"{what}, {name}: {record['comparison'][key][record['score']]:.4f}")
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
    test = f"{dataset.test_size:,} {recipe.tested} images"
    method = (
        recipe.in_time
        if recipe.spiking is None
        else f"gradient {recipe.settings()['gradient']}, {recipe.in_time}"
    )
    lines = [
        f"{recipe.name}: {here['backend']} backend, {method}, "
        f"{recipe.epochs} epochs of batches of {recipe.batch_size}, seed {recipe.seed}",
        f"{model.count_params():,} parameters, {dataset.train_size:,} training images, "
        f"{test}",
    ]
    if here["backend"] != "tensorflow":
        lines.append(f"data are read by TensorFlow{device.waiting()}")
    if progress.epochs:
        lines.append(f"resumes after {progress.epochs} epochs")
        before, now = (
            f"{part['backend']} on {part['device']}"
            for part in (progress.parts[-1], here)
        )
        if before != now:
            lines.append(
                f"note: the previous epoch ran with {before}, the next ones run with "
                f"{now}; the result names both"
            )
    return "\n".join(lines)

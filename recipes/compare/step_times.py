"""The time, FLOPs and memory of a training step of a recipe, by methods of this library
and of others, in turn."""

import contextlib
import functools
import json
import os
import resource
import tempfile
import time
from unittest import mock

import numpy as np
import torch
from torch._inductor import config as inductor

from recipes import batches, device, run
from recipes.atomic_files import read_json, write_json
from recipes.benchmark import costs, measure, peers, processes, timing
from recipes.benchmark.settings import PEERS, packages_of_peers
from recipes.compare import peer_training
from recipes.optimizers import MOMENTUM

FIELDS = {"settings": dict, "device": str, "rows": dict}
"""Fields of a file of times that are read, with their types."""


def read(path, recipes):
    """The rows of a file of times, a dictionary from methods to the results of
    `measure_all`; empty if there is no file.

    Args:
        path: Path.
        recipes: Dictionary from methods to their `Recipe`.

    Raises:
        ValueError: If it is damaged, or is of other settings or methods.
    """
    if not path.exists():
        return {}
    record = read_json(path, FIELDS, "Remove it, and measure again with --time.")
    for method, recipe in recipes.items():
        before = record["settings"].get(method, {})
        changed = [
            f"{key}={before.get(key)!r}, now {value!r}"
            for key, value in _settings(recipe).items()
            if before.get(key) != value
        ]
        if changed:
            raise ValueError(
                f"{path} has times of other settings of {method}, or none: "
                f"{', '.join(changed)}. Pass another folder with --output, or remove "
                "it and measure again with --time."
            )
    return record["rows"]


def _settings(recipe):
    # As read from a file: tuples become lists.
    return json.loads(json.dumps(recipe.settings()))


def write(path, recipes, dataset, rounds):
    """Measures the steps of all methods in turn, with one thread of a CPU, and writes
    the file. See `processes`.

    Args:
        path: Path.
        recipes: Dictionary from methods to their `Recipe`.
        dataset: The `Dataset` for training.
        rounds: Integer, how often each step is timed.
    """
    record = {
        "settings": {method: _settings(recipe) for method, recipe in recipes.items()},
        "rounds": rounds,
        "device": device.name(),
        "versions": device.versions(packages_of_peers(recipes)),
        "flops_measure": costs.flops_measure(),
        "memory_measure": costs.memory_measure(),
        "rows": measure_all(recipes, dataset, rounds),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def measure_all(recipes, dataset, rounds):
    """The rows of all methods, a dictionary from methods to dictionaries of numbers.

    `seconds`: of a step, as `timing.spread`. `epoch_seconds` and `epoch_flops`: of the
    steps of an epoch, whose last batch may be smaller. `start_seconds`: what the first
    steps of a training take longer than later ones, in which graphs are recorded and
    kernels compiled, with empty caches. `memory_bytes`: of a step.
    """
    steps, rows, (recipe, *_) = {}, {}, recipes.values()
    whole, rest = divmod(dataset.train_size, recipe.batch_size)
    # The smaller batch is another kind of call.
    counts = {recipe.batch_size: whole} if whole else {}
    counts |= {rest: 1} if rest else {}
    # Read here: TensorFlow, which reads it, sets how memory is freed for its whole
    # process.
    batch = next(iter(batches.training_batches(dataset, recipe)))
    batch = [np.asarray(part) for part in batch]
    with _empty_caches(), contextlib.ExitStack() as stack:
        for method, recipe in recipes.items():
            rows[method], own = processes.made(
                stack, method, _warmed_up, recipe, dataset, method, batch, counts
            )
            steps |= {(method, size): step for size, step in own.items()}
        seconds = timing.interleaved(steps, rounds, _clock, timing.LEAST_SECONDS)
    for method, row in rows.items():
        spreads = {size: timing.spread(seconds[method, size]) for size in counts}
        rows[method] = _row(row, spreads, counts)
    return rows


def _warmed_up(recipe, dataset, method, batch, counts):
    """The measurements of the first steps of a method, and its steps by the sizes of
    batches; see `measure_all`."""
    device.set_threads(1)
    batch = peer_training.tensors(batch)
    made = _trainer(recipe, dataset, method, batch[0][: max(counts)])
    calls = max(measure.compiling_calls(recipe, method)) + measure.WARM_UP_STEPS
    steps, first = {}, {}
    for size, count in counts.items():
        some = [part[:size] for part in batch]
        step = {size: functools.partial(made.train_on_batch, *some)}
        first |= timing.interleaved(step, min(calls, count * recipe.epochs), _clock)
        steps |= step
    step = steps[max(counts)]
    measured = {
        "first": first,
        "flops": costs.counted_flops(step),
        "memory_bytes": costs.memory_rise(step),
    }
    return measured, steps


def _clock():
    """The time in seconds; on a CPU that of its processors for this process and
    compilers, which other work affects little."""
    if device.gpu():
        device.synchronize()
        return time.perf_counter()
    compilers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + compilers.ru_utime + compilers.ru_stime


def _row(measured, spreads, counts):
    """The result of `measure_all` for a method, from measurements by the sizes of the
    batches."""
    epoch_seconds = start_seconds = images = 0
    for size, count in counts.items():
        median = spreads[size]["median"]
        epoch_seconds += count * median
        start_seconds += measure.compile_seconds(measured["first"][size], median)
        images += size * count
    return {
        "seconds": spreads[max(counts)],
        "epoch_seconds": epoch_seconds,
        "epoch_flops": measured["flops"] / max(counts) * images,
        "start_seconds": start_seconds,
        "memory_bytes": measured["memory_bytes"],
    }


def _trainer(recipe, dataset, method, images):
    """An object with `train_on_batch`: a compiled model, or the network of another
    library with an optimizer of PyTorch."""
    if method not in PEERS:
        return run.build(recipe, dataset)
    made = peer_training.trainer(recipe, dataset, method)
    # The optimizer of the recipe takes longer: users of these libraries have PyTorch's.
    parameters, rate = made.network.parameters(), recipe.learning_rate
    decay = {"weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        made.optimizer = torch.optim.SGD(parameters, rate, MOMENTUM, **decay)
    else:
        made.optimizer = torch.optim.AdamW(parameters, rate, **decay)
    if PEERS[method].memopt:
        peers.optimize_memory(made, images, PEERS[method].memopt)
    return made


@contextlib.contextmanager
def _empty_caches():
    """A context in which the compilers of PyTorch have compiled nothing yet, and are
    processes for which this one waits."""
    with (
        tempfile.TemporaryDirectory() as empty,
        inductor.patch(compile_threads=1),
        mock.patch.dict(os.environ, measure.caches_in(empty)),
    ):
        yield

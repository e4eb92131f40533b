"""The benchmark: for each T, all methods and the floor, timed in turn."""

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Callable

import keras

import keras_ratesnn
from recipes import device
from recipes.benchmark import cases, costs, own_process, process_peak, timing
from recipes.benchmark.settings import FLOOR, FORWARD, ORDINARY, PEERS, variants

WARM_UP_STEPS = 2
"""After the last step that compiles: memory pools fill, and clock rates increase."""

FORWARDS_IN_A_STEP = 3
"""The FLOPs of an ordinary training step in forward passes: one forward pass, and a
backward pass of twice that."""


@dataclasses.dataclass(frozen=True)
class Warm:
    """A step that has been compiled and run.

    Attributes:
        step: Function without arguments, which returns when the device is done, or a
            step of another process.
        compiling_seconds: List of floats, the durations of the calls in which something
            is compiled or recorded; or None.
        flops: Float, or None if not counted.
        memory_bytes: Integer, or None if not measured.
        launch: Function without arguments, the step without a wait for the device.
    """

    step: Callable
    compiling_seconds: list[float] | None
    flops: float | None = None
    memory_bytes: int | None = None
    launch: Callable | None = None


def benchmark(
    settings, process_memory=False, progress=lambda record: None, jit_compile=()
):
    """Measures all cases of the settings.

    Args:
        settings: `Settings`.
        process_memory: Boolean, whether to measure memory in a separate process for
            each case if the backend does not report it. Defaults to `False`.
        progress: Function that is called with the record so far after each T. Defaults
            to a function that does nothing.
        jit_compile: Sequence of values of `Settings.jit_compile` with which to measure
            every method of the library. Defaults to `()`, only that of the settings.
            The floor is always measured with that of the settings.

    Returns:
        The record, a dictionary of plain numbers and names.
    """
    cases.configure(settings)
    jit_compile = jit_compile or (settings.jit_compile,)
    record = {
        "settings": dataclasses.asdict(settings),
        "subject": f"{keras.backend.backend()} on {device.name()}: "
        f"{settings.subject}{device.waiting()}",
        "jit_compile": list(jit_compile),
        "backend": keras.backend.backend(),
        "device": device.name(),
        "versions": device.versions(settings.packages),
        "flops_measure": costs.flops_measure(),
        "memory_measure": costs.memory_measure()
        if process_memory or not costs.needs_separate_process()
        else None,
        "rows": [],
    }
    of_process = (
        functools.partial(process_peak.in_separate_process, settings)
        if process_memory
        else None
    )
    ordinary_model = cases.trainer(settings, ORDINARY, 1)
    ordinary = warm_trainer(settings, ORDINARY, 1, of_process, ordinary_model)
    forward = warm_forward(settings, ordinary_model, ordinary)
    for timesteps in settings.timesteps:
        with contextlib.ExitStack() as processes:
            warm = {}
            for name, variant in variants(settings, jit_compile).items():
                arguments = variant.settings, variant.method, timesteps, of_process
                known, steps = own_process.made(
                    processes, variant.method, _warm, *arguments
                )
                warm[name] = dataclasses.replace(known, **steps)
            warm |= {ORDINARY: ordinary, FORWARD: forward}
            seconds = timing.in_turns(warm, settings.rounds, settings.threads)
        record["rows"] += rows(warm, seconds, timesteps, settings.batch)
        progress(record)
        # Models contain reference cycles; the next T needs their memory.
        del warm
        gc.collect()
    return record


def _warm(settings, method, timesteps, of_process):
    """What is known of a training step, `Warm` without functions, and the step; see
    `own_process.made`."""
    cases.configure(settings)
    case = warm_trainer(settings, method, timesteps, of_process)
    return dataclasses.replace(case, step=None, launch=None), {"step": case.step}


def warm_forward(settings, model, ordinary):
    """A forward pass of the network without time, warmed up.

    Args:
        settings: `Settings`.
        model: The result of `cases.trainer` for `ORDINARY`.
        ordinary: `Warm`, its training step.

    Returns:
        `Warm`.
    """
    images, _ = cases.batch(settings)
    forward = cases.TrainingForward(model, settings.jit_compile)
    return dataclasses.replace(
        warm_up(functools.partial(forward.predict_on_batch, images), (1,)),
        flops=None if ordinary.flops is None else ordinary.flops / FORWARDS_IN_A_STEP,
    )


def warm_trainer(settings, method, timesteps, of_process, model=None, with_flops=True):
    """A training step, warmed up, and its FLOPs and memory.

    Args:
        settings: `Settings`.
        method: Name.
        timesteps: Integer T.
        of_process: Function of method and T that returns bytes, measured in a separate
            process; or `None`.
        model: The result of `cases.trainer` for these arguments. Defaults to `None`, a
            new model.
        with_flops: Boolean, whether to count FLOPs, and on JAX memory, which takes a
            second compilation there. Defaults to `True`.

    Returns:
        `Warm`.
    """
    model = model or cases.trainer(settings, method, timesteps)
    images, labels = cases.batch(settings, method)
    step = functools.partial(model.train_on_batch, images, labels)
    case = warm_up(step, compiling_calls(settings, method))
    if with_flops and keras.backend.backend() == "torch":
        counted = case
        if settings.jit_compile is True:
            # A compiled graph hides its operations. The same graph is replayed without
            # compilation.
            replayed = dataclasses.replace(settings, jit_compile="auto")
            trainer = cases.trainer(replayed, method, timesteps)
            counted = warm_up(
                functools.partial(trainer.train_on_batch, images, labels),
                compiling_calls(replayed, method),
            )
        case = dataclasses.replace(case, flops=costs.counted_flops(counted.step))
    if keras.backend.backend() == "jax":
        if not with_flops:
            return case
        return dataclasses.replace(case, **costs.compiled(model, images, labels))
    if not costs.needs_separate_process():
        return dataclasses.replace(case, memory_bytes=costs.memory_rise(case.step))
    return (
        case
        if of_process is None
        else dataclasses.replace(case, memory_bytes=of_process(method, timesteps))
    )


def compiling_calls(settings, method):
    """The numbers of the calls of a model in which something is compiled or recorded, a
    tuple; the first is 1."""
    if (
        keras.backend.backend() != "torch"
        or method in (ORDINARY, *PEERS)
        or settings.jit_compile is False
    ):
        return (1,)
    with keras_ratesnn.engine_settings() as engine:
        recorded = engine["eager_calls"][settings.jit_compile] + 1
    # A graph is compiled when it is replayed for the first time. On a GPU its kernels
    # are captured after some more calls.
    compiled = recorded + (settings.jit_compile is True)
    captured = recorded + 1 + engine["calls_in_a_row"] if device.gpu() else compiled
    return tuple(dict.fromkeys((1, recorded, compiled, captured)))


def warm_up(step, compiling):
    """Calls a step several times, and returns it with a wait for the device.

    Args:
        step: Function without arguments.
        compiling: Tuple of integers, see `compiling_calls`.

    Returns:
        `Warm`.
    """

    def waiting():
        step()
        device.synchronize()

    seconds = timing.interleaved({"step": waiting}, max(compiling) + WARM_UP_STEPS)[
        "step"
    ]
    return Warm(waiting, [seconds[call - 1] for call in compiling], launch=step)


def rows(warm, seconds, timesteps, batch):
    """The results for one T.

    Args:
        warm: Dictionary from names to `Warm`: the methods, `ORDINARY` and `FORWARD`.
        seconds: Dictionary from the same names to lists of seconds, one for each round.
        timesteps: Integer T.
        batch: Integer, the number of images in a step.

    Returns:
        List of dictionaries: a row for each method, then the floor and its two parts.
    """
    floor_seconds = timing.floor(seconds[ORDINARY], seconds[FORWARD], timesteps)
    ordinary, forward = warm[ORDINARY], warm[FORWARD]
    floor_flops = (
        None
        if ordinary.flops is None
        else ordinary.flops + (timesteps - 1) * forward.flops
    )
    parts = (FLOOR, ORDINARY, FORWARD)
    result = []
    for name in (*(name for name in warm if name not in parts), *parts):
        case = warm.get(name, Warm(None, None, floor_flops))
        times = timing.spread(seconds.get(name, floor_seconds))
        result.append(
            {
                "method": name,
                "timesteps": timesteps,
                "seconds": times,
                "seconds_of_rounds": seconds.get(name, floor_seconds),
                "images_per_second": batch / times["median"],
                "ratio_to_floor": timing.spread(
                    timing.ratios(seconds.get(name, floor_seconds), floor_seconds)
                ),
                "compile_seconds": compile_seconds(
                    case.compiling_seconds, times["median"]
                ),
                "first_seconds": case.compiling_seconds and case.compiling_seconds[0],
                "flops": case.flops,
                "flops_to_floor": _ratio(case.flops, floor_flops),
                "memory_bytes": case.memory_bytes,
                "memory_to_ordinary": _ratio(case.memory_bytes, ordinary.memory_bytes),
            }
        )
    return result


def compile_seconds(compiling, median):
    """What compiling took: the sum of what the calls that compile, a list of seconds,
    took longer than the median.

    `None` without such calls.
    """
    # Where nothing is compiled, the first calls are not always slower.
    return (
        None
        if compiling is None
        else sum(max(0.0, seconds - median) for seconds in compiling)
    )


def _ratio(value, base):
    return None if value is None or not base else value / base

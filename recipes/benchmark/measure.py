"""The benchmark: for each T, all methods and the floor, timed in turn."""

import dataclasses
import functools
import gc
import time
from collections.abc import Callable

import keras

from recipes import device
from recipes.benchmark import cases, costs, process_peak, timing
from recipes.benchmark.settings import FLOOR, FORWARD, ORDINARY

WARM_UP_STEPS = 2
"""After the first step, which compiles: memory pools fill, and clock rates increase."""

FORWARDS_IN_A_STEP = 3
"""The FLOPs of an ordinary training step in forward passes: one forward pass, and a backward pass of twice that."""


@dataclasses.dataclass(frozen=True)
class Warm:
    """A step that has been compiled and run.

    Attributes:
        step: Function without arguments, which returns when the device is done.
        first_seconds: Float, the duration of its first call.
        flops: Float, or None if not counted.
        memory_bytes: Integer, or None if not measured.
    """

    step: Callable
    first_seconds: float
    flops: float | None = None
    memory_bytes: int | None = None


def benchmark(settings, process_memory=False, progress=lambda record: None):
    """Measures all cases of the settings.

    Args:
        settings: `Settings`.
        process_memory: Boolean, whether to measure memory in a separate process for each case if the backend does not report
            it. Defaults to `False`.
        progress: Function that is called with the record so far after each T. Defaults to a function that does nothing.

    Returns:
        The record, a dictionary of plain numbers and names.
    """
    cases.configure(settings)
    record = {
        "settings": dataclasses.asdict(settings),
        "backend": keras.backend.backend(),
        "device": device.name(),
        "versions": device.versions(settings.peers),
        "flops_measure": costs.flops_measure(),
        "memory_measure": costs.memory_measure() if process_memory or not costs.needs_separate_process() else None,
        "rows": [],
    }
    of_process = functools.partial(process_peak.in_separate_process, settings) if process_memory else None
    ordinary_model = cases.trainer(settings, ORDINARY, 1)
    ordinary = warm_trainer(settings, ORDINARY, 1, of_process, ordinary_model)
    forward_model = cases.TrainingForward(ordinary_model, settings.jit_compile)
    images, _ = cases.batch(settings)
    forward = dataclasses.replace(
        warm_up(functools.partial(forward_model.predict_on_batch, images)),
        flops=None if ordinary.flops is None else ordinary.flops / FORWARDS_IN_A_STEP,
    )
    for timesteps in settings.timesteps:
        warm = {method: warm_trainer(settings, method, timesteps, of_process) for method in settings.methods}
        warm |= {ORDINARY: ordinary, FORWARD: forward}
        seconds = timing.interleaved({name: case.step for name, case in warm.items()}, settings.rounds)
        record["rows"] += rows(warm, seconds, timesteps, settings.batch)
        progress(record)
        # Models contain reference cycles; the next T needs their memory.
        del warm
        gc.collect()
    return record


def warm_trainer(settings, method, timesteps, of_process, model=None):
    """A training step, warmed up, and its FLOPs and memory.

    Args:
        settings: `Settings`.
        method: Name.
        timesteps: Integer T.
        of_process: Function of method and T that returns bytes, measured in a separate process; or `None`.
        model: The result of `cases.trainer` for these arguments. Defaults to `None`, a new model.

    Returns:
        `Warm`.
    """
    model = model or cases.trainer(settings, method, timesteps)
    images, labels = cases.batch(settings, method)
    case = warm_up(functools.partial(model.train_on_batch, images, labels))
    if keras.backend.backend() == "jax":
        return dataclasses.replace(case, **costs.compiled(model, images, labels))
    if keras.backend.backend() == "torch":
        case = dataclasses.replace(case, flops=costs.counted_flops(case.step))
    if not costs.needs_separate_process():
        return dataclasses.replace(case, memory_bytes=costs.memory_rise(case.step))
    return case if of_process is None else dataclasses.replace(case, memory_bytes=of_process(method, timesteps))


def warm_up(step):
    """Calls a step several times, and returns it with a wait for the device."""

    def waiting():
        step()
        device.synchronize()

    begin = time.perf_counter()
    waiting()
    first_seconds = time.perf_counter() - begin
    for _ in range(WARM_UP_STEPS):
        waiting()
    return Warm(waiting, first_seconds)


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
    floor_flops = None if ordinary.flops is None else ordinary.flops + (timesteps - 1) * forward.flops
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
                "ratio_to_floor": timing.spread(timing.ratios(seconds.get(name, floor_seconds), floor_seconds)),
                # PyTorch's eager steps are not compiled, and their first calls are not always slower.
                "compile_seconds": None if case.first_seconds is None else max(0.0, case.first_seconds - times["median"]),
                "flops": case.flops,
                "flops_to_floor": _ratio(case.flops, floor_flops),
                "memory_bytes": case.memory_bytes,
                "memory_to_ordinary": _ratio(case.memory_bytes, ordinary.memory_bytes),
            }
        )
    return result


def _ratio(value, base):
    return None if value is None or not base else value / base

"""The benchmark: for each T, all methods and the floor, timed in turn; and peak
memory."""

import contextlib
import dataclasses
import functools
import gc
import os
import sys
import traceback
from collections.abc import Callable

import keras

import keras_ratesnn
from recipes import device
from recipes.atomic_files import one_line
from recipes.benchmark import cases, costs, processes, timing
from recipes.benchmark.settings import (
    ELSEWHERE,
    FLOOR,
    FORWARD,
    ORDINARY,
    SEQUENCES,
    Variant,
)

WARM_UP_STEPS = 2
"""After the last step that compiles: memory pools fill, and clock rates increase."""

FORWARDS_IN_A_STEP = 3
"""The FLOPs of an ordinary training step in forward passes: one forward pass, and a
backward pass of twice that."""

CALLS_BEFORE_REPLAY = 2
"""The calls of a kind before a graph is replayed, where it is recorded at once: one in
eager mode, and the recording."""


CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""The environment variables that name the folders of PyTorch's and Triton's
compilers."""


@dataclasses.dataclass(frozen=True)
class Warm:
    """A step that has been compiled and run.

    Attributes:
        step: Function without arguments, which returns when the device is done, or a
            step of another process; `None` for the floor.
        compiling_seconds: List of floats, the durations of the calls in which something
            is compiled or recorded; or None.
        flops: Float, or None if not counted.
        memory_bytes: Integer, or None if not measured.
        counts: Dictionary of numbers of a GPU, see `trace.counts`; empty elsewhere.
        engine: String, how it runs, on a GPU with PyTorch.
    """

    step: Callable | None
    compiling_seconds: list[float] | None
    flops: float | None = None
    memory_bytes: int | None = None
    counts: dict[str, float] = dataclasses.field(default_factory=dict)
    engine: str | None = None


def benchmark(settings, variants, progress=lambda record: None):
    """Measures all cases of the settings.

    Args:
        settings: `Settings`; those of the floor.
        variants: Dictionary from names to `Variant`, see `settings.variants`.
        progress: Function that is called with the record so far after each T. Defaults
            to a function that does nothing.

    Returns:
        The record, a dictionary of plain numbers and names.
    """
    cases.configure(settings)
    backend = keras.backend.backend()
    values = dict.fromkeys(
        variant.settings.jit_compile for variant in variants.values()
    )
    has_memory = not costs.needs_separate_process()
    record = {
        "settings": dataclasses.asdict(settings),
        "subject": f"{backend} on {device.name()}: {settings.subject}"
        f"{device.waiting()}",
        "jit_compile": list(values),
        "backend": backend,
        "device": device.name(),
        "versions": device.versions(settings.packages),
        "flops_measure": costs.flops_measure(),
        "memory_measure": costs.memory_measure() if has_memory else None,
        "rows": [],
        "errors": [],
    }
    floor = {}
    if settings.network not in SEQUENCES:
        floor = warm_floor(settings)
    for timesteps in settings.timesteps:
        with contextlib.ExitStack() as stack:
            warm = {}
            for name, variant in variants.items():
                # One that fails, or needs too much memory, does not end the others.
                try:
                    known, steps = processes.made(
                        stack, variant.method, _warm, variant, timesteps
                    )
                except Exception as error:
                    traceback.print_exc()
                    what = f"{name}, T = {timesteps}: {type(error).__name__}"
                    record["errors"].append(f"{what}: {one_line(error)}")
                    continue
                warm[name] = dataclasses.replace(known, **steps)
            warm |= floor
            seconds = timing.in_turns(warm, settings.rounds, settings.threads)
        record["rows"] += rows(warm, seconds, timesteps)
        progress(record)
        # Models contain reference cycles; the next T needs their memory.
        del warm
        gc.collect()
    return record


def _warm(variant, timesteps):
    """What is known of a training step, `Warm` without a function, and the step; see
    `processes.made`."""
    cases.configure(variant.settings)
    warm = warm_variant(variant, timesteps)
    return dataclasses.replace(warm, step=None), {"step": warm.step}


def trainer(settings, method, timesteps):
    """What trains the network of the settings by a method of `cases.trainer`, or in
    another library."""
    if method in ELSEWHERE:
        # Imported here because it imports PyTorch.
        from recipes.benchmark import peers

        return peers.trainer(settings, method, timesteps)
    return cases.trainer(settings, method, timesteps)


def warm_floor(settings):
    """The parts of the floor, warmed up: a dictionary of `Warm`."""
    model = cases.trainer(settings, ORDINARY, 1)
    ordinary = warm_variant(Variant(ORDINARY, settings), 1, model)
    images, _ = cases.batch(settings, 1)
    forward = cases.TrainingForward(model, settings.jit_compile)
    warm = warm_up(functools.partial(forward.predict_on_batch, images), (1,))
    flops = None if ordinary.flops is None else ordinary.flops / FORWARDS_IN_A_STEP
    counts = _counts_of_gpu(warm.step)
    warm = dataclasses.replace(warm, flops=flops, counts=counts)
    return {ORDINARY: ordinary, FORWARD: warm}


def warm_variant(variant, timesteps, model=None):
    """A training step, warmed up, and its FLOPs and memory.

    Args:
        variant: `Variant`.
        timesteps: Integer T.
        model: The result of `trainer` for these arguments. Defaults to `None`, a
            new model.

    Returns:
        `Warm`.
    """
    settings, method = variant.settings, variant.method
    model = model or trainer(settings, method, timesteps)
    batch = cases.batch(settings, timesteps, method)
    with time_loops(variant.unrolled):
        warm = warm_up(
            functools.partial(model.train_on_batch, *batch),
            compiling_calls(settings, method),
        )
        if keras.backend.backend() == "jax":
            return dataclasses.replace(warm, **costs.compiled(model, *batch))
    if costs.needs_separate_process():
        return warm
    # A compiled graph hides its operations.
    is_hidden = settings.jit_compile is True and method not in ELSEWHERE
    has_flops = keras.backend.backend() == "torch" and not is_hidden
    return dataclasses.replace(
        warm,
        flops=costs.counted_flops(warm.step) if has_flops else None,
        memory_bytes=costs.memory_rise(warm.step),
        counts=_counts_of_gpu(warm.step),
        engine=_engine(model, method),
    )


def _counts_of_gpu(step):
    if keras.backend.backend() != "torch" or not device.gpu():
        return {}
    # Imported here because it imports PyTorch.
    from recipes.benchmark import trace

    return trace.profile(step)


def _engine(model, method):
    """How a step runs on a GPU with PyTorch: in SpikingJelly, which of its neurons it
    uses there."""
    if keras.backend.backend() != "torch" or not device.gpu():
        return None
    if method not in ELSEWHERE:
        return getattr(model, "engine", None)
    if ELSEWHERE[method].package != "spikingjelly":
        return None
    import torch
    from spikingjelly.activation_based import functional

    neurons = functional.neuron_implementation("lif", torch.device("cuda"))
    return neurons["implementation"]


def time_loops(unrolled):
    """A context in which XLA unrolls the time loop of every neuron layer, or of none;
    `None` leaves the choice to the library.

    Programs that are compiled in the context keep their loops afterwards.
    """
    if unrolled is None:
        return keras_ratesnn.engine_settings()
    limit = sys.maxsize if unrolled else 1
    steps = {kind: {False: limit, True: limit} for kind in ("cpu", "gpu")}
    return keras_ratesnn.engine_settings(unrolled_steps=steps)


def recorded_at_once():
    """A context in which the second call of every kind is recorded on PyTorch, and the
    first replay on a GPU is that of a CUDA graph.

    The first call runs in eager mode and compiles the time loops of neurons, forward
    and backward. Graphs contain these kernels, as after the many calls in eager mode
    that "auto" makes; without them a graph has several times as many operations.
    """
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    eager_calls = dict.fromkeys(("auto", True), CALLS_BEFORE_REPLAY - 1)
    return keras_ratesnn.engine_settings(eager_calls=eager_calls, calls_in_a_row=0)


def caches_in(folder):
    """The environment in which the compilers of PyTorch have their caches in a
    folder."""
    return {name: os.path.join(folder, name) for name in CACHES}


def compiling_calls(settings, method):
    """The numbers of the calls of a model in which something is compiled or recorded, a
    tuple; the first is 1."""
    if (
        keras.backend.backend() != "torch"
        or method in (ORDINARY, *ELSEWHERE)
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

    calls = max(compiling) + WARM_UP_STEPS
    seconds = timing.interleaved({"step": waiting}, calls)["step"]
    return Warm(waiting, [seconds[call - 1] for call in compiling])


def rows(warm, seconds, timesteps):
    """The results for one T.

    Args:
        warm: Dictionary from names to `Warm`: the methods and, where there is a floor,
            `ORDINARY` and `FORWARD`.
        seconds: Dictionary from the same names to lists of seconds, one for each round.
        timesteps: Integer T.

    Returns:
        List of dictionaries: a row for each method, then the floor and its two parts.
        Without a floor times are compared with those of the first method.
    """
    methods = [name for name in warm if name not in (ORDINARY, FORWARD)]
    if ORDINARY not in warm:
        first = seconds[methods[0]]
        return [
            _row(name, warm[name], seconds[name], timesteps)
            | {"ratio_to_first": timing.spread(timing.ratios(seconds[name], first))}
            for name in methods
        ]
    ordinary, forward = warm[ORDINARY], warm[FORWARD]
    floor = timing.floor(seconds[ORDINARY], seconds[FORWARD], timesteps)
    flops = None
    if ordinary.flops is not None:
        flops = ordinary.flops + (timesteps - 1) * forward.flops
    counts = {
        key: count + (timesteps - 1) * forward.counts[key]
        for key, count in ordinary.counts.items()
    }
    warm = {**warm, FLOOR: Warm(None, None, flops, counts=counts)}
    seconds = {**seconds, FLOOR: floor}
    result = []
    for name in (*methods, FLOOR, ORDINARY, FORWARD):
        row = _row(name, warm[name], seconds[name], timesteps)
        row["ratio_to_floor"] = timing.spread(timing.ratios(seconds[name], floor))
        row["flops_to_floor"] = _ratio(row["flops"], flops)
        row["memory_to_ordinary"] = _ratio(row["memory_bytes"], ordinary.memory_bytes)
        row["busy_to_floor"] = _ratio(
            row["counts"].get("busy_seconds"), counts.get("busy_seconds")
        )
        result.append(row)
    return result


def _row(name, warm, seconds, timesteps):
    spread = timing.spread(seconds)
    return {
        "method": name,
        "timesteps": timesteps,
        "seconds": spread,
        "seconds_of_rounds": seconds,
        "compile_seconds": compile_seconds(warm.compiling_seconds, spread["median"]),
        "first_seconds": warm.compiling_seconds and warm.compiling_seconds[0],
        "flops": warm.flops,
        "memory_bytes": warm.memory_bytes,
        "counts": warm.counts,
        "engine": warm.engine,
    }


def compile_seconds(compiling, median):
    """What compiling took: the sum of what the calls that compile, a list of seconds,
    took longer than the median.

    `None` without such calls.
    """
    if compiling is None:
        return None
    # Where nothing is compiled, the first calls are not always slower.
    return sum(max(0.0, seconds - median) for seconds in compiling)


def _ratio(value, base):
    return None if value is None or not base else value / base


def memory_in_new_process(settings, method, timesteps):
    """The peak memory of one training step, see `peak_bytes`."""
    with processes.new_process() as process:
        return process.submit(peak_bytes, settings, method, timesteps).result()


def peak_bytes(settings, method, timesteps):
    """The peak memory of one training step, in bytes: see `costs.memory_measure`."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        # Without XLA: otherwise the compiler's memory, which is larger than that of the
        # step, would count.
        settings = dataclasses.replace(settings, jit_compile=False)
    cases.configure(settings)
    model = trainer(settings, method, timesteps)
    samples, labels = cases.batch(settings, timesteps, method)
    if backend == "jax":
        return costs.compiled(model, samples, labels)["memory_bytes"]
    # One sample first: library buffers and traces do not belong to the step.
    model.train_on_batch(samples[:1], labels[:1])
    step = functools.partial(model.train_on_batch, samples, labels)
    with recorded_at_once():
        if backend == "torch":
            for _ in range(CALLS_BEFORE_REPLAY + 1):
                step()
        return costs.memory_rise(step)

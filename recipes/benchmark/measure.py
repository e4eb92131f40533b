"""The benchmark: for each T, all methods and the floor, timed in turn; and peak
memory."""

import contextlib
import dataclasses
import functools
import gc
import os
import sys
import traceback

import keras

import keras_ratesnn
from recipes import device
from recipes.atomic_files import one_line
from recipes.benchmark import cases, costs, processes, timing
from recipes.benchmark.settings import (
    FLOOR,
    FORWARD,
    ORDINARY,
    PEERS,
    SEQUENCES,
    Variant,
    packages_of_peers,
)

WARM_UP_STEPS = 2
"""The number of steps after the last one that compiles, in which memory pools fill, and
clock rates increase."""

FORWARDS_IN_A_STEP = 3
"""The FLOPs of an ordinary training step in forward passes: one forward pass, and a
backward pass of twice that."""

CALLS_BEFORE_REPLAY = 2
"""The calls of a kind before a graph is replayed, where it is recorded at once: one in
eager mode, and the recording."""

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""The environment variables that name the folders of PyTorch's and Triton's
compilers."""

UNMEASURED = {"flops": None, "memory_bytes": None, "counts": {}, "engine": None}
"""The measurements of a step besides times: FLOPs; memory; numbers of a GPU, see
`trace.counts`; and how it runs, on a GPU with PyTorch."""


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
        "versions": device.versions(packages_of_peers(settings.methods)),
        "flops_measure": costs.flops_measure(),
        "memory_measure": costs.memory_measure() if has_memory else None,
        "rows": [],
        "errors": [],
    }
    floor = ({}, {}) if settings.network in SEQUENCES else warm_floor(settings)
    for timesteps in settings.timesteps:
        record["rows"] += _rows_in_turns(
            settings, variants, floor, timesteps, record["errors"]
        )
        progress(record)
        # Models contain reference cycles; the next T needs their memory.
        gc.collect()
    return record


def _rows_in_turns(settings, variants, floor, timesteps, errors):
    """The rows of a T; what fails is added to the errors, a list."""
    measured, steps = {}, {}
    measured_floor, steps_of_floor = floor
    with contextlib.ExitStack() as stack:
        for name, variant in variants.items():
            # One that fails, or needs too much memory, does not end the others.
            try:
                measured[name], own = processes.made(
                    stack, variant.method, _configured, name, variant, timesteps
                )
                steps |= own
            except Exception as error:
                traceback.print_exc()
                what = f"{name}, T = {timesteps}: {type(error).__name__}"
                errors.append(f"{what}: {one_line(error)}")
        steps |= steps_of_floor
        seconds = timing.in_turns(steps, settings.rounds, settings.threads)
    return rows(measured | measured_floor, seconds, timesteps)


def _configured(name, variant, timesteps):
    """`warm_variant` in a process that may be a new one; see `processes.made`."""
    cases.configure(variant.settings)
    measured, step = warm_variant(variant, timesteps)
    return measured, {name: step}


def trainer(settings, method, timesteps):
    """The trainer of the settings' network: by a method of `cases.trainer`, or in
    another library."""
    if method in PEERS:
        # Imported here because it imports PyTorch.
        from recipes.benchmark import peers

        return peers.trainer(settings, method, timesteps)
    return cases.trainer(settings, method, timesteps)


def warm_floor(settings):
    """The parts of the floor: two dictionaries from their names, to what is measured
    and to steps, see `warm_variant`."""
    model = cases.trainer(settings, ORDINARY, 1)
    ordinary, ordinary_step = warm_variant(Variant(ORDINARY, settings), 1, model)
    images, _ = cases.batch(settings, 1)
    forward = cases.TrainingForward(model, settings.jit_compile)
    call = functools.partial(forward.predict_on_batch, images)
    step, seconds = warm_up(call, (1,))
    measured = {**UNMEASURED, "compiling_seconds": seconds}
    if ordinary["flops"] is not None:
        measured["flops"] = ordinary["flops"] / FORWARDS_IN_A_STEP
    measured |= _facts_of_gpu(step, forward, FORWARD)
    steps = {ORDINARY: ordinary_step, FORWARD: step}
    return {ORDINARY: ordinary, FORWARD: measured}, steps


def warm_variant(variant, timesteps, model=None):
    """A training step that has been compiled and run.

    Args:
        variant: `Variant`.
        timesteps: Integer T.
        model: The result of `trainer` for these arguments. Defaults to `None`, a
            new model.

    Returns:
        A dictionary of what is measured, as `UNMEASURED`, with `compiling_seconds`, the
        durations of the calls in which something is compiled or recorded; and the step,
        a function without arguments, which returns when the device is done.
    """
    settings, method = variant.settings, variant.method
    model = model or trainer(settings, method, timesteps)
    batch = cases.batch(settings, timesteps, method)
    call = functools.partial(model.train_on_batch, *batch)
    with time_loops(variant.unrolled):
        step, seconds = warm_up(call, compiling_calls(settings, method))
        measured = {**UNMEASURED, "compiling_seconds": seconds}
        if keras.backend.backend() == "jax":
            return measured | costs.compiled(model, *batch), step
    if costs.needs_separate_process():
        return measured, step
    # A compiled graph hides its operations.
    is_hidden = settings.jit_compile is True and method not in PEERS
    if keras.backend.backend() == "torch" and not is_hidden:
        measured["flops"] = costs.counted_flops(step)
    measured["memory_bytes"] = costs.memory_rise(step)
    return measured | _facts_of_gpu(step, model, method), step


def _facts_of_gpu(step, model, method):
    """`counts` and `engine` on a GPU with PyTorch: in SpikingJelly, which of its
    neurons it uses there."""
    if keras.backend.backend() != "torch" or not device.gpu():
        return {}
    # Imported here because it imports PyTorch.
    from recipes.benchmark import trace

    engine = getattr(model, "execution", None)
    if method in PEERS and PEERS[method].package == "spikingjelly":
        import torch
        from spikingjelly.activation_based import functional

        neurons = functional.neuron_implementation("lif", torch.device("cuda"))
        engine = neurons["implementation"]
    return {"counts": trace.profile(step), "engine": engine}


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
    """Calls a step several times.

    Args:
        step: Function without arguments.
        compiling: Tuple of integers, see `compiling_calls`.

    Returns:
        The step with a wait for the device, and the seconds of these calls, a list.
    """

    def waiting():
        step()
        device.synchronize()

    calls = max(compiling) + WARM_UP_STEPS
    seconds = timing.interleaved({"step": waiting}, calls)["step"]
    return waiting, [seconds[call - 1] for call in compiling]


def rows(measured, seconds, timesteps):
    """The results for one T.

    Args:
        measured: Dictionary from names to what `warm_variant` measures: the methods
            and, where there is a floor, `ORDINARY` and `FORWARD`.
        seconds: Dictionary from the same names to lists of seconds, one for each round.
        timesteps: Integer T.

    Returns:
        List of dictionaries: a row for each method, then the floor and its two parts.
        Without a floor times are compared with those of the first method.
    """
    methods = [name for name in measured if name not in (ORDINARY, FORWARD)]
    if ORDINARY not in measured:
        result = []
        for name in methods:
            row = _row(name, measured[name], seconds[name], timesteps)
            ratios = timing.ratios(seconds[name], seconds[methods[0]])
            result.append({**row, "ratio_to_first": timing.spread(ratios)})
        return result
    ordinary, forward = measured[ORDINARY], measured[FORWARD]
    floor = {**UNMEASURED, "compiling_seconds": None}
    if ordinary["flops"] is not None:
        floor["flops"] = ordinary["flops"] + (timesteps - 1) * forward["flops"]
    floor["counts"] = {
        key: count + (timesteps - 1) * forward["counts"][key]
        for key, count in ordinary["counts"].items()
    }
    floor_seconds = timing.floor(seconds[ORDINARY], seconds[FORWARD], timesteps)
    measured = {**measured, FLOOR: floor}
    seconds = {**seconds, FLOOR: floor_seconds}
    result = []
    for name in (*methods, FLOOR, ORDINARY, FORWARD):
        row = _row(name, measured[name], seconds[name], timesteps)
        ratios = timing.ratios(seconds[name], floor_seconds)
        row["ratio_to_floor"] = timing.spread(ratios)
        row["flops_to_floor"] = _ratio(row["flops"], floor["flops"])
        memory = ordinary["memory_bytes"]
        row["memory_to_ordinary"] = _ratio(row["memory_bytes"], memory)
        busy = floor["counts"].get("busy_seconds")
        row["busy_to_floor"] = _ratio(row["counts"].get("busy_seconds"), busy)
        result.append(row)
    return result


def _row(name, measured, seconds, timesteps):
    spread, compiling = timing.spread(seconds), measured["compiling_seconds"]
    return {
        "method": name,
        "timesteps": timesteps,
        "seconds": spread,
        "seconds_of_rounds": seconds,
        "compile_seconds": compile_seconds(compiling, spread["median"]),
        "first_seconds": compiling and compiling[0],
        **{key: measured[key] for key in UNMEASURED},
    }


def compile_seconds(compiling, median):
    """Seconds of compiling: the sum of what the calls that compile, a list of seconds,
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

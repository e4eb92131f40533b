"""Stage: training steps: time, time in which the GPU is busy, kernels,
synchronisations, memory."""

import dataclasses
import gc
import time

import keras

from recipes import device
from recipes.atomic_files import one_line
from recipes.benchmark import cases, loops, measure, timing
from recipes.benchmark.evidence import flags, graphs
from recipes.benchmark.settings import (
    FLOOR,
    FORWARD,
    ORDINARY,
    PEERS,
    Variant,
    variants,
)

FIRST_ROUNDS = 5
"""How often a step is timed alone, as soon as it is warm; the rounds in which all steps
take turns follow at the end."""

ADDED = ("kernels", "copies", "busy_seconds", "launches", "waits", "fetches")
"""What the parts of the floor add up to, besides time."""

LEAST_ROUNDS = 5
"""The rounds for which time is kept, whatever has to be left out for that."""

SPARE = 2
"""How much more time is kept for that, because a busy machine gets slower at any
time."""

LOOPED = {"rate-multi": (True, False), "bptt-multi": (True, False)}
"""Methods with time loops of layers, which on JAX are unrolled or not."""


def run(
    write, tables, jit_compile, tf32, compiler=None, suffix="", on_gpu=False, end=None
):
    """Writes a row for each method as soon as it is measured, and again when all have
    been timed in turn.

    Args:
        write: Function that takes a row, a dictionary.
        tables: List of dictionaries, the arguments of `Settings`, with one T each.
        jit_compile: List of values of `Settings.jit_compile`.
        tf32: Boolean, whether float32 may be computed as TF32.
        compiler: Name of one of PyTorch's compilers. Defaults to `None`, the one that
            the library uses.
        suffix: String that is appended to the names of peers. Defaults to `""`.
        on_gpu: Boolean, whether to fail without a GPU. Defaults to `False`.
        end: Number, the `time.time()` at which the process will be ended. Rows for
            which there is no time are left out, and get rows that say so. Defaults to
            `None`, no limit.

    Raises:
        RuntimeError: If there is no GPU but should be one.
    """
    if on_gpu and not device.gpu():
        raise RuntimeError(f"{keras.backend.backend()} sees no GPU.")
    # What is timed is the graph; all the calls before it would take a tenth of the
    # stage.
    with graphs.compiled_by(compiler), graphs.recorded_at_once():
        for options in tables:
            settings = flags.configured(options, tf32)
            common = {
                **flags.facts(settings),
                "tf32": tf32 and device.gpu(),
                "compiler": compiler,
            }
            found = rows_of(settings, jit_compile, suffix)
            _measure(
                lambda row, common=common: write({**common, **row}),
                settings,
                found,
                end,
            )
            gc.collect()


def rows_of(settings, jit_compile, suffix):
    """The rows of a table: a dictionary from names to `Variant`. What compiles for a
    long time comes last."""
    found = {ORDINARY: Variant(ORDINARY, settings)}
    on_torch = keras.backend.backend() == "torch"
    for variant in variants(settings, jit_compile).values():
        if variant.method in PEERS:
            found[variant.method + suffix] = variant
            continue
        name = variant.method + (
            f", jit_compile={variant.settings.jit_compile}" if on_torch else ""
        )
        for unrolled in (
            LOOPED.get(variant.method) if keras.backend.backend() == "jax" else None
        ) or (None,):
            form = {None: "", True: ", unrolled", False: ", loop"}[unrolled]
            found[name + form] = dataclasses.replace(variant, unrolled=unrolled)
    return dict(
        sorted(found.items(), key=lambda pair: pair[1].settings.jit_compile is True)
    )


def floor_of(ordinary, forward, timesteps):
    """The measurements of an ordinary training step and of a forward pass, added up for
    the floor, a dictionary."""

    def added(keys, step, once):
        return {
            key: step[key] + (timesteps - 1) * once[key] for key in keys if key in step
        }

    seconds = added(ordinary["seconds"], ordinary["seconds"], forward["seconds"])
    return {"seconds": seconds, **added(ADDED, ordinary, forward)}


def _measure(write, settings, rows, end):
    timesteps, warm, looks = settings.timesteps[0], {}, {}

    def look(name, row):
        """Warms up a row, and writes what is measured of it alone."""
        model = cases.trainer(row.settings, row.method, timesteps)
        # Counting would take a second compilation on JAX, and a second recording of a
        # graph that is compiled.
        with_flops = (
            keras.backend.backend() != "jax" and row.settings.jit_compile is not True
        )
        with loops.unrolled(row.unrolled):
            warm[name] = measure.warm_trainer(
                row.settings, row.method, timesteps, None, model, with_flops
            )
        looks[name] = _first_look(warm[name])
        write(
            {
                "kind": "step",
                "method": name,
                **_used(model, row),
                **looks[name],
                **_to_floor(looks[name], looks.get(FLOOR)),
            }
        )
        if name == ORDINARY:
            warm[FORWARD] = measure.warm_forward(settings, model, warm[ORDINARY])
            looks[FORWARD] = _first_look(warm[FORWARD])
            looks[FLOOR] = floor_of(looks[ORDINARY], looks[FORWARD], timesteps)
            for part in (FORWARD, FLOOR):
                write({"kind": "step", "method": part, **looks[part]})

    longest = {True: 0.0, False: 0.0}
    for name, row in rows.items():
        begin, compiles = time.time(), row.method not in (ORDINARY, *PEERS)
        # A method takes about as long to compile as the others, and cannot be
        # interrupted.
        if end is not None and end - begin < longest[compiles] + _turns_seconds(looks):
            write(
                {
                    "kind": "left out",
                    "method": name,
                    "reason": "no time was left to compile and warm it up",
                }
            )
            continue
        try:
            look(name, row)
        # One method that fails, or needs too much memory, does not end the stage.
        except Exception as error:
            warm.pop(name, None)
            write(
                {
                    "kind": "failed",
                    "method": name,
                    "error": f"{type(error).__name__}: {one_line(error)}"[:500],
                }
            )
        longest[compiles] = max(longest[compiles], time.time() - begin)
        gc.collect()
    if not {ORDINARY, FORWARD} <= set(warm):
        # Without the floor there are only the times of each method alone.
        return
    rounds = settings.rounds
    if end is not None:
        rounds = max(
            1,
            min(
                rounds, int(LEAST_ROUNDS * (end - time.time()) / _turns_seconds(looks))
            ),
        )
    seconds = timing.in_turns(warm, rounds)
    for row in measure.rows(warm, seconds, timesteps, settings.batch):
        write({"kind": "interleaved", **row})


def _turns_seconds(looks):
    """The seconds that are kept for the rounds in which all steps take turns that have
    been looked at, and for a new one."""
    # A step that is shorter is repeated; one that is longer may exceed the least by
    # nearly its own time.
    seconds = [
        timing.LEAST_SECONDS + look["seconds"]["median"]
        for name, look in looks.items()
        if name != FLOOR
    ]
    return SPARE * LEAST_ROUNDS * (sum(seconds) + max(seconds, default=0.0))


def _to_floor(look, floor):
    """The ratio of the time in which the GPU is busy to that of the floor, if both are
    known."""
    busy, least = look.get("busy_seconds"), (floor or {}).get("busy_seconds")
    return {"busy_to_floor": busy / least} if busy and least else {}


def _used(model, row):
    """What a step has used, besides its settings."""
    if row.method in PEERS and PEERS[row.method].package == "spikingjelly":
        import torch
        from spikingjelly.activation_based import functional

        # Which of its implementations it uses here.
        used = functional.neuron_implementation(
            "lif", torch.device("cuda" if device.gpu() else "cpu")
        )
        return {"neurons": used["implementation"]}
    if keras.backend.backend() == "torch" and row.method not in (ORDINARY, *PEERS):
        return {"way": model.engine}
    return {}


def _first_look(case):
    """Time alone, and all else that is measured of a step."""
    seconds = timing.interleaved({"step": case.step}, FIRST_ROUNDS)["step"]
    measured = {
        "seconds": timing.spread(seconds),
        "compile_seconds": measure.compile_seconds(
            case.compiling_seconds, min(seconds)
        ),
        "flops": case.flops,
        "memory_bytes": case.memory_bytes,
    }
    if keras.backend.backend() != "torch":
        return measured
    # Imported here because it imports PyTorch.
    from recipes.benchmark.evidence import trace

    return {**measured, **trace.of_step(case.launch)}

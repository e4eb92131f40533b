"""Stage: training steps: time, time in which the GPU is busy, kernels, synchronisations, memory."""

import contextlib
import dataclasses
import gc

import keras

from recipes import device
from recipes.benchmark import cases, loops, measure, timing
from recipes.benchmark.evidence import flags, graphs
from recipes.benchmark.settings import FORWARD, ORDINARY, PEERS, Settings
from recipes.benchmark.variants import variants
from recipes.whole_file import one_line

FIRST_ROUNDS = 5
"""How often a step is timed alone, as soon as it is warm; the rounds in which all steps take turns follow at the end."""

LOOPED = {"rate-multi": (True, False), "bptt-multi": (True, False)}
"""Methods with time loops of layers, which on JAX are unrolled or not."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        settings: `Settings`.
        method: Name.
        unrolled: Boolean, whether JAX unrolls time loops; `None` leaves the choice to the library.
    """

    settings: Settings
    method: str
    unrolled: bool | None = None


def run(write, tables, jit_compile, tf32, compiler=None, suffix="", on_gpu=False):
    """Writes a row for each method as soon as it is measured, and again when all have been timed in turn.

    Args:
        write: Function that takes a row, a dictionary.
        tables: List of dictionaries, the arguments of `Settings`, with one T each.
        jit_compile: List of values of `Settings.jit_compile`.
        tf32: Boolean, whether float32 may be computed as TF32.
        compiler: Name of one of PyTorch's compilers. Defaults to `None`, the one that the library uses.
        suffix: String that is appended to the names of peers. Defaults to `""`.
        on_gpu: Boolean, whether to fail without a GPU. Defaults to `False`.

    Raises:
        RuntimeError: If there is no GPU but should be one.
    """
    if on_gpu and not device.gpu():
        raise RuntimeError(f"{keras.backend.backend()} sees no GPU.")
    flags.fix(tf32)
    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "torch":
            stack.enter_context(graphs.compiled_by(compiler))
            # What is timed is the graph; the calls before it would take a tenth of the stage.
            stack.enter_context(graphs.recorded_at_once())
        for options in tables:
            settings = Settings(**options)
            cases.configure(settings)
            common = {
                "backend": keras.backend.backend(),
                "timesteps": settings.timesteps[0],
                "precision": settings.precision,
                "data_format": settings.data_format,
                "tf32": tf32 and device.gpu(),
                "compiler": compiler,
            }
            _measure(lambda row, common=common: write({**common, **row}), settings, rows_of(settings, jit_compile, suffix))
            gc.collect()


def rows_of(settings, jit_compile, suffix):
    """The rows of a table: a dictionary from names to `Row`. What compiles for a long time comes last."""
    found = {ORDINARY: Row(settings, ORDINARY)}
    for name, variant in variants(settings, jit_compile).items():
        peer = variant.method in PEERS
        looped = LOOPED.get(variant.method) if keras.backend.backend() == "jax" else None
        for unrolled in looped or (None,):
            form = {None: "", True: ", unrolled", False: ", loop"}[unrolled]
            found[name + form + (suffix if peer else "")] = Row(variant.settings, variant.method, unrolled)
    return dict(sorted(found.items(), key=lambda pair: pair[1].settings.jit_compile is True))


def _measure(write, settings, rows):
    timesteps, warm = settings.timesteps[0], {}
    for name, row in rows.items():
        try:
            model = cases.trainer(row.settings, row.method, timesteps)
            warm[name] = _warm(model, row, timesteps)
            write({"kind": "step", "method": name, **_used(model, row), **_first_look(warm[name])})
            if name == ORDINARY:
                warm[FORWARD] = measure.warm_forward(settings, model, warm[ORDINARY])
        # One method that fails, or needs too much memory, does not end the stage.
        except Exception as error:
            warm.pop(name, None)
            write({"kind": "failed", "method": name, "error": f"{type(error).__name__}: {one_line(error)}"[:500]})
        gc.collect()
    if not {ORDINARY, FORWARD} <= set(warm):
        # Without the floor there are only the times of each method alone.
        return
    seconds = timing.interleaved(
        {name: case.step for name, case in warm.items()}, settings.rounds, least_seconds=timing.LEAST_SECONDS
    )
    for row in measure.rows(warm, seconds, timesteps, settings.batch):
        write({"kind": "interleaved", **row})


def _warm(model, row, timesteps):
    with contextlib.nullcontext() if row.unrolled is None else loops.unrolled(row.unrolled):
        # Counting would take a second compilation on JAX, and a second recording of a graph that is compiled.
        with_flops = keras.backend.backend() != "jax" and row.settings.jit_compile is not True
        return measure.warm_trainer(row.settings, row.method, timesteps, None, model, with_flops)


def _used(model, row):
    """What a step has used, besides its settings."""
    if row.method == "spikingjelly":
        return {"neurons": _neurons_of_spikingjelly()}
    if keras.backend.backend() == "torch" and row.method not in (ORDINARY, *PEERS):
        return {"way": graphs.taken(model)}
    return {}


def _neurons_of_spikingjelly():
    """Which of its implementations of neurons SpikingJelly uses here."""
    import torch
    from spikingjelly.activation_based import functional

    return functional.neuron_implementation("lif", torch.device("cuda" if device.gpu() else "cpu"))["implementation"]


def _first_look(case):
    """Time alone, and all else that is measured of a step."""
    seconds = timing.interleaved({"step": case.step}, FIRST_ROUNDS)["step"]
    measured = {
        "seconds": timing.spread(seconds),
        "compile_seconds": measure.compile_seconds(case.compiling_seconds, min(seconds)),
        "flops": case.flops,
        "memory_bytes": case.memory_bytes,
    }
    if keras.backend.backend() != "torch":
        return measured
    # Imported here because it imports PyTorch.
    from recipes.benchmark.evidence import trace

    return {**measured, **trace.of_step(case.launch)}

"""The stages of the kit: all of them on a GPU; on a CPU a small selection, which is not evidence."""

import dataclasses
import importlib.util

TOTAL_SECONDS = 525
"""The deadline of the whole run: less than nine minutes, with the tables."""

METHODS = ("rate-multi", "rate-single", "bptt-multi")
PEER = "spikingjelly"
PYTORCH_NEURONS = {"SJ_LIF_CUDA_IMPLEMENTATION": "torch"}
"""The environment in which SpikingJelly uses its PyTorch neurons on a GPU, in the place of Triton's or CUDA's."""

JAX = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Without it JAX would claim most of the memory of the GPU, which PyTorch needs too."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For networks so small that threads would only wait for each other."""

SMALL_SECONDS = 180
"""The deadline of each stage on a CPU, where a stage takes less than half a minute unless the machine is busy."""

SMALL_CASES = ("mlp_rate_m", "mlp_bptt_m", "res_rate_m", "vgg_rate_s")
SMALL_COMPILER = "aot_eager"
"""Stands in for the compiler on a CPU, where compilation would take minutes: graphs are prepared as for it, and interpreted."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the kit, which runs in a process of its own.

    Attributes:
        name: String, unique.
        work: Name of a module of this package, whose `run(write, **arguments)` does the work.
        arguments: Dictionary of what JSON can represent.
        seconds: Number, the deadline of the stage.
        timed: Boolean: whether it needs a quiet machine. Others run first, several at once.
        backend: Name of the Keras backend.
        environment: Dictionary of further environment variables.
        prepares: Name of the only stage that needs this one, or an empty string.
    """

    name: str
    work: str
    arguments: dict
    seconds: float
    timed: bool = False
    backend: str = "torch"
    environment: dict = dataclasses.field(default_factory=dict)
    prepares: str = ""


def remaining(stages, rows):
    """The stages that a run still has to do: all but those that are done, and what prepares them.

    Args:
        stages: List of `Stage`.
        rows: List of dictionaries, what previous runs have written.
    """
    done = {row["stage"] for row in rows if row["kind"] == "stage" and row["status"] == "done"}
    # Each run says what it was run with.
    return [stage for stage in stages if stage.work == "about" or (stage.prepares or stage.name) not in done]


def on_gpu():
    """The stages on a machine with a GPU, the most important first."""
    shape = {"width": 1.0, "batch": 128, "size": 32, "rounds": 20}
    tables = {
        (timesteps, precision): {**shape, "timesteps": [timesteps], "precision": precision, "methods": list(METHODS)}
        for timesteps in (4, 8)
        for precision in ("float32", "mixed_bfloat16")
    }
    small = {"width": 0.25, "batch": 16, "size": 32, "timesteps": [4], "methods": list(METHODS)}
    peers = [PEER] if _is_installed(PEER) else []
    return [
        Stage("about", "about", {"evidence": True}, 60),
        *(_agreement(precision, small, 170) for precision in ("float32", "float64")),
        *_compilations(tables, 200),
        Stage("reference", "reference", {}, 150),
        *_step_tables(tables, peers, ["auto", True], 110),
        *_pytorch_neurons(list(tables.values()), peers, 60),
        # The constant that unrolls loops is 8.
        *_jax_tables(dict(sorted(tables.items(), reverse=True)), 90, on_gpu=True),
        Stage(
            "steps, channels_first",
            "steps",
            {
                "tables": [{**tables[4, "float32"], "data_format": "channels_first", "methods": ["rate-multi"]}],
                "jit_compile": ["auto"],
                "tf32": True,
            },
            40,
            timed=True,
        ),
    ]


def on_cpu():
    """The same kinds of stages in small, to see that they run."""
    shape = {"width": 0.125, "batch": 2, "size": 8, "rounds": 2}
    methods = {"timesteps": [2], "methods": ["rate-multi"]}
    tables = {(2, "float32"): {**shape, **methods, "precision": "float32"}}
    peers = [PEER] if _is_installed(PEER) else []
    stages = [
        Stage("about", "about", {"evidence": False}, SMALL_SECONDS),
        _agreement("float64", {**shape, **methods}, SMALL_SECONDS, SMALL_COMPILER),
        Stage("reference", "reference", {"names": list(SMALL_CASES)}, SMALL_SECONDS),
        *_step_tables(tables, peers, ["auto", True], SMALL_SECONDS, SMALL_COMPILER),
        *_jax_tables({(2, "float32"): {**tables[2, "float32"], "network": "VGG11", "size": 32}}, SMALL_SECONDS, on_gpu=False),
    ]
    return [dataclasses.replace(stage, environment={**stage.environment, **ONE_THREAD}) for stage in stages]


def _agreement(precision, settings, seconds, compiler=None):
    arguments = {"settings": {**settings, "precision": precision}, "steps": 3, "compiler": compiler}
    return Stage(f"agreement, {precision}", "agreement", arguments, seconds)


def _compilations(tables, seconds):
    for (timesteps, precision), settings in tables.items():
        name = f"T = {timesteps}, {precision}"
        arguments = {"settings": settings, "tf32": True}
        yield Stage(f"compilation, {name}", "compilation", arguments, seconds, prepares=f"steps, {name}")


def _step_tables(tables, peers, jit_compile, seconds, compiler=None):
    for (timesteps, precision), settings in tables.items():
        table = {**settings, "methods": [settings["methods"][0], *peers, *settings["methods"][1:]]}
        arguments = {"tables": [table], "jit_compile": jit_compile, "tf32": True, "compiler": compiler}
        yield Stage(f"steps, T = {timesteps}, {precision}", "steps", arguments, seconds, timed=True)


def _pytorch_neurons(tables, peers, seconds):
    if peers:
        tables = [{**settings, "methods": peers} for settings in tables]
        arguments = {"tables": tables, "jit_compile": ["auto"], "tf32": True, "suffix": ", PyTorch neurons"}
        yield Stage(
            "steps, SpikingJelly's PyTorch neurons", "steps", arguments, seconds, timed=True, environment=PYTORCH_NEURONS
        )


def _jax_tables(tables, seconds, on_gpu):
    if not _is_installed("jax"):
        return
    for (timesteps, precision), settings in tables.items():
        arguments = {"tables": [settings], "jit_compile": ["auto"], "tf32": True, "on_gpu": on_gpu}
        name = f"steps, JAX, T = {timesteps}, {precision}"
        yield Stage(name, "steps", arguments, seconds, timed=True, backend="jax", environment=JAX)


def _is_installed(package):
    return importlib.util.find_spec(package) is not None

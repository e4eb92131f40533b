"""The stages of the kit: all of them on a GPU; on a CPU a small selection, which is not
evidence."""

import dataclasses
import importlib.util

from recipes.benchmark.settings import PEERS

TOTAL_SECONDS = 510
"""The deadline of the whole run: less than nine minutes, also where Python takes long
to start."""

UNTIMED_SECONDS = 230
"""The deadline of the stages that time nothing: most of the rest is for those that do,
also where few cores compile slowly."""

METHODS = ("rate-multi", "rate-single", "bptt-multi")
PEER = "spikingjelly"
PYTORCH_NEURONS = {"SJ_LIF_CUDA_IMPLEMENTATION": "torch"}
"""The environment in which SpikingJelly uses its PyTorch neurons on a GPU, in the place
of Triton's or CUDA's."""

JAX = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Without it JAX would claim most of the memory of the GPU, which PyTorch needs too."""

COMPILATION = "compilation"
"""The first word in the names of stages that only prepare others."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For networks so small that threads would only wait for each other."""

SMALL_SECONDS = 180
"""The deadline of each stage on a CPU, where a stage takes less than half a minute
unless the machine is busy."""

SMALL_CASES = ("mlp_rate_m", "mlp_bptt_m", "res_rate_m", "vgg_rate_s")
SMALL_COMPILER = "aot_eager"
"""Stands in for the compiler on a CPU, where compilation would take minutes: graphs are
prepared as for it, and interpreted."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the kit, which runs in a process of its own.

    Attributes:
        name: String, unique.
        work: Name of a module of this package, whose `run(write, **arguments)` does the
            work.
        arguments: Dictionary of what JSON can represent.
        seconds: Number, the deadline of the stage.
        timed: Boolean: whether it needs a quiet machine. Others run first, several at
            once.
        backend: Name of the Keras backend.
        environment: Dictionary of further environment variables.
        needs: Dictionary from methods in its tables to the names of the stages that
            compile their graphs; without such a stage a method is left out.
    """

    name: str
    work: str
    arguments: dict
    seconds: float
    timed: bool = False
    backend: str = "torch"
    environment: dict = dataclasses.field(default_factory=dict)
    needs: dict = dataclasses.field(default_factory=dict)


def remaining(stages, rows):
    """The stages that a run still has to do: all but those that are done, and what
    prepares them.

    Args:
        stages: List of `Stage`.
        rows: List of dictionaries, what previous runs have written.
    """
    done = {
        row["stage"]
        for row in rows
        if row["kind"] == "stage" and row["status"] == "done"
    }
    # Nothing else comes from what compiles; the cache of a previous run may be gone.
    prepares = {name for stage in stages for name in stage.needs.values()}
    needed = {
        name
        for stage in stages
        if stage.name not in done
        for name in stage.needs.values()
    }
    # Each run says what it was run with.
    return [
        stage
        for stage in stages
        if stage.work == "about"
        or (stage.name in needed if stage.name in prepares else stage.name not in done)
    ]


def prepared(stage, done):
    """`(stage, missing)`: the stage without the methods whose graphs are not compiled,
    and the list of these.

    Args:
        stage: `Stage`.
        done: Set of the names of stages that are done.
    """
    missing = [method for method, name in stage.needs.items() if name not in done]
    if not missing:
        return stage, missing
    tables = [
        {
            **table,
            "methods": [method for method in table["methods"] if method not in missing],
        }
        for table in stage.arguments["tables"]
    ]
    return dataclasses.replace(
        stage, arguments={**stage.arguments, "tables": tables}
    ), missing


def has_methods(stage):
    """Whether a stage has anything to measure in its tables."""
    return any(table["methods"] for table in stage.arguments["tables"])


def with_end(stage, end):
    """A stage that is told when it will be ended, a `time.time()`, if its work can plan
    with that."""
    return (
        dataclasses.replace(stage, arguments={**stage.arguments, "end": end})
        if stage.work == "steps"
        else stage
    )


def on_gpu():
    """The stages on a machine with a GPU, the most important first."""
    shape = {
        "width": 1.0,
        "batch": 128,
        "size": 32,
        "rounds": 20,
        "methods": list(METHODS),
    }
    tables = {
        (timesteps, precision): {
            **shape,
            "timesteps": [timesteps],
            "precision": precision,
        }
        for precision in ("float32", "mixed_bfloat16")
        for timesteps in (4, 8)
    }
    float32, half = (
        {key: table for key, table in tables.items() if key[1] == name}
        for name in ("float32", "mixed_bfloat16")
    )
    small = {
        "width": 0.25,
        "batch": 16,
        "size": 32,
        "timesteps": [4],
        "methods": list(METHODS),
    }
    peers = [PEER] if _is_installed(PEER) else []
    compilations = list(_compilations(tables, UNTIMED_SECONDS))
    stages = [
        Stage("about", "about", {"evidence": True}, 60),
        Stage("reference", "reference", {}, 150),
        _agreement("float32", small, ["recorded"], 80),
        # On few cores there is no time for more than the first of them.
        *compilations[:2],
        _agreement("float64", small, ["recorded"], 80),
        *compilations[2:],
        *(
            _agreement(precision, small, ["compiled"], 170)
            for precision in ("float32", "float64")
        ),
        *_step_tables(float32, peers, ["auto"], 150),
        *_compiled_tables(float32, 90),
        *_step_tables(half, peers, ["auto"], 150),
        *_compiled_tables(half, 90),
        *_first_steps(tables[8, "float32"], 120),
    ]
    if peers:
        optimized = [name for name, peer in PEERS.items() if peer.memopt]
        stages.append(
            _steps(
                "SpikingJelly's memopt",
                [{**tables[8, "float32"], "methods": optimized}],
                60,
            )
        )
        slow = _steps(
            "SpikingJelly's PyTorch neurons",
            [{**table, "methods": peers} for table in float32.values()],
            60,
        )
        slow.arguments["suffix"] = ", PyTorch neurons"
        stages.append(dataclasses.replace(slow, environment=PYTORCH_NEURONS))
    # The constant that unrolls loops is 8.
    stages += _jax_tables(dict(sorted(tables.items(), reverse=True)), 90, on_gpu=True)
    first = {
        **tables[4, "float32"],
        "data_format": "channels_first",
        "methods": ["rate-multi"],
    }
    return [*stages, _steps("channels_first", [first], 40)]


def on_cpu():
    """The same kinds of stages in small, to see that they run."""
    shape = {"width": 0.125, "batch": 2, "size": 8, "rounds": 2}
    methods = {"timesteps": [2], "methods": ["rate-multi"]}
    tables = {(2, "float32"): {**shape, **methods, "precision": "float32"}}
    peers = [PEER] if _is_installed(PEER) else []
    stages = [
        Stage("about", "about", {"evidence": False}, SMALL_SECONDS),
        _agreement(
            "float64",
            {**shape, **methods},
            ["recorded", "compiled"],
            SMALL_SECONDS,
            SMALL_COMPILER,
        ),
        Stage("reference", "reference", {"names": list(SMALL_CASES)}, SMALL_SECONDS),
        *_step_tables(tables, peers, ["auto", True], SMALL_SECONDS, SMALL_COMPILER),
        *_jax_tables(
            {(2, "float32"): {**tables[2, "float32"], "network": "VGG11", "size": 32}},
            SMALL_SECONDS,
            on_gpu=False,
        ),
    ]
    return [
        dataclasses.replace(stage, environment={**stage.environment, **ONE_THREAD})
        for stage in stages
    ]


def _agreement(precision, settings, modes, seconds, compiler=None):
    arguments = {
        "settings": {**settings, "precision": precision},
        "steps": 3,
        "modes": modes,
        "compiler": compiler,
    }
    return Stage(
        f"agreement, {', '.join(modes)}, {precision}", "agreement", arguments, seconds
    )


def _compilations(tables, seconds):
    for method in METHODS:
        for (timesteps, precision), settings in tables.items():
            arguments = {"settings": {**settings, "methods": [method]}, "tf32": True}
            yield Stage(
                _compilation(method, timesteps, precision),
                "compilation",
                arguments,
                seconds,
            )


def _compilation(method, timesteps, precision):
    return f"{COMPILATION}, {method}, T = {timesteps}, {precision}"


def _steps(name, tables, seconds, jit_compile=("auto",), **further):
    """The stage that times these tables, with further arguments of `steps.run`."""
    arguments = {
        "tables": tables,
        "jit_compile": list(jit_compile),
        "tf32": True,
        **further,
    }
    return Stage(f"steps, {name}", "steps", arguments, seconds, timed=True)


def _step_tables(tables, peers, jit_compile, seconds, compiler=None):
    for (timesteps, precision), settings in tables.items():
        table = {
            **settings,
            "methods": [settings["methods"][0], *peers, *settings["methods"][1:]],
        }
        yield _steps(
            f"T = {timesteps}, {precision}",
            [table],
            seconds,
            jit_compile,
            compiler=compiler,
        )


def _compiled_tables(tables, seconds):
    for (timesteps, precision), settings in tables.items():
        stage = _steps(
            f"compiled, T = {timesteps}, {precision}", [settings], seconds, [True]
        )
        needs = {
            method: _compilation(method, timesteps, precision)
            for method in settings["methods"]
        }
        yield dataclasses.replace(stage, needs=needs)


def _first_steps(settings, seconds):
    """In a process each: what one has compiled the other must not find."""
    for jit_compile in ("auto", True):
        arguments = {
            "settings": {
                **settings,
                "methods": [METHODS[0]],
                "jit_compile": jit_compile,
            },
            "tf32": True,
        }
        name = (
            f"first steps, jit_compile={jit_compile}, T = "
            f"{settings['timesteps'][0]}, {settings['precision']}"
        )
        yield Stage(name, "first_steps", arguments, seconds, timed=True)


def _jax_tables(tables, seconds, on_gpu):
    for (timesteps, precision), settings in (
        tables.items() if _is_installed("jax") else ()
    ):
        stage = _steps(
            f"JAX, T = {timesteps}, {precision}", [settings], seconds, on_gpu=on_gpu
        )
        yield dataclasses.replace(stage, backend="jax", environment=JAX)


def _is_installed(package):
    return importlib.util.find_spec(package) is not None

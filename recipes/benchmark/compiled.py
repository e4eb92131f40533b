"""Memory plan of a training step for a device that is not there:
`python -m recipes.benchmark.compiled h100 cifar10_resnet18`, on JAX.

XLA's compiler for the device compiles the step ahead of time, with its memory plan,
kernels and collectives. Nothing runs: there are no times, and no algorithms are
measured for convolutions.
"""

import dataclasses
import functools
import os
import pathlib
import time

from recipes import command_line
from recipes.benchmark.settings import ORDINARY

NOT_RUN = "Compiled by XLA, not run."

FILE_BATCH = 32
"""The batch of a device, for a model of a file, as in `keras.Model.fit`."""

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        name: String, for people.
        platform: String, as JAX calls it.
        memory_bytes: Integer, that of one device.
        extra: String, the extra of pyproject.toml that installs its compiler.
        topology: Function from a number of devices to the options of
            `jax.experimental.topologies.get_topology_desc`.
        options: Dictionary of options of the compiler.
    """

    name: str
    platform: str
    memory_bytes: int
    extra: str
    topology: object
    options: dict


def _gpus(devices):
    """The options of a topology of GPUs, eight of which are in a machine."""
    machines = -(-devices // 8)
    description = pathlib.Path(__file__).with_name("h100.txtpb")
    return {
        "topology_name": "1x1x1",
        "topology": f"1x{machines}x{min(devices, 8)}",
        "target_config": description.read_text(encoding="utf-8"),
    }


def _tpus(devices):
    """The options of a topology of TPUs, a square of four at least."""
    side = 2
    while side**2 < devices:
        side *= 2
    return {"topology_name": f"v5e:{side}x{side}"}


TARGETS = {
    "h100": Target(
        name="NVIDIA H100 SXM, 80 GB",
        platform="cuda",
        memory_bytes=84_942_979_072,
        extra="h100",
        topology=_gpus,
        options={
            # Without a GPU there is nothing to measure algorithms on.
            "xla_gpu_autotune_level": 0,
            # All gradients in one exchange.
            "xla_gpu_all_reduce_combine_threshold_bytes": 2**30,
        },
    ),
    "tpu-v5e": Target(
        name="TPU v5e, 16 GB",
        platform="tpu",
        memory_bytes=16 * 2**30,
        extra="tpu",
        topology=_tpus,
        options={},
    ),
}

ENVIRONMENT = {
    # The model itself is built on the CPU.
    "JAX_PLATFORMS": "cpu",
    # The TPU compiler would ask the network where it is.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


def add_arguments(parser):
    add_count = functools.partial(command_line.add_count, parser)
    parser.add_argument("target", choices=TARGETS, help="the kind of device")
    what = "a recipe, as python -m recipes.train lists them, or a .keras file"
    parser.add_argument("model", metavar="NAME", help=what)
    add_count("--devices", "number of devices, which share a batch", 1)
    method = "as in recipes.compare; or ordinary, the network without time"
    parser.add_argument("--method", metavar="NAME", help=method)
    add_count("--timesteps", "number of time steps", metavar="T")
    precision = "Keras' dtype policy of a recipe"
    parser.add_argument("--precision", metavar="NAME", help=precision)
    add_count(
        "--batch-size",
        "samples on one device; by default the recipe's batch, divided among the "
        f"devices, and {FILE_BATCH} for a file",
    )
    output = "file for the numbers, as JSON"
    command_line.add_path(parser, "--output", output, metavar="FILE")


def run(arguments):
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from recipes import device
    from recipes.atomic_files import write_json

    target = TARGETS[arguments.target]
    with command_line.mistakes():
        device.check_backend("jax", "XLA's compilers for other machines need JAX.")
        devices = _devices(target, arguments.devices)
        model, sample, batch = _built(arguments)
    record = {
        "target": arguments.target,
        "model": arguments.model,
        "devices": arguments.devices,
        "method": arguments.method or _method(model),
        "timesteps": getattr(model, "timesteps", None),
        "sample": list(sample),
        "precision": model.dtype_policy.name,
        "batch_size": batch,
        "versions": device.versions(),
        **_step(model, sample, batch, target, devices),
    }
    print(report(record))
    if arguments.output is not None:
        with command_line.mistakes():
            write_json(arguments.output, record)
        print(f"saved: {arguments.output}")


def _devices(target, number):
    """Devices that are not there."""
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(
            platform=target.platform, **target.topology(number)
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImportError(
            f"There is no compiler for {number} x {target.name} ({reason}). If it is "
            f'not installed: python -m pip install -e ".[{target.extra}]".'
        ) from error
    return topology.devices[:number]


def _method(model):
    """How a model of a recipe or a file is trained, for people."""
    gradient = getattr(model, "gradient", None)
    return ORDINARY if gradient is None else f"{gradient!r}, {model.step_mode}-step"


def _built(arguments):
    """The compiled model of a command line, the shape of a sample, and the number of
    samples on one device."""
    import keras

    from recipes import catalogue, optimizers, run

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    batch = arguments.batch_size
    if arguments.model.endswith(".keras"):
        model = _of_file(arguments)
        optimizer = getattr(model, "optimizer", None) or "sgd"
        model.compile(optimizer, loss)
        return model, _inputs(model)[0].shape[1:], batch or FILE_BATCH
    recipe = catalogue.find(arguments.model).with_settings(_settings(arguments))
    recipe.check_classifies("benchmark.compiled")
    run.prepare(recipe)
    keras.utils.set_random_seed(recipe.seed)
    if arguments.method == ORDINARY:
        model = recipe.ordinary_network(None)
    else:
        model = run.spiking_model(recipe, None, None)
    model.compile(optimizers.build(recipe, model, recipe.epochs), loss)
    sample = _inputs(model)[0].shape[1:]
    if recipe.has_time and arguments.method != ORDINARY:
        sample = (recipe.timesteps, *sample)
    return model, sample, batch or -(-recipe.batch_size // arguments.devices)


def _settings(arguments):
    """Changes of a recipe on a command line, as after `--set`."""
    from recipes import methods

    given = [
        f"{name}={getattr(arguments, name)}"
        for name in ("timesteps", "precision")
        if getattr(arguments, name) is not None
    ]
    if arguments.method in (None, ORDINARY):
        return given
    return given + methods.assignments(arguments.method, (ORDINARY,))


def _of_file(arguments):
    """The model of a file, with the settings of a command line."""
    import keras

    import keras_ratesnn
    from recipes import methods

    model = keras.saving.load_model(arguments.model)
    is_spiking = isinstance(model, keras_ratesnn.SpikingModel)
    allowed = ("timesteps", "method") if is_spiking else ()
    for name in ("timesteps", "method", "precision"):
        value = getattr(arguments, name)
        if value is not None and name not in allowed:
            raise ValueError(
                f"`--{name}` cannot change the {type(model).__name__} of a file. "
                f"Received: --{name} {value}. Leave it out."
            )
    if arguments.timesteps is not None:
        model.timesteps = arguments.timesteps
    if arguments.method is not None:
        chosen = methods.settings_of(arguments.method)
        model.step_mode = chosen["step_mode"]
        model.gradient = methods.gradient_method(chosen)
    return model


def _inputs(model):
    """The inputs of a network of one time step."""
    return getattr(model, "network", model).inputs


def _step(model, sample, batch, target, devices):
    """The numbers of the training step of a model that is compiled for devices."""
    import jax
    import numpy as np

    import keras_ratesnn
    from recipes.benchmark import costs, programs

    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    model.optimizer.build(model.trainable_variables)
    parts = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple(
        [
            jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=whole)
            for value in (variable.value for variable in part)
        ]
        for part in parts
    )
    samples = batch * len(devices)
    data = (
        jax.ShapeDtypeStruct((samples, *sample), "float32", sharding=divided),
        jax.ShapeDtypeStruct((samples,), "int32", sharding=divided),
    )
    step = jax.jit(model.train_step, donate_argnums=0)
    began = time.monotonic()
    with keras_ratesnn.engine_settings(platform=target.platform):
        traced = step.trace(state, data)
    lowered = traced.lower()
    try:
        program = lowered.compile(compiler_options=target.options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"fits": False, "compiler_says": str(error).splitlines()[0]}
    seconds = time.monotonic() - began
    memory = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "fits": held <= target.memory_bytes,
        "held_mib": held / MIB,
        "temporary_mib": memory.temp_size_in_bytes / MIB,
        "argument_mib": memory.argument_size_in_bytes / MIB,
        "flops": costs.flops_of_traced(traced),
        **programs.counted(program.as_text()),
        "compile_seconds": seconds,
    }


def report(record):
    """The record in words and numbers."""
    target = TARGETS[record["target"]]
    lines = [
        f"{record['model']}, {record['method']}, {record['precision']}, "
        f"{record['batch_size']} samples on each of {record['devices']} x "
        f"{target.name}. {NOT_RUN}"
    ]
    if "compiler_says" in record:
        lines += [f"Does not fit: {record['compiler_says']}"]
        return "\n".join(lines)
    share = record["held_mib"] * MIB / target.memory_bytes
    fits = "fits" if record["fits"] else "does not fit"
    loops = record["loops"]
    unrolled = f"{loops} loops" if loops else "no loop: time steps are unrolled"
    rows = {
        "memory": f"{record['held_mib']:,.0f} MiB, {share:.1%} of a device: {fits}",
        "temporary": f"{record['temporary_mib']:,.0f} MiB",
        "arguments": f"{record['argument_mib']:,.0f} MiB: weights, optimizer, batch",
        "FLOPs": _flops(record["flops"]),
        "bytes": f"{record['bytes'] / 1e9:,.1f} GB read and written by all launches",
        "launches": f"{record['launches']}: {_kinds(record['kinds'])}; {unrolled}",
        "exchanges": f"{_kinds(record['exchanges']) or 'none'}, "
        f"{record['exchanged_bytes'] / MIB:,.1f} MiB",
        "compilation": f"{record['compile_seconds']:.0f} s",
    }
    lines += [f"{name:12}{text}" for name, text in rows.items()]
    return "\n".join(lines)


def _flops(count):
    """FLOPs for people."""
    if count is None:
        return "not told: convolutions are in a loop"
    return f"{count / 1e9:,.1f} G of all devices, before XLA changes the program"


def _kinds(counts):
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


main = command_line.command(__name__, "benchmark.compiled", __doc__, add_arguments, run)

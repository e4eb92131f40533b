"""The answers to the questions of `gpu.py`: functions that write rows, dictionaries
with the name of the `row`, as soon as they are measured."""

import contextlib
import datetime
import functools
import gc
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
from keras import ops

from recipes import device
from recipes.atomic_files import one_line
from recipes.benchmark import cases, measure, timing
from recipes.benchmark.settings import (
    ELSEWHERE,
    FLOOR,
    PEERS,
    Settings,
    variants,
)

PACKAGES = (
    "triton",
    "jax",
    "jaxlib",
    "spikingjelly",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "tensorflow",
    "optree",
)

TESTS = pathlib.Path(__file__).parents[2] / "tests"

TOLERANCE = 1e-3
"""The largest relative error of a reference case that agrees."""

NEGLIGIBLE = 1e-5
"""A gradient that is smaller than this fraction of the largest is zero but for
rounding; it has no relative error."""

LEARNING_RATE, STEPS = 0.01, 3
"""Of graphs that are compared with eager mode."""

FIRST_ROUNDS = 5
"""How often all steps are timed in turn whenever one more is warm."""

COUNTS = ("kernels", "copies", "busy_seconds", "launches", "waits", "fetches")
"""What the parts of the floor add up to, besides time; see `trace.counts`."""


def configured(settings, tf32=True):
    """The `Settings` of a dictionary, set for what follows, with cuDNN's fastest
    algorithms; and whether float32 may be computed as TF32."""
    fix_tf32(tf32)
    settings = Settings(**settings)
    cases.configure(settings)
    return settings


def fix_tf32(allowed):
    """Allows or forbids TF32 for convolutions and matrix products of float32."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
        # Only PyTorch can be told; the others always do.
        torch.backends.cudnn.benchmark = True
    elif backend == "jax":
        import jax

        precision = "tensorfloat32" if allowed else "highest"
        jax.config.update("jax_default_matmul_precision", precision)
    else:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def about(write, is_evidence):
    """What was measured with: versions and device."""
    import torch

    fix_tf32(True)
    told = {
        "is_evidence": is_evidence,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": device.name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        **device.versions(),
    }
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            told[name] = importlib.metadata.version(name)
    if device.gpu():
        properties = torch.cuda.get_device_properties(0)
        told["CUDA"] = torch.version.cuda
        told["cuDNN"] = torch.backends.cudnn.version()
        told["GPU memory, bytes"] = properties.total_memory
        told["multiprocessors"] = properties.multi_processor_count
    write({"row": "", **told})


def _commit():
    """The commit of this checkout, or `None` if that is not known."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.check_output(
            command, cwd=TESTS.parent, stderr=subprocess.DEVNULL, text=True
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


# The numbers of graphs, beside the reference and eager mode


class LastOutputs(keras.metrics.Metric):
    """Stores the outputs of the last batch, or their time mean, instead of a number."""

    def __init__(self, shape):
        super().__init__(name="last_outputs")
        self.outputs = self.add_variable(shape, "zeros", name="outputs")

    def update_state(self, y, outputs, sample_weight=None):
        has_time = len(outputs.shape) == 3
        self.outputs.assign(ops.mean(outputs, axis=1) if has_time else outputs)

    def result(self):
        return ops.max(self.outputs)


def trained(model, x, y, shape, loss, learning_rate, steps, jit_compile):
    """Compiles a `SpikingModel` and trains it on one batch; on PyTorch.

    Args:
        model: `SpikingModel`.
        x: Array, the batch.
        y: Array, its labels, integers.
        shape: Tuple of integers, the shape of the outputs or of their time means.
        loss: A Keras loss, or a function.
        learning_rate: Float, of SGD.
        steps: Integer >= 1, the number of training steps.
        jit_compile: As in `SpikingModel.compile`.

    Returns:
        Dictionary: `losses` of the steps; `logits` and `gradients` of the first step,
        `last_gradients`, and `moving`, the other variables at the end; the latter are
        dictionaries by paths.
    """
    outputs = LastOutputs(shape)
    optimizer = keras.optimizers.SGD(learning_rate)
    model.compile(optimizer, loss, metrics=[outputs], jit_compile=jit_compile)
    weights = model.get_weights()
    # Until a graph is replayed a step runs in eager mode, and its gradients are not
    # those of the graph.
    before = 0 if jit_compile is False else measure.CALLS_BEFORE_REPLAY
    for _ in range(before):
        model.train_on_batch(x, y)
    model.set_weights(weights)
    results = {"losses": []}
    for step in range(steps):
        results["losses"].append(float(model.train_on_batch(x, y)[0]))
        # PyTorch keeps those of the last step.
        results["last_gradients"] = {
            variable.path: _array(variable.value.grad).copy()
            for variable in model.trainable_variables
        }
        if step == 0:
            results["logits"] = _array(outputs.outputs)
            results["gradients"] = results["last_gradients"]
    results["moving"] = {
        variable.path: _array(variable) for variable in model.non_trainable_variables
    }
    return results


def _array(variable):
    return np.asarray(ops.convert_to_numpy(variable))


def reference(write, names=None):
    """The reference cases of the repository without TF32, in eager mode and by recorded
    graphs, and what TF32 changes where the device has it.

    Raises:
        FileNotFoundError: Outside a checkout of the repository.
    """
    if not (TESTS / "reference_networks.py").is_file():
        raise FileNotFoundError(
            f"The reference cases are in tests/ of the repository, and {TESTS} has "
            "none. Use a clone."
        )
    sys.path.insert(0, str(TESTS))
    import reference_networks

    for name in names or reference_networks.CASES:
        # A case that fails does not end the others.
        try:
            case = reference_networks.Case(name)
            _check_case(write, name, case)
        except Exception as error:
            write({"row": name, "error": _named(error)})


def _named(error):
    return f"{type(error).__name__}: {one_line(error)}"[:500]


def _check_case(write, name, case):
    fix_tf32(False)
    for jit_compile in (False, "auto"):
        results, engine = _trained_case(case, jit_compile)
        errors = case_errors(case, results)
        agrees = largest(errors.values()) < TOLERANCE
        write({"row": f"{name}, {engine}", "agrees": agrees, **errors})
    if device.gpu():
        fix_tf32(True)
        results, _ = _trained_case(case, False)
        moved = moved_logits(case.arrays["logits"], results["logits"])
        write({"row": f"{name}, TF32", **case_errors(case, results), **moved})


def _trained_case(case, jit_compile):
    keras.utils.clear_session(free_memory=False)
    model, settings = case.model(), case.settings
    shape, steps = case.arrays["logits"].shape, settings["sgd_steps"]
    with measure.recorded_at_once():
        results = trained(
            model, case.x, case.y, shape, case.loss, settings["lr"], steps, jit_compile
        )
    return results, model.engine


def case_errors(case, results):
    """The largest relative error of each kind of result of a reference case."""
    from reference_networks import reference_name

    def named(arrays):
        return {reference_name(path): array for path, array in arrays.items()}

    moving = named(results["moving"])
    means = [
        relative_error(moving[name], mean)
        for name, mean in case.expected("buffer").items()
        if name.endswith("running_mean")
    ]
    gradients = named(results["gradients"])
    return {
        "losses": loss_error(results["losses"], case.arrays["losses"]),
        "logits": relative_error(results["logits"], case.arrays["logits"]),
        "gradients": gradient_error(gradients, case.expected("grad")),
        "moving means": largest(means),
    }


def moved_logits(expected, logits):
    """How many logits and predicted classes differ: a spike that flips moves a logit by
    more than rounding does."""
    moved = np.abs(logits - expected) > TOLERANCE * np.max(np.abs(expected))
    changed = logits.argmax(-1) != expected.argmax(-1)
    return {
        "logits moved": f"{moved.sum()} of {moved.size}",
        "classes changed": f"{changed.sum()} of {len(expected)}",
    }


def agreement(write, settings):
    """Graphs against eager mode: the relative differences of losses, and of gradients
    in the first and in the last step.

    Args:
        write: Function of a row.
        settings: Dictionary, the arguments of `Settings`, with one T.
    """
    settings = configured(settings, tf32=False)
    for method in settings.methods:
        expected, _ = _trained_by(settings, method, False)
        with measure.recorded_at_once():
            results, engine = _trained_by(settings, method, settings.jit_compile)
        errors = {
            kind: gradient_error(results[kind], expected[kind])
            for kind in ("gradients", "last_gradients")
        }
        losses = loss_error(results["losses"], np.array(expected["losses"]))
        write({"row": f"{method}, {engine}", "losses": losses, **errors})


def _trained_by(settings, method, jit_compile):
    keras.utils.clear_session(free_memory=False)
    cases.configure(settings)
    (timesteps,) = settings.timesteps
    model = cases.trainer(settings, method, timesteps)
    images, labels = map(ops.convert_to_numpy, cases.batch(settings, timesteps))
    images = images.astype(keras.config.dtype_policy().compute_dtype)
    shape, loss = (len(labels), cases.CLASSES), cases.loss()
    results = trained(
        model, images, labels, shape, loss, LEARNING_RATE, STEPS, jit_compile
    )
    return results, model.engine


def loss_error(losses, expected):
    """The largest relative error of losses."""
    return float(np.max(np.abs((losses - expected) / expected)))


def relative_error(value, expected):
    """‖value − expected‖ / ‖expected‖."""
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


def largest(errors):
    """The largest error, NaN if one of them is; 0 if there are none."""
    # Python's `max` may pass over NaN.
    return float(np.max([0.0, *errors]))


def gradient_error(gradients, expected):
    """The largest relative error of gradients, dictionaries of arrays.

    A gradient that should be negligible is compared with the largest one: its error is
    0, or infinite.
    """
    if gradients.keys() != expected.keys():
        raise ValueError(
            f"Gradients of different variables: {sorted(gradients)} and "
            f"{sorted(expected)}."
        )
    norms = {name: np.linalg.norm(gradient) for name, gradient in expected.items()}
    negligible = NEGLIGIBLE * max(norms.values())
    errors = []
    for name, norm in norms.items():
        if norm >= negligible:
            errors.append(relative_error(gradients[name], expected[name]))
        elif np.linalg.norm(gradients[name]) >= negligible:
            errors.append(float("inf"))
    return largest(errors)


# Times


def compilation(write, settings):
    """Compiles a graph that is timed later, into the cache of PyTorch's compiler."""
    settings = configured(settings)
    (method,), (timesteps,) = settings.methods, settings.timesteps
    model = cases.trainer(settings, method, timesteps)
    step = functools.partial(model.train_on_batch, *cases.batch(settings, timesteps))
    with measure.recorded_at_once():
        warm = measure.warm_up(step, measure.compiling_calls(settings, method))
    write({"row": method, "seconds": sum(warm.compiling_seconds)})


def first_steps(write, settings):
    """The first training steps with empty caches, up to the first that replays the
    graph."""
    with tempfile.TemporaryDirectory() as empty:
        os.environ.update(measure.caches_in(empty))
        settings = configured(settings)
        (method,), (timesteps,) = settings.methods, settings.timesteps
        model = cases.trainer(settings, method, timesteps)
        batch = cases.batch(settings, timesteps)
        steps = max(measure.compiling_calls(settings, method)) + 1
        begin = time.perf_counter()
        for _ in range(steps):
            model.train_on_batch(*batch)
        device.synchronize()
        seconds = time.perf_counter() - begin
    write({"row": f"{method}, {model.engine}", "steps": steps, "seconds": seconds})


def steps(write, settings, needs_gpu=False):
    """Training steps: each as soon as it is warm, and with the others in turn.

    Args:
        write: Function of a row.
        settings: Dictionary, the arguments of `Settings`, with one T.
        needs_gpu: Boolean, whether to fail without a GPU. Defaults to `False`.

    Raises:
        RuntimeError: If there is no GPU but should be one.
    """
    if needs_gpu and not device.gpu():
        raise RuntimeError(f"{keras.backend.backend()} sees no GPU.")
    settings = configured(settings)
    is_jax = keras.backend.backend() == "jax"
    # What is timed is the graph; all the calls before it would take a tenth of the
    # deadline.
    with measure.recorded_at_once():
        warm = measure.warm_floor(settings)
        counts = {name: _counts(part) for name, part in warm.items()}
        floor = floor_counts(*counts.values(), settings.timesteps[0])
        for name, row in {**counts, FLOOR: floor}.items():
            write({"row": name, **row})
        named = variants(settings, (settings.jit_compile,), loops=is_jax)
        for name, variant in named.items():
            # One method that fails, or needs too much memory, does not end the others.
            try:
                warm[name], row = _look(variant)
            except Exception as error:
                write({"row": name, "error": _named(error)})
                continue
            busy, least = row.get("busy_seconds"), floor.get("busy_seconds")
            if busy and least:
                row["busy to floor"] = busy / least
            write({"row": name, **row})
            _time_in_turns(write, warm, settings, FIRST_ROUNDS)
        _time_in_turns(write, warm, settings, settings.rounds)


def _look(variant):
    """A step, warmed up, and what is measured of it alone."""
    (timesteps,) = variant.settings.timesteps
    # Counting would take a second compilation on JAX, and a second recording of a graph
    # that is compiled.
    with_flops = keras.backend.backend() == "torch" and (
        variant.settings.jit_compile is not True
    )
    model = measure.trainer(variant.settings, variant.method, timesteps)
    warm = measure.warm_variant(variant, timesteps, model=model, with_flops=with_flops)
    gc.collect()
    return warm, {**_used(model, variant.method), **_counts(warm)}


def _used(model, method):
    """What a step has used, besides its settings."""
    if keras.backend.backend() != "torch":
        return {}
    if method in PEERS and PEERS[method].package == "spikingjelly":
        import torch
        from spikingjelly.activation_based import functional

        where = torch.device("cuda" if device.gpu() else "cpu")
        # Which of its implementations it uses here.
        used = functional.neuron_implementation("lif", where)
        return {"used": used["implementation"]}
    return {} if method in ELSEWHERE else {"used": model.engine}


def _counts(warm):
    if keras.backend.backend() != "torch":
        return {}
    # Imported here because it imports PyTorch.
    from recipes.benchmark import trace

    return trace.profile(warm.launch)


def floor_counts(ordinary, forward, timesteps):
    """The counts of an ordinary training step and of a forward pass, added up for the
    floor, a dictionary."""
    return {
        key: ordinary[key] + (timesteps - 1) * forward[key]
        for key in COUNTS
        if key in ordinary
    }


def _time_in_turns(write, warm, settings, rounds):
    seconds = timing.in_turns(warm, rounds)
    rows = measure.rows(warm, seconds, settings.timesteps[0], settings.batch)
    for row in rows:
        memory = row["memory_bytes"]
        told = {
            "ms": {key: 1000 * value for key, value in row["seconds"].items()},
            "to floor": row["ratio_to_floor"],
            "MiB": memory and memory / 2**20,
            "compile, s": row["compile_seconds"],
            "FLOPs": row["flops"],
        }
        write({"row": row["method"], **told})

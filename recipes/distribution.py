"""Training on several devices: keras.distribution on JAX, tf.distribute on
TensorFlow, processes that torchrun starts on PyTorch.

Without accelerators the devices are virtual: parts of the CPU, to try a run.
"""

import atexit
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable

import keras

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""Environment variables of the processes of a job, as `torchrun` sets them."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """How this process takes part in a run.

    Attributes:
        devices: Integer, the number of devices of all processes.
        process: Integer, the number of this process, from 0 on.
        processes: Integer.
        reads_part: Boolean, whether each process reads its own part of each training
            batch. Otherwise the backend divides it.
        is_apart: Boolean, whether each process runs a step of its own and they exchange
            gradients, as on PyTorch. Elsewhere they compute one step together.
        scope: Function that returns the context for building and training a model.
    """

    devices: int = 1
    process: int = 0
    processes: int = 1
    reads_part: bool = False
    is_apart: bool = False
    scope: Callable = contextlib.nullcontext

    @property
    def is_first(self):
        """Whether this process writes the files of the run."""
        return self.process == 0

    @property
    def part(self):
        """`(number, parts)`: which part of each training batch this process reads."""
        return (self.process, self.processes) if self.reads_part else (0, 1)

    @property
    def test_part(self):
        """`(number, parts)`: which part of the test images this process reads."""
        return (self.process, self.processes) if self.is_apart else (0, 1)

    def from_first(self, value):
        """The first process' value, on all processes of PyTorch; elsewhere the value
        itself."""
        if not self.is_apart:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]


current = Distribution()
"""The `Distribution` of this process, once `start` was called."""


def wanted(text):
    """The argument `--devices`: a number, or "all"."""
    if text == "all":
        return text
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(
            f"--devices must be a positive number or all. Received: {text!r}."
        )
    return int(text)


def launcher(devices):
    """The beginning of the command that runs a module on several devices, a list: on
    PyTorch that of torchrun, which starts a process for each, elsewhere Python."""
    count = _number(devices) if keras.backend.backend() == "torch" else 1
    if count == 1 or _is_launched():
        return [sys.executable]
    threads = max(1, (os.cpu_count() or 1) // count)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torchrun = ["-m", "torch.distributed.run", "--standalone"]
    return [sys.executable, *torchrun, "--nproc-per-node", str(count)]


def _is_launched():
    return all(name in os.environ for name in LAUNCHED)


def start(devices):
    """Prepares this process for a run on several devices, before anything is computed.
    Returns its `Distribution`.

    Args:
        devices: Integer or "all": the number of devices of this machine. It is ignored
            where the environment describes a job of several processes: that of
            `torchrun`, `TF_CONFIG`, or Keras' `KERAS_DISTRIBUTION_JOB_ADDRESSES`.

    Raises:
        ValueError: If there are fewer devices.
    """
    global current
    starts = {
        "jax": _start_jax,
        "tensorflow": _start_tensorflow,
        "torch": _start_torch,
    }
    current = starts[keras.backend.backend()](devices)
    return current


def _start_jax(devices):
    import jax

    if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
        keras.distribution.initialize()
        processes = jax.process_count()
        distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
        return Distribution(
            jax.device_count(),
            jax.process_index(),
            processes,
            reads_part=processes > 1,
            scope=distribution.scope,
        )
    if devices == 1:
        return Distribution()
    if devices != "all":
        # Without effect if there are accelerators.
        jax.config.update("jax_num_cpu_devices", devices)
    chosen = keras.distribution.list_devices()
    if devices != "all":
        chosen = chosen[: _at_most(len(chosen), devices)]
    if len(chosen) == 1:
        return Distribution()
    distribution = keras.distribution.DataParallel(devices=chosen)
    return Distribution(len(chosen), scope=distribution.scope)


def _start_tensorflow(devices):
    import tensorflow as tf

    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        resolver = strategy.cluster_resolver
        processes = len(resolver.cluster_spec().as_dict()["worker"])
        return Distribution(
            strategy.num_replicas_in_sync,
            resolver.task_id,
            processes,
            scope=strategy.scope,
        )
    count = _number(devices)
    if count == 1:
        return Distribution()
    kind = "GPU" if _accelerators() else "CPU"
    if kind == "CPU":
        virtual = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], virtual
        )
    strategy = tf.distribute.MirroredStrategy(
        [f"{kind}:{number}" for number in range(count)]
    )
    return Distribution(count, scope=strategy.scope)


def _start_torch(devices):
    if not _is_launched():
        return Distribution()
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo"
    )
    # Its threads must end before the process does.
    atexit.register(torch.distributed.destroy_process_group)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return Distribution(world, rank, world, reads_part=world > 1, is_apart=world > 1)


def _number(devices):
    """The number of devices that are asked for, on PyTorch and TensorFlow."""
    present = _accelerators()
    if devices == "all":
        return max(1, present)
    return _at_most(present, devices) if present else devices


def _at_most(present, devices):
    if devices > present:
        raise ValueError(
            f"--devices must be at most the number of devices, {present}. Received: "
            f"{devices}."
        )
    return devices


def _accelerators():
    """The number of accelerators of this machine, on PyTorch and TensorFlow."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.device_count()
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))

"""The device that a recipe runs on: its name, peak memory and versions of software."""

import importlib
import importlib.metadata
import os
import platform
import resource
import sys

import keras

import keras_ratesnn


def _library():
    """The name of the backend, and its library."""
    backend = keras.backend.backend()
    return backend, importlib.import_module(backend)


def name():
    """The name of the GPU or CPU."""
    if not gpu():
        return _cpu()
    backend, library = _library()
    if backend == "torch":
        return library.cuda.get_device_name()
    if backend == "jax":
        return library.devices()[0].device_kind
    return library.config.experimental.get_device_details(
        library.config.list_physical_devices("GPU")[0]
    )["device_name"]


def gpu():
    """Whether the backend computes on a GPU."""
    backend, library = _library()
    if backend == "torch":
        return library.cuda.is_available()
    if backend == "jax":
        return library.devices()[0].platform == "gpu"
    return bool(library.config.list_physical_devices("GPU"))


def check_backend(wanted, why):
    """Raises ValueError, which begins with the sentence `why`, on another backend."""
    backend = keras.backend.backend()
    if backend != wanted:
        raise ValueError(
            f"{why} Received: KERAS_BACKEND={backend!r}. Set KERAS_BACKEND={wanted}."
        )


def peak_bytes():
    """The peak memory of the GPU's allocator so far; without a GPU, of this process."""
    if not gpu():
        # Linux reports KiB, macOS bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    backend, library = _library()
    if backend == "torch":
        return library.cuda.max_memory_allocated()
    if backend == "jax":
        return library.devices()[0].memory_stats()["peak_bytes_in_use"]
    return library.config.experimental.get_memory_info("GPU:0")["peak"]


def reset_peak_bytes():
    """Resets `peak_bytes` to the memory that the GPU's allocator holds now. The peak of
    a process cannot be reset."""
    if not gpu():
        return
    backend, library = _library()
    if backend == "torch":
        library.cuda.reset_peak_memory_stats()
    if backend == "tensorflow":
        library.config.experimental.reset_memory_stats("GPU:0")


def synchronize():
    """Waits until the device has finished all work."""
    backend, library = _library()
    if backend == "jax":
        library.block_until_ready(library.live_arrays())
    elif backend == "torch" and gpu():
        library.cuda.synchronize()
    elif backend == "tensorflow":
        library.test.experimental.sync_devices()


def set_precision(policy):
    """Sets Keras' dtype policy; for float64 it also enables 64-bit types in JAX."""
    keras.config.set_dtype_policy(policy)
    if policy == "float64" and keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)


def set_threads(number):
    """Sets the number of threads of the CPU, on PyTorch."""
    import torch

    torch.set_num_threads(number)


def waiting():
    """How PyTorch's threads wait if it was said before it was imported, after a comma;
    nothing on other backends."""
    if keras.backend.backend() != "torch":
        return ""
    return "".join(
        f", {name}={os.environ[name]}"
        for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        if name in os.environ
    )


def versions(packages=()):
    """The versions of software that a measurement may depend on, by name.

    Args:
        packages: Names of further installed packages. Defaults to none.
    """
    backend, library = _library()
    return {
        "python": platform.python_version(),
        "numpy": importlib.import_module("numpy").__version__,
        "keras": keras.__version__,
        "keras_ratesnn": keras_ratesnn.__version__,
        backend: library.__version__,
        **{package: importlib.metadata.version(package) for package in packages},
    }


def _cpu():
    try:
        with open("/proc/cpuinfo") as lines:
            names = [
                line.partition(":")[2].strip()
                for line in lines
                if line.startswith("model name")
            ]
    except OSError:
        names = []
    return (
        f"{names[0]}, {len(names)} threads"
        if names
        else platform.processor() or platform.machine()
    )

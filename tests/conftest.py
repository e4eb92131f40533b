"""Shared fixtures. KERAS_BACKEND selects the backend; run the suite once for each."""

import functools
import gc
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile

import pytest

pytest_plugins = ["tests.core.inside", "tests.places"]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time of these tests on JAX is compilation: machine code need not be the
# fastest here. XLA's own passes still run. Loops written out as LLVM's code take a
# fraction of the time that its emitters of fused kernels take, and without them
# optimisation can be left out. A module in one part is not copied for others. An
# unknown flag ends the process: elsewhere than where it is known, compilation takes
# longer.
_BACKEND = os.environ.get("KERAS_BACKEND")
_FLAGS = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
_FLAGS_ARE_KNOWN_TO = {
    "jax": ("jaxlib", "0.10."),
    "tensorflow": ("tensorflow", "2.21."),
}


def _compiler_is_known():
    package, version = _FLAGS_ARE_KNOWN_TO.get(_BACKEND, (None, None))
    try:
        return package is not None and importlib.metadata.version(package).startswith(
            version
        )
    except importlib.metadata.PackageNotFoundError:
        return False


if _compiler_is_known():
    _FLAGS += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    )
    if _BACKEND == "jax":
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
os.environ.setdefault("XLA_FLAGS", _FLAGS)
# Tests run in a process on each core: more threads than that would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# And threads sum in another order each time, by which now and then a membrane falls on
# the other side of its threshold.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _jax_lowers_in_one_context():
    """JAX makes and fills a context of MLIR for each program: a quarter of the time of
    a program of one operation."""
    if _BACKEND == "jax" and _compiler_is_known():
        from jax._src.interpreters import mlir

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                mlir, "make_ir_context", functools.cache(mlir.make_ir_context)
            )
            yield
    else:
        yield


@pytest.fixture(scope="session", autouse=True)
def _little_garbage_is_collected():
    """Neither what imports have made, nor by Keras and TensorFlow Lite for each weight
    and conversion."""
    import keras

    # With PyTorch, too, this imports TensorFlow.
    keras.utils.set_random_seed(0)
    gc.collect()
    gc.freeze()
    # Tracing makes many objects that stay.
    gc.set_threshold(100_000, 20, 20)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gc, "collect", _unless_for_libraries(gc.collect))
        yield


def _unless_for_libraries(collect):
    def collect_unless_for_libraries(*arguments):
        is_of_library = (
            sys._getframe(1)
            .f_globals["__name__"]
            .startswith(("keras.", "tensorflow.lite."))
        )
        return 0 if is_of_library else collect(*arguments)

    return collect_unless_for_libraries


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_reported():
    """OpenVINO reports dozens of messages for each conversion, each from a copy of the
    process, which takes long."""
    with pytest.MonkeyPatch.context() as patched:
        if importlib.util.find_spec("openvino_telemetry"):
            patched.setattr(
                "openvino_telemetry.utils.sender.TelemetrySender.send", lambda *_: None
            )
        yield


@pytest.fixture(autouse=True)
def _reset_keras():
    """Every test starts with the same seed, default policies and fresh layer names."""
    # Here, since the process that hands out the tests to others has no need of it.
    import keras

    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


def pytest_collection_modifyitems(items):
    if sys.version_info >= (3, 13):
        broken = "OpenVINO's converter fails beside TensorFlow on Python 3.13"
        for item in items:
            if "openvino" in item.name or "deploy.md" in item.name:
                item.add_marker(pytest.mark.skip(reason=broken))


_CACHE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config):
    """Processes share compiled JAX programs, because many tests compile the same
    programs."""
    config.shared_programs = (
        None
        if _CACHE in os.environ
        else tempfile.mkdtemp(prefix="keras_ratesnn_tests_")
    )
    if config.shared_programs:
        os.environ[_CACHE] = config.shared_programs
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"


def pytest_unconfigure(config):
    if config.shared_programs:
        shutil.rmtree(config.shared_programs, ignore_errors=True)

"""Several devices train like one: by keras.distribution (JAX), tf.distribute
(TensorFlow) and torch.distributed (PyTorch)."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import replica_cases
from helpers import (
    BACKEND,
    assert_close,
    data,
    double_precision,
    free_port,
    not_on,
    only_on,
    spiking,
)
from made_once import made_once
from numpy.testing import assert_allclose, assert_array_equal

SECONDS = 500
AT_MOST_3_15 = tuple(map(int, keras.__version__.split(".")[:2])) <= (3, 15)
PROGRAM = pathlib.Path(replica_cases.__file__)


# Few programs where each takes seconds to compile: quantised kernels and neurons with
# time are trained by PyTorch, where a process has its part of a batch; elsewhere they
# are slow tests.
CASES = {
    name: case
    for name, case in replica_cases.CASES.items()
    if BACKEND == "torch"
    or ("padded" not in name and name != "rate, single, timed, quantised")
}
MORE_CASES = {**replica_cases.CASES, **replica_cases.MORE_CASES}
MORE_CASES = {name: case for name, case in MORE_CASES.items() if name not in CASES}


def run(folder, names):
    """The results of the cases on two devices, a list with an element for each
    process."""
    processes = 2 if BACKEND == "torch" else 1
    environment = {
        **os.environ,
        "KERAS_BACKEND": BACKEND,
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(processes),
        "PYTHONPATH": str(PROGRAM.parent.parent),
    }
    arguments = [str(PROGRAM), "2", str(folder / "results"), *names]
    started, results = [], []
    for rank in range(processes):
        options = {"env": {**environment, "RANK": str(rank)}}
        with (folder / f"log.{rank}").open("w") as log:
            options |= {"stdout": log, "stderr": log}
            started.append(subprocess.Popen([sys.executable, *arguments], **options))
    for rank, process in enumerate(started):
        log = folder / f"log.{rank}"
        assert process.wait(timeout=SECONDS) == 0, log.read_text()[-3000:]
        results.append(json.loads((folder / f"results.{rank}").read_text()))
    return results


@pytest.fixture(scope="module")
def on_two_devices(tmp_path_factory, request):
    """All cases on two devices."""

    def make(folder):
        results = run(folder, [*CASES, *replica_cases.OTHERS])
        (folder / "all.json").write_text(json.dumps(results))

    folder = made_once("replicas", make, tmp_path_factory, request, SECONDS)
    return json.loads((folder / "all.json").read_text())


def on_one_device(function, *arguments):
    with double_precision():
        keras.config.set_floatx("float64")
        try:
            return function(*arguments)
        finally:
            keras.config.set_floatx("float32")


def assert_equal(results, expected, masked=False):
    # Keras 3.16 adds in float32 on PyTorch, and each version takes means over what a
    # mask leaves so.
    exact = BACKEND != "torch" or (AT_MOST_3_15 and not masked)
    tolerance = 1e-9 if exact else 1e-6
    weights = results["variables"], expected["variables"]
    assert_close(*weights, rtol=tolerance, atol=tolerance)
    # Keras computes metrics in float32 on PyTorch.
    assert_close(results["history"], expected["history"], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if "dropout" not in name])
def test_two_devices_train_as_one(name, on_two_devices, in_two_alike_replicas):
    """Weights, moving statistics, losses and metrics; samples have weights. So do two
    processes of PyTorch with the same data.

    In the first case the last batch is smaller, and the model is evaluated and
    predicts.
    """
    trained = functools.partial(on_one_device, replica_cases.trained, CASES[name])
    expected = trained()
    if BACKEND == "torch":
        assert_equal(in_two_alike_replicas(trained), expected, "sequences" in name)
    for results in on_two_devices:
        assert_equal(results[name], expected, masked="sequences" in name)
    if BACKEND != "torch" and expected["predictions"] is not None:
        assert_allclose(
            on_two_devices[0][name]["predictions"], expected["predictions"], atol=1e-9
        )


def test_replicas_stay_equal_with_noise(on_two_devices, in_two_alike_replicas):
    name = "rate, multi, dropout"
    first, *others = (results[name] for results in on_two_devices)
    for other in others:
        assert_equal(other, first)
    trained = functools.partial(on_one_device, replica_cases.trained, CASES[name])
    expected = trained()
    if BACKEND == "torch":
        # The first of them draws what it would draw alone.
        assert_equal(in_two_alike_replicas(trained), expected)
    same_seeds = [path for path in expected["variables"] if "seed" in path]
    assert [first["variables"][path] for path in same_seeds] == [
        expected["variables"][path] for path in same_seeds
    ]
    if BACKEND == "jax":
        assert_equal(first, expected)


def test_devices_warn_of_silence_once_and_together(on_two_devices):
    (message,), *others = (results["silence"] for results in on_two_devices)
    samples = 32 + 31 if BACKEND == "torch" else 32
    assert (
        f"No neuron of 'silent' spikes after the first epoch of `fit`, for {samples} "
        "samples" in message
    )
    assert not any(others)


def test_replicas_draw_other_noise_reproducibly(on_two_devices):
    drawn = np.concatenate([results["noise"] for results in on_two_devices], axis=1)
    assert 0.3 < drawn.mean() < 0.7
    assert_array_equal(drawn[0], drawn[1])
    half = drawn.shape[1] // 2
    assert np.mean(drawn[0, :half] != drawn[0, half:]) > 0.3


@only_on("torch", "other engines have one process")
def test_processes_that_cannot_train_together_raise_an_error_before_they_wait(
    on_two_devices,
):
    expected = {
        "batches": [
            "ValueError: `fit` must have the same number of batches and epochs",
            "{'number of batches': [8, 7]}",
        ],
        "epochs": ["{'epochs': [1, 2]}"],
        "sharded": [
            "ValueError: `torch.distributed.fsdp` and tensor parallelism are not "
            "supported"
        ],
        # Keras 3.16 wraps it itself.
        "outer": [
            "Wrap the outer model in torch.nn.parallel.DistributedDataParallel"
            if AT_MOST_3_15
            else "no error"
        ],
    }
    first, second = (results["mistakes"] for results in on_two_devices)
    for mistakes in (first, second):
        for name, fragments in expected.items():
            for fragment in fragments:
                assert fragment in mistakes[name]
    # Training without `fit` begins with the weights of the first process as well.
    assert_array_equal(first["kernel"], second["kernel"])


@not_on("jax", "its replicas see the whole batch")
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_a_loss_that_is_no_mean_of_samples_is_refused(reduction, in_two_alike_replicas):
    (x, _), model = data(), spiking()
    model.compile("sgd", keras.losses.MeanSquaredError(reduction), run_eagerly=True)
    message = f'reduction="{reduction}" cannot be trained on several replicas'
    with pytest.raises(ValueError, match=message):
        in_two_alike_replicas(lambda: model.train_on_batch(x, x[:, :3]))


@only_on("jax", "other engines divide any batch")
def test_batches_that_devices_cannot_share_equally_count_right_on_jax(on_two_devices):
    """In fit, evaluate and predict, and where such a batch comes first."""
    assert_allclose(
        on_two_devices[0]["batches of 7"],
        on_one_device(replica_cases.in_batches_of_7),
        rtol=1e-9,
    )


@not_on("torch", "each process evaluates its own data")
def test_two_devices_evaluate_padded_sequences_as_one(on_two_devices):
    expected = on_one_device(replica_cases.padded_evaluation)
    assert on_two_devices[0]["padded evaluation"] == pytest.approx(expected, rel=1e-9)


@only_on("jax", "compilers of other backends do not insert communication")
def test_devices_exchange_sums_only_on_jax(on_two_devices):
    assert on_two_devices[0]["collectives"] == ["all-reduce"]


@pytest.mark.slow
def test_two_devices_train_as_one_by_other_methods(tmp_path):
    results_of = run(tmp_path, list(MORE_CASES))
    for name, case in MORE_CASES.items():
        expected = on_one_device(replica_cases.trained, case)
        for results in results_of:
            assert_equal(results[name], expected, masked="sequences" in name)

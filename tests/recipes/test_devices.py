"""`python -m recipes.train NAME --devices N`: several devices train like one, and only
the first process writes files."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from helpers import BACKEND, double_precision

from recipes import batches, catalogue, engine
from recipes.data.dataset import Dataset
from tests.recipes.recipe_runs import trained

ROOT = pathlib.Path(__file__).parents[2]


def train(folder, devices, *settings, **environment):
    """Trains the digits recipe in a process of its own; returns what it has printed."""
    command = [
        sys.executable,
        "-m",
        "recipes.train",
        "digits",
        "--output",
        str(folder),
        "--devices",
        str(devices),
    ]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, **environment}
    done = subprocess.run(
        [*command, "--set", "width=0.5", *settings],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_two_devices_train_a_recipe_as_one(tmp_path):
    settings = (
        "epochs=1",
        "train_images=300",
        "precision=float64",
        "timesteps=2",
        "width=0.25",
    )
    with double_precision():
        one = trained(tmp_path / "one", "digits", "--set", *settings)
    # On PyTorch torchrun starts a process for each device.
    train(tmp_path / "two", 2, *settings)
    two = result(tmp_path / "two")
    # On PyTorch Keras multiplies matrices in float32, whatever the precision.
    tolerance = 1e-4 if BACKEND == "torch" else 1e-6
    np.testing.assert_allclose(
        two["curve"]["loss"], one["curve"]["loss"], rtol=tolerance
    )
    np.testing.assert_allclose(
        two["curve"]["test_loss"], one["curve"]["test_loss"], rtol=tolerance
    )
    assert two["device"].startswith("2 x ")
    assert two["batch_per_device"] * 2 == one["batch_per_device"]


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_devices(tmp_path):
    settings = "train_images=300", "precision=float64", "epochs=3"
    train(tmp_path / "whole", 2, *settings)
    program = (
        "import sys, keras\n"
        "from recipes import callbacks, train\n"
        "class Stops(callbacks.Checkpoint):\n"
        "    def on_epoch_end(self, epoch, logs=None):\n"
        "        super().on_epoch_end(epoch, logs)\n"
        "        raise KeyboardInterrupt\n"
        "callbacks.Checkpoint = Stops\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "digits",
        "--output",
        str(tmp_path / "resumed"),
        "--set",
        "width=0.5",
        *settings,
    ]
    stopped = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
    )
    assert stopped.returncode == 130, stopped.stderr[-2000:]
    assert "resumes after 1 epochs" in train(tmp_path / "resumed", 2, *settings)
    whole, resumed = (
        result(tmp_path / name)["curve"]["loss"] for name in ("whole", "resumed")
    )
    np.testing.assert_allclose(
        resumed, whole, rtol=1e-4 if BACKEND == "torch" else 1e-6
    )
    assert [part["first_epoch"] for part in result(tmp_path / "resumed")["parts"]] == [
        1,
        2,
    ]


def numbered(size):
    """A data set in which the label of an image is its number."""
    images = np.arange(size, dtype="uint8").reshape(size, 1, 1, 1)
    return Dataset(images, np.arange(size), images[:2], np.arange(2))


@pytest.mark.parametrize(
    ("size", "parts"), [(16, 2), (19, 2), (17, 2), (18, 4), (21, 4), (16, 1), (3, 4)]
)
def test_parts_of_batches_are_the_batches_of_one_process(size, parts):
    recipe = catalogue.find("digits").with_settings(
        ["batch_size=8", "epochs=2", "augment=none"]
    )
    whole = [
        labels.tolist()
        for _, labels in batches.training_batches(
            numbered(size), recipe
        ).as_numpy_iterator()
    ]
    shares = [
        [
            labels.tolist()
            for _, labels in batches.training_batches(
                numbered(size), recipe, 0, (number, parts)
            ).as_numpy_iterator()
        ]
        for number in range(parts)
    ]
    assert {len(part) for part in shares} == {len(whole)}
    for batch, *own in zip(whole, *shares, strict=True):
        if len(batch) < parts:
            assert own == [batch] * parts
        else:
            assert sorted(label for labels in own for label in labels) == sorted(batch)
            assert max(map(len, own)) - min(map(len, own)) <= 1


def test_images_are_augmented_as_in_one_process():
    part = batches.ProcessShare(1, 4, 22, 8)
    numbers = [number for number in range(22) if number % 4 == 1 and number < 20]
    positions = [int(part.position(index)) for index in range(len(numbers))]
    assert positions == numbers


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_devices_that_is_none_is_an_error(text):
    with pytest.raises(
        ValueError,
        match=f"--devices must be a positive number or all. Received: '{text}'",
    ):
        engine.wanted(text)


def test_torchrun_starts_a_process_for_each_device_on_pytorch(monkeypatch):
    monkeypatch.setattr(engine, "_accelerators", lambda: 2)
    monkeypatch.delenv("RANK", raising=False)
    command = engine.launcher(2)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert command[1:] == (torchrun if BACKEND == "torch" else [])
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="at most the number of devices, 2"):
            engine.launcher(3)


def test_a_batch_that_processes_cannot_share_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"`batch_size` must be a multiple of the number of devices, "
        r"3.*batch_size=8",
    ):
        batches.ProcessShare(0, 3, 100, 8)


@pytest.mark.slow
def test_the_imagenet_recipe_trains_on_eight_devices(tmp_path):
    """Made-up images of full size, for a narrow network. The last batch has fewer
    images than devices.

    The batch is the recipe's own, 512, on JAX; on the other backends eight replicas
    need more memory. On PyTorch a strided 1x1 convolution of less than 16 channels in
    layout channels_last corrupts memory on CPUs (PyTorch 2.13), so that the network is
    wider.
    """
    width, batch = {
        "jax": (0.0625, 512),
        "tensorflow": (0.0625, 64),
        "torch": (0.25, 64),
    }[BACKEND]
    program = (
        "import io, sys, urllib.request\n"
        "import tensorflow_datasets as tfds\n"
        "from recipes import train\n"
        "urllib.request.urlopen = lambda url, timeout: io.BytesIO()\n"
        f"with tfds.testing.mock_data(num_examples={batch + 5}):\n"
        "    sys.exit(train.main(sys.argv[1:]))\n"
    )
    arguments = [
        "imagenet_sew_resnet34",
        "--devices",
        "8",
        "--data-dir",
        str(tmp_path),
        "--output",
        str(tmp_path / "run"),
    ]
    settings = [
        "--set",
        "epochs=1",
        "restart_at=None",
        f"width={width}",
        "timesteps=1",
        f"batch_size={batch}",
    ]
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run(
        [*engine.launcher(8), str(script), *arguments, *settings],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = result(tmp_path / "run")
    assert np.isfinite(record["curve"]["loss"][0])
    assert record["batch_per_device"] == batch / 8
    assert record["device"].startswith("8 x ")

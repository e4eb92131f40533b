"""`python -m recipes.train NAME --devices N`: several devices train like one, and only
the first process writes files."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from helpers import BACKEND, assert_close, double_precision

from recipes import batches, catalogue, distribution
from recipes.data.dataset import Dataset
from recipes.train import main
from tests.recipes.recipe_runs import stopped, trained

ROOT = pathlib.Path(__file__).parents[2]


def train(folder, devices, *settings):
    """Trains the digits recipe in a process of its own; returns what it has printed.
    On PyTorch torchrun starts a process for each device."""
    command = [*distribution.launcher(devices), "-m", "recipes.train", "digits"]
    command += ["--output", str(folder), "--devices", str(devices), "--set"]
    command += ["width=0.25", *settings]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def result(folder):
    return json.loads((folder / "result.json").read_text())


def assert_near(curve, expected, name="loss"):
    # On PyTorch Keras multiplies matrices in float32, whatever the precision.
    tolerance = 1e-4 if BACKEND == "torch" else 1e-6
    np.testing.assert_allclose(curve[name], expected[name], rtol=tolerance)


def test_two_devices_train_a_recipe_as_one(tmp_path):
    settings = "train_images=300", "precision=float64", "epochs=1", "timesteps=2"
    with double_precision():
        one = trained(tmp_path / "one", "digits", "--set", "width=0.25", *settings)
    train(tmp_path / "two", 2, *settings)
    two = result(tmp_path / "two")
    for name in ("loss", "test_loss"):
        assert_near(two["curve"], one["curve"], name)
    assert two["device"].startswith("2 x ")
    assert two["batch_per_device"] * 2 == one["batch_per_device"]


@pytest.mark.slow
def test_a_run_resumes_on_another_number_of_devices(tmp_path):
    settings = "train_images=300", "precision=float64", "epochs=3"
    train(tmp_path / "whole", 2, *settings)
    with double_precision():
        stopped(tmp_path / "resumed", 1, "digits", "--set", "width=0.25", *settings)
    assert "resumes after 1 epochs" in train(tmp_path / "resumed", 2, *settings)
    whole, resumed = (result(tmp_path / name) for name in ("whole", "resumed"))
    assert_near(resumed["curve"], whole["curve"])
    assert resumed["device"].partition("+")[2].startswith("2 x ")


@pytest.mark.parametrize(
    ("size", "parts", "augment"),
    [
        (16, 2, "none"),
        (19, 2, "none"),
        (17, 2, "none"),
        (22, 4, "fashion_mnist"),
        (16, 1, "none"),
        (3, 4, "none"),
    ],
)
def test_parts_of_batches_are_the_batches_of_one_process(size, parts, augment):
    settings = ["batch_size=8", "epochs=2", f"augment={augment}"]
    recipe = catalogue.find("digits").with_settings(settings)
    images = np.random.default_rng(0).integers(0, 16, (size, 8, 8, 1))
    data = Dataset(images, np.arange(size), images[:2], np.arange(2))

    def made(*part):
        """The images of each batch by their labels."""
        pairs = batches.training_batches(data, recipe, 0, *part).as_numpy_iterator()
        return [dict(zip(labels, images, strict=True)) for images, labels in pairs]

    shares = [made((number, parts)) for number in range(parts)]
    for whole, *own in zip(made(), *shares, strict=True):
        together = {label: image for share in own for label, image in share.items()}
        assert_close(together, whole, rtol=0)
        sizes = [len(share) for share in own]
        if len(whole) < parts:
            assert sizes == [len(whole)] * parts
        else:
            assert sum(sizes) == len(whole)
            assert max(sizes) - min(sizes) <= 1


def test_a_number_of_devices_that_is_none_is_an_error():
    for text in ("0", "-1", "two", "1.5", ""):
        said = f"--devices must be a positive number or all. Received: '{text}'"
        with pytest.raises(ValueError, match=said):
            distribution.wanted(text)
    said = "`batch_size` must be a multiple of the number of devices, 3.*batch_size=8"
    with pytest.raises(ValueError, match=said):
        batches.ProcessShare(0, 3, 100, 8)


def test_torchrun_starts_a_process_for_each_device_on_pytorch(monkeypatch):
    monkeypatch.setattr(distribution, "_accelerators", lambda: 2)
    monkeypatch.delenv("RANK", raising=False)
    command = distribution.launcher(2)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert command[1:] == (torchrun if BACKEND == "torch" else [])
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="at most the number of devices, 2"):
            distribution.launcher(3)
        arguments = ["digits", "--devices", "2"]
        monkeypatch.setattr(os, "execv", lambda program, command: sys.exit(command))
        with pytest.raises(SystemExit) as replaced:
            main(arguments)
        assert replaced.value.code == [*command, "-m", "recipes.train", *arguments]

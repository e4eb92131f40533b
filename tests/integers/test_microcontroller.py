"""The digits network in C on an emulated microcontroller, a Cortex-M4 with 240 kB of
flash and 32 kB of memory."""

import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from sklearn.datasets import load_digits

import keras_ratesnn as rsnn

pytestmark = pytest.mark.slow

DOCS = pathlib.Path(__file__).parents[2] / "docs"
BOARD = DOCS / "examples" / "microcontroller"
PAGE = (DOCS / "tutorials" / "chip.md").read_text()
_, _, CHIP = re.findall(r"^```(?:c|bash)\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)


def has_tools_of_chip():
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None or shutil.which("qemu-system-arm") is None:
        return False
    return pathlib.Path(
        subprocess.check_output(
            [compiler, "-print-file-name=nano.specs"], text=True
        ).strip()
    ).is_absolute()


needs_emulator = pytest.mark.skipif(
    not has_tools_of_chip(),
    reason="there is no arm-none-eabi-gcc with newlib, or no qemu-system-arm, on the "
    "path",
)


def printed_by(commands, folder):
    """The integers that commands of the page print."""
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return list(map(int, run.stdout.split()))


@needs_emulator
def test_the_pretrained_network_fits_in_a_chip_and_gives_its_logits_there(tmp_path):
    shutil.copytree(BOARD, tmp_path, dirs_exist_ok=True)
    chip = rsnn.deploy.to_integers(
        rsnn.models.load_pretrained("digits"), largest_input=16, verbose=False
    )
    rsnn.deploy.export_c(chip, tmp_path / "digits.c", cache_input=False)
    images = load_digits().images[-10:, :, :, None].astype("uint8")
    images.tofile(tmp_path / "images.bin")
    commands = CHIP.replace("main.c", "count.c").replace(
        "-semihosting", "-semihosting -icount shift=10"
    )
    *logits, instructions = np.reshape(printed_by(commands, tmp_path), (10, -1)).T
    np.testing.assert_array_equal(np.transpose(logits), chip.integer_logits(images))
    assert instructions.min() > 5e6
    assert instructions.max() < 1e7

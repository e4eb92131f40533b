"""The digits network on an emulated microcontroller, a Cortex-M4, with 240 kB of flash and 32 kB of memory."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest

import keras_ratesnn as rsnn
from keras_ratesnn.integers.model import run_in_numpy

COMPILER, EMULATOR = shutil.which("arm-none-eabi-gcc"), shutil.which("qemu-system-arm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.runs_once,
    pytest.mark.skipif(
        COMPILER is None or EMULATOR is None, reason="there is no arm-none-eabi-gcc or qemu-system-arm on the path"
    ),
]

FOLDER = pathlib.Path(__file__).parent / "microcontroller"
CORE = ("-mcpu=cortex-m4", "-mthumb", "-O2", "-ffreestanding", "-nostdlib")
BOARD = ("-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none", "-icount", "shift=0")
INSTRUCTIONS_OF_A_TICK = 40
"""The clock has 25 MHz, and an instruction takes a nanosecond."""


def test_digits_fit_and_give_their_logits(tmp_path):
    chip = rsnn.integer(rsnn.models.load_pretrained("digits"), largest_input=16, verbose=False)
    rsnn.export_c(chip, tmp_path / "net.c", cache_input=False)
    image = np.random.default_rng(0).integers(0, 17, (8, 8, 1), "uint8")
    (tmp_path / "image.h").write_text(f"static const uint8_t image[] = {{{', '.join(map(str, image.ravel()))}}};\n")
    sources = ["-I", FOLDER, "-I", tmp_path, FOLDER / "main.c", "-T", FOLDER / "memory.ld", "-lgcc"]
    # The linker refuses what does not fit.
    subprocess.run([COMPILER, *CORE, *sources, "-o", tmp_path / "program"], check=True)
    run = [EMULATOR, *BOARD, "-semihosting-config", "enable=on,target=native", "-kernel", tmp_path / "program"]
    printed = subprocess.run(run, capture_output=True, check=True, timeout=120, text=True)
    *logits, ticks = map(int, (printed.stdout + printed.stderr).split())
    np.testing.assert_array_equal(logits, run_in_numpy(chip.plan, image[None])[0])
    assert 1e5 < ticks * INSTRUCTIONS_OF_A_TICK < 2e7

"""C programs of networks of integers: without warnings, clean under sanitizers, and
equal to the network in every integer."""

import pathlib
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from helpers import assert_close, chain
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import deploy
from tests.integers.drawn import SEEDS, draw, integers, sums
from tests.integers.test_integer import CASES, frames

ROOT = pathlib.Path(__file__).parents[2]
GCC = shutil.which("gcc")
pytestmark = pytest.mark.runs_once

FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion")
SANITIZED = ("-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")

# Reads samples and writes logits, class and steps. `MARGIN` says when it may stop;
# without one the same is computed by single steps, which must be the same.
MAIN = """
#include "net.c"
#include <stdio.h>
#ifndef FRAMES
#define FRAMES 1
#endif
int main(void)
{
    static uint8_t x[FRAMES * NET_INPUT_SIZE];
    int32_t logits[NET_CLASSES], again[NET_CLASSES];
    while (fread(x, 1, sizeof x, stdin) == sizeof x) {
        int t, c, best, steps = NET_TIMESTEPS;
#ifdef MARGIN
        best = net_classify_until_sure(x, MARGIN, logits, &steps);
#else
        best = net_classify(x, logits);
#endif
        memset(again, 0, sizeof again);
        net_reset();
        for (t = 0; t < steps; t++)
            net_step(x + (FRAMES > 1 ? t * NET_INPUT_SIZE : 0), again);
        for (c = 0; c < NET_CLASSES; c++) {
            if (logits[c] != again[c]) return 1;
            printf("%d ", (int)logits[c]);
        }
        printf("%d %d\\n", best, steps);
    }
    return 0;
}
"""


@pytest.fixture(autouse=True)
def _needs_gcc():
    # Not by a mark: those skip what does not run on a backend.
    if GCC is None:
        pytest.skip("there is no gcc on the path")


def run(folder, x, *flags):
    """What the program "main.c" of a folder prints for inputs."""
    command = [GCC, *FLAGS, *flags, "main.c", "-o", "program"]
    subprocess.run(command, cwd=folder, check=True)
    program = [folder / "program"]
    printed = subprocess.run(
        program, input=x.tobytes(), capture_output=True, check=True
    )
    return printed.stdout.decode()


def outputs_of_c(chip, x, folder, *flags, **kwargs):
    """The logits, classes and steps of the program of a network."""
    deploy.export_c(chip, folder / "net.c", **kwargs)
    (folder / "main.c").write_text(MAIN)
    frames = [f"-DFRAMES={chip.timesteps}"] if chip.plan.temporal_input else []
    lines = run(folder, x, *frames, *flags).splitlines()
    rows = np.array([line.split() for line in lines], "int64")
    return rows[:, :-2], rows[:, -2], rows[:, -1]


def assert_the_program_gives_the_logits(chip, x, folder, *flags, **kwargs):
    logits, classes, _ = outputs_of_c(chip, x, folder, *flags, **kwargs)
    expected = chip.integer_logits(x)
    assert_array_equal(logits, expected)
    assert_array_equal(classes, expected.argmax(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_program_of_a_drawn_network_gives_its_logits(seed, tmp_path):
    weights, bits = [(None, 16), ("int4", 12), ("ternary", 20)][seed % 3]
    chip, x = integers(draw(seed), weights, bits), frames(seed, 5)
    options = {"cache_input": bool(seed % 2)}
    assert_the_program_gives_the_logits(chip, x, tmp_path, *SANITIZED, **options)


@pytest.mark.parametrize("bits", [16, 24])
def test_the_program_of_sums_of_currents_gives_their_logits(bits, tmp_path):
    chip = integers(sums(), membrane_bits=bits)
    x = np.arange(3000).astype("uint8").reshape(5, 600)
    assert_the_program_gives_the_logits(chip, x, tmp_path, *SANITIZED)
    # Factors beyond 32 bits are some of those with 24.
    assert ("int64_t factors" in (tmp_path / "net.c").read_text()) == (bits == 24)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_program_stops_where_the_network_does(seed, tmp_path):
    chip, x = integers(draw(seed)), frames(seed, 5)
    # A margin with which some samples stop early, if not all of them are equally sure.
    first = np.sort(chip.logits_until_sure(x, 0)[0])
    margin = int(np.median(np.diff(first[:, -2:])))
    logits, steps = chip.logits_until_sure(x, margin)
    assert steps.min() < chip.timesteps
    found = outputs_of_c(chip, x, tmp_path, *SANITIZED, f"-DMARGIN={margin}")
    assert_close(found, (logits, logits.argmax(axis=1), steps), rtol=0)


def test_the_program_of_the_docs_prints_the_class(tmp_path):
    page = (ROOT / "docs" / "tutorials" / "chip.md").read_text()
    (program,) = re.findall(r"```c\n(.*?)```", page, re.DOTALL)
    model = rsnn.models.load_pretrained("digits")
    chip = integers(model, largest_input=16)
    sizes = deploy.export_c(chip, tmp_path / "digits.c", cache_input=False)
    assert sizes.memory <= 32_000
    assert sizes.constants <= 230_000
    (tmp_path / "main.c").write_text(program)
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1), "uint8")
    expected = chip.integer_logits(images).argmax(axis=1)
    assert [int(run(tmp_path, image, "-O2")) for image in images] == expected.tolist()


@pytest.mark.parametrize(
    "where", [{"initial_membrane": -20.0}, {"reset": "hard", "v_reset": -100.0}]
)
def test_membranes_hold_that_begin_far_below_their_threshold(where, tmp_path):
    first, last = keras.layers.Dense(4), keras.layers.Dense(2)
    network = chain(first, rsnn.layers.LIF(0.5, **where), last, shape=(3,))
    model = rsnn.SpikingModel(network, timesteps=6)
    first.kernel.assign(np.full((3, 4), 0.25))
    x = np.arange(24, dtype="uint8").reshape(8, 3)
    expected = model.predict(x, verbose=0)
    assert np.unique(expected[:, 0]).size > 1
    chip = integers(model, membrane_bits=16)
    assert_allclose(chip.predict(x, verbose=0), expected, rtol=0.02, atol=1e-3)
    assert_the_program_gives_the_logits(chip, x, tmp_path, *SANITIZED)


def test_a_compiler_whose_integers_have_16_bits_refuses_the_program(tmp_path):
    deploy.export_c(
        deploy.load_integers(CASES / "lif_conv_int8.npz"), tmp_path / "net.c"
    )
    narrow = "-U__INT_MAX__", "-D__INT_MAX__=32767"
    command = [GCC, "-w", "-fsyntax-only", *narrow, "net.c"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode
    assert "an int of 32 bits" in found.stderr


def test_names_that_are_not_of_c_are_refused(tmp_path):
    chip = deploy.load_integers(CASES / "lif_conv_int8.npz")
    with pytest.raises(ValueError, match="identifier of C"):
        deploy.export_c(chip, tmp_path / "my-net.c")
    with pytest.raises(TypeError, match=r"keras_ratesnn\.deploy\.to_integers"):
        deploy.export_c(chip.plan, tmp_path / "net.c")

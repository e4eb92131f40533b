"""C programs of networks of integers: without warnings, clean under sanitizers, and
equal to the network in every integer."""

import pathlib
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from tests.integers.drawn import SEEDS, draw, sums
from tests.integers.test_integer import CASES, frames

ROOT = pathlib.Path(__file__).parents[2]
GCC = shutil.which("gcc")
pytestmark = pytest.mark.runs_once

FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Wconversion")
SANITIZED = ("-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")

# Reads samples and writes logits and classes; then the same by single steps, which must
# be the same.
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
        int t, c, best = net_classify(x, logits);
        memset(again, 0, sizeof again);
        net_reset();
        for (t = 0; t < NET_TIMESTEPS; t++)
            net_step(x + (FRAMES > 1 ? t * NET_INPUT_SIZE : 0), again);
        for (c = 0; c < NET_CLASSES; c++) {
            if (logits[c] != again[c]) return 1;
            printf("%d ", (int)logits[c]);
        }
        printf("%d\\n", best);
    }
    return 0;
}
"""


# The same until the class is sure: logits, class and steps.
MAIN_UNTIL_SURE = """
#include "net.c"
#include <stdio.h>
#ifndef FRAMES
#define FRAMES 1
#endif
int main(void)
{
    static uint8_t x[FRAMES * NET_INPUT_SIZE];
    int32_t logits[NET_CLASSES];
    while (fread(x, 1, sizeof x, stdin) == sizeof x) {
        int c, steps, best = net_classify_until_sure(x, MARGIN, logits, &steps);
        for (c = 0; c < NET_CLASSES; c++) printf("%d ", (int)logits[c]);
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


def outputs_of_c(chip, x, folder, *flags, **kwargs):
    """The logits and classes of the program of a network."""
    rows = rows_of_c(MAIN, chip, x, folder, *flags, **kwargs)
    return rows[:, :-1], rows[:, -1]


def rows_of_c(main, chip, x, folder, *flags, **kwargs):
    """The integers that a program prints for each sample."""
    rsnn.export_c(chip, folder / "net.c", **kwargs)
    (folder / "main.c").write_text(main)
    frames = [f"-DFRAMES={chip.timesteps}"] if chip.plan.temporal_input else []
    subprocess.run(
        [GCC, *FLAGS, *frames, *flags, "main.c", "-o", "program"],
        cwd=folder,
        check=True,
    )
    found = subprocess.run(
        [folder / "program"], input=x.tobytes(), capture_output=True, check=True
    ).stdout
    return np.array([line.split() for line in found.decode().splitlines()], "int64")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_program_of_a_drawn_network_gives_its_logits(seed, tmp_path):
    weights, bits = [(None, 16), ("int4", 12), ("ternary", 20)][seed % 3]
    chip = rsnn.integer(draw(seed), weights, bits, verbose=False)
    x = frames(seed, 5)
    expected = chip.integer_logits(x)
    for cache_input in (True, False):
        logits, classes = outputs_of_c(
            chip, x, tmp_path, *SANITIZED, cache_input=cache_input
        )
        assert_array_equal(logits, expected)
        assert_array_equal(classes, expected.argmax(1))


@pytest.mark.parametrize("bits", [16, 24])
def test_the_program_of_sums_of_currents_gives_their_logits(bits, tmp_path):
    chip, x = (
        rsnn.integer(sums(), membrane_bits=bits, verbose=False),
        np.arange(3000).astype("uint8").reshape(5, 600),
    )
    assert_array_equal(
        outputs_of_c(chip, x, tmp_path, *SANITIZED)[0], chip.integer_logits(x)
    )
    # Factors beyond 32 bits are some of those with 24.
    assert ("int64_t factors" in (tmp_path / "net.c").read_text()) == (bits == 24)


def test_the_program_stops_where_the_network_does(tmp_path):
    for seed in (0, 3):
        chip, x = rsnn.integer(draw(seed), verbose=False), frames(seed, 5)
        # A margin with which some samples stop early, if not all of them are equally
        # sure.
        margin = int(
            np.median(np.diff(np.sort(chip.logits_until_sure(x, 0)[0])[:, -2:]))
        )
        logits, steps = chip.logits_until_sure(x, margin)
        assert steps.min() < chip.timesteps
        rows = rows_of_c(
            MAIN_UNTIL_SURE, chip, x, tmp_path, *SANITIZED, f"-DMARGIN={margin}"
        )
        assert_array_equal(
            rows, np.column_stack([logits, logits.argmax(axis=1), steps])
        )


@pytest.mark.parametrize("case", ["lif_conv_int8", "ilif_sew_int4"])
def test_the_program_of_a_reference_case_gives_its_logits(case, tmp_path):
    expected = np.load(CASES / f"{case}.npz")
    logits, classes = outputs_of_c(
        rsnn.load_integers(CASES / f"{case}.npz"), expected["x"], tmp_path, *SANITIZED
    )
    assert_array_equal(logits, expected["logits"])
    assert_array_equal(classes, expected["classes"])


def test_the_program_of_the_docs_prints_the_class(tmp_path):
    (program,) = re.findall(
        r"```c\n(.*?)```",
        (ROOT / "docs" / "tutorials" / "chip.md").read_text(),
        re.DOTALL,
    )
    chip = rsnn.integer(
        rsnn.models.load_pretrained("digits"), largest_input=16, verbose=False
    )
    sizes = rsnn.export_c(chip, tmp_path / "digits.c", cache_input=False)
    assert sizes.memory <= 32_000
    assert sizes.constants <= 230_000
    (tmp_path / "main.c").write_text(program)
    subprocess.run(
        [GCC, *FLAGS, "-O2", "main.c", "-o", "program"], cwd=tmp_path, check=True
    )
    for image in np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1), "uint8"):
        printed = subprocess.run(
            [tmp_path / "program"],
            input=image.tobytes(),
            capture_output=True,
            check=True,
        ).stdout
        assert int(printed) == chip.integer_logits(image[None]).argmax()


@pytest.mark.parametrize(
    "where", [{"initial_membrane": -20.0}, {"reset": "hard", "v_reset": -100.0}]
)
def test_membranes_hold_that_begin_far_below_their_threshold(where, tmp_path):
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4),
            rsnn.layers.LIF(0.5, **where),
            keras.layers.Dense(2, name="d"),
        ]
    )
    model, x = (
        rsnn.SpikingModel(network, timesteps=6),
        np.arange(24, dtype="uint8").reshape(8, 3),
    )
    network.layers[0].kernel.assign(np.full((3, 4), 0.25))
    expected = model.predict(x, verbose=0)
    assert np.unique(expected[:, 0]).size > 1
    for bits in (16, 24):
        chip = rsnn.integer(model, membrane_bits=bits, verbose=False)
        assert_allclose(chip.predict(x, verbose=0), expected, rtol=0.02, atol=1e-3)
        assert_array_equal(
            outputs_of_c(chip, x, tmp_path, *SANITIZED)[0], chip.integer_logits(x)
        )


def test_a_compiler_whose_integers_have_16_bits_refuses_the_program(tmp_path):
    rsnn.export_c(rsnn.load_integers(CASES / "lif_conv_int8.npz"), tmp_path / "net.c")
    command = [
        GCC,
        "-w",
        "-fsyntax-only",
        "-U__INT_MAX__",
        "-D__INT_MAX__=32767",
        "net.c",
    ]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode
    assert "an int of 32 bits" in found.stderr


def test_names_that_are_not_of_c_are_refused(tmp_path):
    chip = rsnn.load_integers(CASES / "lif_conv_int8.npz")
    with pytest.raises(ValueError, match="identifier of C"):
        rsnn.export_c(chip, tmp_path / "my-net.c")
    with pytest.raises(TypeError, match="`name`"):
        rsnn.export_c(chip, tmp_path / "net.c", name=7)
    with pytest.raises(TypeError, match=r"keras_ratesnn\.integer"):
        rsnn.export_c(chip.plan, tmp_path / "net.c")

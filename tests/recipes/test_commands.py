"""What the commands print, and what they need."""

import argparse
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND

import keras_ratesnn as rsnn
import recipes
from recipes import convert, figures, probe, publish, quantize, run
from recipes.command_line import INTERRUPTED
from recipes.data import fashion_mnist
from recipes.evaluate import main as evaluate
from tests.recipes.made_clothes import made_clothes, write_clothes
from tests.recipes.recipe_runs import QUICKLY, changed, error_of, fast_programs, trained

pytestmark = pytest.mark.runs_once

ROOT = pathlib.Path(recipes.__file__).parent.parent


def commands():
    """The modules that read a command line."""
    paths = [
        path
        for path in sorted((ROOT / "recipes").rglob("*.py"))
        if re.search(r"command\(\s*(__name__|None), ", path.read_text())
    ]
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in paths
    ]


@pytest.mark.parametrize("module", commands())
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_ctrl_c_ends_a_command_without_a_traceback(module, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", interrupted)
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert exit_info.value.code == INTERRUPTED
    assert capsys.readouterr().out.startswith("\ninterrupted")


@pytest.mark.parametrize(
    "given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}], ids=str
)
def test_threads_wait_without_spinning_in_recipes_unless_the_user_has_said_how(
    given,
):
    program = (
        "import os, {}; print({{name: os.environ[name] for name in os.environ if "
        "'OMP_' in name}}, end='')"
    )
    environment = {
        name: value for name, value in os.environ.items() if "OMP_" not in name
    } | given

    def after_import(module):
        command = [sys.executable, "-c", program.format(module)]
        return subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert after_import("recipes") == str(given or {"OMP_WAIT_POLICY": "PASSIVE"})
    assert after_import("recipes.benchmark") == str(given)


MISTAKES = [
    (convert, "digits --timesteps 4 0", "`--timesteps` must be 1 or more"),
    (convert, "digits --set augment=event_drop", "`augment` and `mix` must fit the im"),
    (
        convert,
        "digits --set timesteps=8",
        "cannot be set here. Received: --set timeste",
    ),
    (
        convert,
        "digits --set gradient=bptt",
        "--set gradient=bptt. The converted network",
    ),
    (convert, "digits --set ordinary=first", "ordinary=first. The converted network"),
    (convert, "japanese_vowels", "has an input with time"),
    (
        figures,
        "digit",
        "NAME must be the folder of a run, or one of digits, fashion_mni",
    ),
    (
        figures,
        "digits --images 0",
        "`--images` must be 1 or more. Received: --images=0",
    ),
    (figures, "digits --set width=2", "Add --untrained."),
    (figures, "digits_segmentation --untrained", "that classify images"),
    (probe, "digits --set gradient=bptt", "`gradient` cannot be set here"),
    (probe, "digits --set ordinary=first", "Twins are trained without it."),
    (probe, "digits --set timesteps=1", "several time steps. Received: timesteps=1"),
    (probe, "japanese_vowels --set temporal=delays", "`temporal` must be another one"),
    (probe, "digits_detection", "takes spiking networks that classify images"),
    (probe, "digits --plot figure.doc", "must have one of these suffixes"),
    (probe, "digits --margin -1", "`margin` must be >= 0.0"),
    (quantize, "digits --images 0", "`--images` must be 1 or more"),
    (quantize, "digits --epochs 1", "--epochs is for networks of integers"),
]


@pytest.mark.parametrize(
    ("module", "arguments", "said"), MISTAKES, ids=[text for _, text, _ in MISTAKES]
)
def test_a_mistake_is_told_before_anything_is_measured(
    module, arguments, said, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    assert said in error_of(arguments.split(), capsys, module.main)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_diverges_is_no_accuracy(capsys):
    settings = ("learning_rate=1e30", "epochs=1", "train_images=80", "width=0.125")
    assert convert.main(["digits", "--timesteps", "2", "--set", *settings]) == 1
    assert "error: the training diverged" in capsys.readouterr().err


def test_convert_prints_accuracies_before_and_after(capsys):
    settings = ("epochs=4", "width=0.5", "batch_size=64", "train_images=1408")
    with fast_programs():
        assert (
            convert.main(
                [
                    "digits",
                    "--timesteps",
                    "4",
                    "--fine-tuning-epochs",
                    "1",
                    "--set",
                    *settings,
                ]
            )
            == 0
        )
    *_, first, _, _, _, row = capsys.readouterr().out.splitlines()
    ordinary = float(first.rpartition(" ")[2])
    _, timesteps, converted, tuned, _ = row.split("|")
    assert int(timesteps) == 4
    assert ordinary > 0.9
    # Taken over, not learnt anew: a guess is right one time in ten.
    assert float(converted) > 0.5
    assert float(tuned) > 0.9


def test_convert_quantises_weights_after_calibration_and_trains_at_each_t(
    capsys, monkeypatch
):
    models = []
    monkeypatch.setattr(
        run, "trained_accuracy", lambda model, *arguments: models.append(model) or 0.5
    )
    monkeypatch.setattr(run, "scores", lambda *arguments: {"accuracy": 0.25})
    settings = ("weights=int4", "width=0.1", "as_the_authors=True")
    assert convert.main(["digits", "--timesteps", "2", "--set", *settings]) == 0
    assert "| 2 | 0.2500 | 0.5000 |" in capsys.readouterr().out
    ordinary, tuned = models
    found = [
        getattr(layer, "weight_type", None)
        for layer in tuned.network.layers
        if getattr(layer, "kernel", None) is not None
    ]
    assert found == ["int8", "int4", "int4", "int8"]
    assert not any(hasattr(layer, "weight_type") for layer in ordinary.layers)
    # The authors' program divides by T.
    rates = [
        float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        for model in models
    ]
    np.testing.assert_allclose(rates, [0.1, 0.01 / 2], rtol=1e-6)


# Figures


def test_a_shipped_network_has_the_figures_that_are_asked_for_and_their_numbers(
    tmp_path, capsys
):
    wanted = ["firing_rates", "raster", "membranes", "accuracy_over_time", "energy"]
    arguments = [
        "digits",
        "--images",
        "4",
        "--test-images",
        "8",
        "--timesteps",
        "2",
        "--costs",
        "int8",
        "--only",
        *wanted,
    ]
    assert figures.main([*arguments, "--output", str(tmp_path / "figures")]) == 0
    printed = capsys.readouterr().out
    for name in wanted:
        path = tmp_path / "figures" / f"{name}.png"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"{path}\n" in printed
    lines = dict(
        line.strip().split(": ")
        for line in printed.splitlines()
        if line.startswith("  ")
    )
    assert len(lines["accuracy"].split()) == 4
    assert len(lines["mean"].split()) == 3
    assert (
        f"Energy of a sample: {float(lines['total']) * 1e9:.3g} nJ with spikes, T = 2; "
        "without spikes, in one pass, " in printed
    )


@pytest.mark.parametrize(
    "wanted",
    [
        ["firing_rates", "gradient_agreement"],
        pytest.param([*figures.FIGURES], marks=pytest.mark.slow, id="all"),
    ],
)
def test_a_finished_run_has_its_figures(wanted, tmp_path):
    trained(tmp_path / "run", "digits", "--set", *QUICKLY, "epochs=1")
    arguments = [
        str(tmp_path / "run"),
        "--images",
        "4",
        "--test-images",
        "8",
        "--output",
        str(tmp_path / "figures"),
    ]
    assert figures.main([*arguments, "--only", *wanted]) == 0
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == set(wanted)


def test_windows_are_compared_with_bptt(tmp_path, capsys):
    command = ["digits", "--untrained", "--only", "windows", "--images", "16"]
    output = ["--output", str(tmp_path), "--set", "width=0.25", "timesteps=3"]
    assert figures.main([*command, *output]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:2] == "| "]
    rows = [line.strip("| ").split(" | ") for line in lines[1:]]
    assert [row[0] for row in rows] == ["1", "2", "(1, 2)", "3"]
    assert {float(cosine) for cosine in rows[-1][1:]} == {1.0}
    # An integer gives the first step a window of its own.
    assert rows[1][1:] == rows[2][1:]
    sums = [sum(map(float, row[1:])) for row in rows[:2]]
    assert sums[0] < sums[1]


def test_what_is_gained_by_stopping_when_sure_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "BATCHES", {1: 2, 8: 1})
    monkeypatch.setattr(figures, "ERRORS", (0.05, 0.02))
    monkeypatch.setattr(figures, "ROUNDS", 1)
    command = ["digits", "--only", "until_sure", "--test-images", "120"]
    assert figures.main([*command, "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line[:2] == "| "]
    errors = next(row for row in rows if row[0] == "0.05")
    times = next(row for row in rows if row[0] == "8")
    assert 1 <= float(errors[2]) <= 4
    assert float(errors[5]) >= 1 - 0.05 - 0.03
    assert float(times[1]) > 0
    assert (tmp_path / "until_sure.svg").exists()


# Networks of few bits


@pytest.mark.on_each_backend
def test_quantize_prints_accuracies_before_and_after(capsys):
    assert quantize.main(["digits", "--images", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    accuracies = [float(line.split("%")[0].split()[-1]) for line in lines[2:]]
    assert len(accuracies) == (3 if BACKEND == "tensorflow" else 2)
    assert min(accuracies) > 90


def test_networks_of_integers_are_trained_once_and_published(tmp_path, capsys):
    command = (
        "digits --integer --images 40 --epochs 1 --timesteps 1 4 --weights ternary"
    )
    command = [*command.split(), "--out", str(tmp_path / "nets")]
    with changed("digits", train_images=360):
        assert quantize.main(command) == 0
        table = capsys.readouterr().out
        rows = [line.split()[:2] for line in table.splitlines()[4:]]
        assert rows == [["ternary", "converted"], ["ternary", "trained"]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "fit", None)
            assert quantize.main(command) == 0
        assert capsys.readouterr().out == table
    texts = "--name made --data-set digits --preprocessing none --licence Apache-2.0"
    folder = tmp_path / "nets" / "digits-ternary-1epochs"
    hub = ["--to", str(tmp_path / "hub")]
    assert publish.main([str(folder), *texts.split(), *hub]) == 0
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "gradient rate, from the weights of digits, T = 4, 1 epochs, seed 0" in page
    model = rsnn.models.load_pretrained(tmp_path / "hub")
    card = json.loads((tmp_path / "hub" / "card.json").read_text())
    sizes = rsnn.export_c(rsnn.integer(model, verbose=False), tmp_path / "net.c")
    integers = card["integers"]
    assert [sizes.constants, sizes.memory] == [
        integers["constants"],
        integers["memory"],
    ]


@pytest.mark.on_each_backend
@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the other backends make no LiteRT file"
)
def test_the_command_says_which_package_runs_litert_files(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    error = error_of(["digits"], capsys, quantize.main)
    assert "The LiteRT file needs the package ai_edge_litert" in error
    assert "pip install -e '.[export]'" in error
    assert error.count("\n") == 1


# The probe


TWINS = (
    "--seeds",
    "2",
    "--set",
    "width=0.0625",
    "train_images=32",
    "timesteps=2",
    "epochs=1",
)


def test_the_twins_of_a_recipe_are_trained_once_and_their_ladder_is_printed(
    tmp_path, capsys, monkeypatch
):
    arguments = [
        "digits",
        *TWINS,
        "--output",
        str(tmp_path / "twins"),
        "--plot",
        str(tmp_path / "figure.png"),
    ]
    assert probe.main(arguments) == 0
    printed = capsys.readouterr().out
    # Images have no frames, and two windows of two steps are BPTT.
    table, steps = printed.split("\n\n")[:2]
    assert [line.split()[0] for line in table.splitlines()[-4:]] == [
        "one-step",
        "sltt",
        "rate-1",
        "bptt",
    ]
    assert "2 seeds, 1 epochs in batches of 64, 360 validation samples" in table
    assert "2 steps over one" in steps
    assert (tmp_path / "figure.png").exists()
    monkeypatch.setattr(rsnn.SpikingModel, "fit", None)
    assert probe.main([*arguments, "--margin", "0.5"]) == 0
    assert (
        capsys.readouterr().out.split("\n\n")[0].splitlines()[-4:]
        == table.splitlines()[-4:]
    )
    error = error_of([*arguments, "--set", "epochs=2"], capsys, probe.main)
    assert "`folder` must have results of the same budget" in error
    assert "begun with epochs=1, now 2" in error


# Published networks

ARGUMENTS = ["--data", "fashion_mnist", "--arguments", '{"heads": 2}']


@pytest.fixture(scope="module")
def maxformer(tmp_path_factory):
    """A checkpoint of a small Max-Former, and a folder of images."""
    folder = tmp_path_factory.mktemp("made")
    keras.utils.set_random_seed(0)
    model = rsnn.models.MaxFormer((28, 28, 1), timesteps=2, dims=16, blocks=3, heads=2)
    rsnn.models.to_checkpoint(model, folder / "maxformer.pth")
    return model, folder / "maxformer.pth", write_clothes(folder)


def test_the_accuracy_is_that_on_normalised_images_and_the_card_says_its_source(
    maxformer, tmp_path, capsys
):
    model, file, folder = maxformer
    output = [
        "--output",
        str(tmp_path / "run"),
        "--origin",
        "https://example.org/maxformer",
    ]
    assert (
        evaluate(
            [
                str(file),
                *ARGUMENTS,
                *output,
                "--data-dir",
                str(folder),
                "--network",
                "maxformer",
                "--timesteps",
                "2",
            ]
        )
        == 0
    )
    pixels, labels = made_clothes(80, seed=80)
    images = (pixels[..., None] - fashion_mnist.PIXELS[0][0]) / fashion_mnist.PIXELS[1][
        0
    ]
    accuracy = np.mean(model.predict(images, verbose=0).argmax(axis=1) == labels)
    report, scores = capsys.readouterr().out.split(
        "fashion_mnist, T = 2, 80 test images\n"
    )
    assert report.startswith(f"{file}: maxformer, a MaxFormer")
    assert f"test accuracy: {accuracy:.4f}\n" in scores
    texts = ["--data-set", "Clothes", "--preprocessing", "Bytes", "--licence", "MIT"]
    assert (
        publish.main(
            [
                str(tmp_path / "run"),
                "--name",
                "clothes",
                *texts,
                "--to",
                str(tmp_path / "hub"),
            ]
        )
        == 0
    )
    loaded = rsnn.models.load_pretrained(tmp_path / "hub")
    np.testing.assert_allclose(
        loaded.predict(pixels[..., None], verbose=0),
        model.predict(images, verbose=0),
        atol=1e-4,
    )
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "| origin | https://example.org/maxformer: maxformer.pth, SHA-256 " in page
    assert "| licence | MIT |" in page
    assert "training" not in page
    assert "bibtex" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "qkformer"], "`network` must be maxformer"),
        (
            ["--arguments", '{"classes": 3, "heads": 2}'],
            "The data must have 3 classes, as the network",
        ),
        (["--arguments", '{"pooling": 1}'], "pooling"),
        (["--data-dir", "absent"], "absent"),
        (["--output", "run"], "--output and --origin must be given together"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(arguments, message, maxformer, capsys):
    _, file, folder = maxformer
    assert evaluate([str(file), *ARGUMENTS, "--data-dir", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err

"""What the commands print, and what they need."""

import argparse
import importlib
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
from recipes import catalogue, convert, figures, probe, publish, quantize, run, train
from recipes.command_line import INTERRUPTED
from recipes.data import fashion_mnist
from recipes.evaluate import main as evaluate
from tests.recipes.made_clothes import made_clothes, write_clothes
from tests.recipes.recipe_runs import QUICKLY, changed, error_of, trained

ROOT = pathlib.Path(recipes.__file__).parent.parent


def commands():
    """The modules that read a command line."""
    modules = []
    for path in sorted((ROOT / "recipes").rglob("*.py")):
        if re.search(r"command\(\s*(__name__|None),\s", path.read_text()):
            parts = path.relative_to(ROOT).with_suffix("").parts
            modules.append(".".join(parts).removesuffix(".__main__"))
    return modules


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


@pytest.mark.parametrize("module", commands())
def test_help_has_whole_sentences_and_all_choices_and_defaults(module, monkeypatch):
    parsers = []
    monkeypatch.setattr(
        argparse.ArgumentParser, "print_help", lambda p: parsers.append(p)
    )
    name = module + ".__main__" * (module == "recipes.compare")
    with pytest.raises(SystemExit):
        importlib.import_module(name).main(["--help"])
    (parser,) = parsers
    assert parser.description.endswith(".")
    for action in parser._actions:
        text = parser._get_formatter()._expand_help(action)
        words, *defaults = text.split(" (default: ")
        assert len(words.split()) > 1
        takes_value = action.option_strings and action.nargs != 0
        assert len(defaults) == bool(takes_value and not action.required)
        # A setting can be None.
        assert action.dest == "set" or not re.search("None|[][{}]", "".join(defaults))
        if action.metavar:
            assert all(str(choice) in words for choice in action.choices or ())


def test_a_recipe_is_shown_with_all_settings_and_data_and_not_trained(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "fashion_mnist_resnet13", "cifar10_dvs_maxformer"):
        assert train.main([name, "--show", "--epochs", "7"]) == 0
        title, *lines = capsys.readouterr().out.splitlines()
        assert title == f"{name}: {catalogue.DESCRIPTIONS[name]}"
        settings = [line.strip() for line in lines if "=" in line]
        recipe = catalogue.find(name).with_settings(["epochs=7"])
        assert recipe.with_settings(settings) == recipe
        assert len(settings) == len(recipe.settings()) - 1
        assert lines[-2].startswith("data: ")
        assert lines[-1].startswith("--data-dir: ")
    assert "figshare" in lines[-2]
    assert all(len(catalogue.data_of(name)) == 2 for name in catalogue.FILES)
    assert not list(tmp_path.iterdir())


DAMAGED = """
train | digits --output run | run/settings.json
evaluate | run | run/settings.json
publish | run --name a --data-set b --preprocessing c --licence d | run/result.json
compare.results | run | run/result.json
compare.results |  | results/digits.jsonl
compare.time_to_accuracy | digits --methods bptt-multi --output . --show | T4/steps.json
temporal_map | order-4 --output . --show | order-4.jsonl
audit | digits --output . | audit.json
"""


@pytest.mark.parametrize("line", DAMAGED.strip().splitlines())
def test_the_error_names_a_damaged_file_of_results(line, tmp_path, monkeypatch, capsys):
    module, arguments, file = line.split(" | ")
    command = importlib.import_module(f"recipes.{module}")
    monkeypatch.setattr(command, "FOLDER", tmp_path / "results", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    error = error_of(arguments.split(), capsys, command.main)
    assert f"{file} is damaged" in error


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}], ids=str)
def test_threads_wait_without_spinning_in_recipes_unless_the_user_has_said_how(given):
    environment = {**os.environ, **given}
    for name in [name for name in environment if "OMP_" in name and name not in given]:
        del environment[name]
    program = "import os, recipes; print({k: os.environ[k] for k in os.environ"
    command = [sys.executable, "-c", f"{program} if 'OMP_' in k}}, end='')"]
    printed = subprocess.check_output(command, env=environment, cwd=ROOT, text=True)
    assert printed == str(given or {"OMP_WAIT_POLICY": "PASSIVE"})


MISTAKES = """
convert | digits --timesteps 4 0 | `--timesteps` must be 1 or more
convert | digits --set augment=cifar10 | `augment` and `mix` must fit the im
convert | digits --set timesteps=8 | cannot be set here. Received: --set timeste
convert | digits --set gradient=bptt | --set gradient=bptt. The converted network
convert | digits --set ordinary=first | ordinary=first. The converted network
convert | japanese_vowels | has an input with time
figures | digit | NAME must be the folder of a run, or one of digits, fashion_mni
figures | digits --images 0 | `--images` must be 1 or more. Received: --images=0
figures | digits --set width=2 | Add --untrained.
figures | digits_segmentation --untrained | that classify images
probe | digits --set gradient=bptt | `gradient` cannot be set here
probe | digits --set ordinary=first | Twins are trained without it.
probe | digits --set timesteps=1 | several time steps. Received: timesteps=1
probe | japanese_vowels --set temporal=delays | `temporal` must be another one
probe | digits_detection | takes spiking networks that classify images
probe | digits --plot figure.doc | must have one of these suffixes
quantize | digits --images 0 | `--images` must be 1 or more
quantize | digits --epochs 3 | epochs is for networks of integers: --integer.
compare.__main__ | digits --seeds 0 | `--seeds` must be 1 or more. Received: --seeds=0
compare.__main__ | digits --seeds two | must be an integer. Received: --seeds='two'
compare.__main__ | digits --set seed=3 | Received: --set seed=3. Pass --seeds.
compare.__main__ | digits --set gradient=sltt | gradient=sltt. Name the method with --me
compare.__main__ | digits --set step_mode=single | --methods
compare.__main__ | digits --methods rate-multi-2 --set windows=3 | `windows` cannot be s
compare.__main__ | digits --methods rate-multi-2+x | in their sizes, like rate-multi-1+3
compare.__main__ | digits --methods rate-multi rate-multi-1 | which are the same
compare.__main__ | digits_segmentation | takes spiking networks that classify images
compare.__main__ | digits --vary levels | takes each key once, as key=value,value. Recei
compare.__main__ | digits --vary levels=0,4 | `levels` must be 1 or more
compare.__main__ | digits --vary gradient=rate,bptt | rate,bptt. Name the method
compare.__main__ | digits --vary levels=2,4 --set levels=3 | levels=3. Its values are
compare.__main__ | digits --vary epochs=1,2 batch=3 | the keys are
compare.time_to_accuracy | fashion_mnist_resnet13 | `ordinary` must be 'no'. Received: o
compare.time_to_accuracy | fashion_mnist --set levels=2 | `levels` must be None. Receive
compare.time_to_accuracy | fashion_mnist --set held_out=9 | held_out=9. The other l
compare.time_to_accuracy | fashion_mnist --set gradient=bptt | the method with --methods
compare.time_to_accuracy | fashion_mnist --methods rate | `methods` must be one of
compare.time_to_accuracy | dvs_gesture | `recipe` must be one of images or of sequences
compare.time_to_accuracy | fashion_mnist --set teachers=digits teacher_weight=1 | `teach
benchmark.step | --network ResNet20 | `network` must be one of
benchmark.step | --network load_pretrained | `network` must be one of
benchmark.step | --methods rate | `methods` must be one of
benchmark.step | --timesteps 0 | must be 1 or more. Received: --timesteps=0
benchmark.step | --width -1 | `width` must be > 0. Received: width=-1.0
benchmark.step | --precision int8 | `precision` must be one of
benchmark.step | --methods rate-multi-2 | 'rate-multi-2' and timesteps=1. `windows` must
benchmark.step | --methods rate-multi-0 | `windows` must be 1 or more
benchmark.step | --methods sltt-single-3 | `random_steps` must be at most timesteps
benchmark.step | --methods os --network LIF | 'os' for networks with normalization=
benchmark.step | --network VGG11 --size 2 | `input_shape` must have a height and
benchmark.step | --output commands.py | commands.py
"""


@pytest.mark.parametrize("line", MISTAKES.strip().splitlines())
def test_a_mistake_is_told_before_anything_is_measured(
    line, monkeypatch, tmp_path, capsys
):
    module, arguments, said = line.split(" | ")
    command = importlib.import_module(f"recipes.{module}").main
    monkeypatch.chdir(tmp_path)
    (tmp_path / "commands.py").touch()
    assert said in error_of(arguments.split(), capsys, command)
    # The benchmark makes its folder first.
    folders = {"commands.py"} | ({"runs"} if module == "benchmark.step" else set())
    assert {path.name for path in tmp_path.iterdir()} <= folders


CONVERT = "digits --timesteps 4 --fine-tuning-epochs 1 --set width=0.5 batch_size=64"


def test_convert_prints_accuracies_before_and_after_and_none_of_what_diverged(capsys):
    command = CONVERT.split()
    assert convert.main([*command, "epochs=4", "train_images=1408"]) == 0
    *_, first, _, _, _, row = capsys.readouterr().out.splitlines()
    ordinary = float(first.rpartition(" ")[2])
    _, timesteps, converted, tuned, _ = row.split("|")
    assert int(timesteps) == 4
    assert min(ordinary, float(tuned)) > 0.9
    # Taken over, not learnt anew: a guess is right one time in ten.
    assert float(converted) > 0.5
    diverges = ("epochs=1", "train_images=80", "learning_rate=1e30")
    assert convert.main([*command, *diverges]) == 1
    assert "error: the training diverged" in capsys.readouterr().err


# Figures


def test_a_finished_run_has_its_figures_and_their_numbers(tmp_path, capsys):
    settings = (*QUICKLY, "timesteps=4", "epochs=1")
    trained(tmp_path / "run", "digits", "--set", *settings)
    command = f"{tmp_path}/run --images 4 --test-images 8 --costs int8 --output"
    assert figures.main([*command.split(), str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in figures.ANALYSES:
        path = tmp_path / f"{name}.png"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert f"{path}\n" in printed
    lines = dict(re.findall(r"^  (.*): (.*)$", printed, re.MULTILINE))
    assert len(lines["accuracy"].split()) == 8
    assert len(lines["mean"].split()) == 3
    assert "with spikes, T = 4; without spikes, in one pass, " in printed


def test_windows_are_compared_with_bptt(tmp_path, capsys):
    command = ["digits", "--untrained", "--only", "windows", "--images", "16"]
    output = ["--output", str(tmp_path), "--set", "width=0.25", "timesteps=3"]
    assert figures.main([*command, *output]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:2] == "| "]
    rows = [line.strip("| ").split(" | ") for line in lines[1:]]
    assert [row[0] for row in rows] == ["1", "2", "(1, 2)", "3"]
    assert {float(cosine) for cosine in rows[-1][1:]} == {1.0}


def test_what_is_gained_by_stopping_when_sure_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "BATCHES", {1: 2, 8: 1})
    monkeypatch.setattr(figures, "ERRORS", (0.05, 0.02))
    monkeypatch.setattr(figures, "ROUNDS", 1)
    command = ["digits", "--only", "until_sure", "--test-images", "120"]
    assert figures.main([*command, "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line[:2] == "| "]
    cells = {row[0]: row for row in rows}
    assert 1 <= float(cells["0.05"][2]) <= 4
    assert float(cells["0.05"][5]) >= 1 - 0.05 - 0.03
    assert float(cells["8"][1]) > 0
    assert (tmp_path / "until_sure.svg").exists()


# Networks of few bits


@pytest.mark.backends(3)
def test_quantize_prints_accuracies_before_and_after(capsys, monkeypatch):
    assert quantize.main(["digits", "--images", "40"]) == 0
    # Keras 3.16 says by itself what it quantizes.
    lines = [line for line in capsys.readouterr().out.splitlines() if "%" in line]
    accuracies = [float(line.split("%")[0].split()[-1]) for line in lines]
    assert len(accuracies) == (3 if BACKEND == "tensorflow" else 2)
    assert min(accuracies) > 90
    if BACKEND == "tensorflow":
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        error = error_of(["digits"], capsys, quantize.main)
        assert "The LiteRT file needs the package ai_edge_litert" in error
        assert "pip install -e '.[export]'" in error


INTEGER = "digits --integer --images 40 --epochs 1 --timesteps 1 4 --weights ternary"
TEXTS = "--name made --data-set digits --preprocessing none --licence MIT"


def test_networks_of_integers_are_trained_once_and_published(tmp_path, capsys):
    command = [*INTEGER.split(), "--out", str(tmp_path / "nets")]
    with changed("digits", train_images=360), pytest.MonkeyPatch.context() as patch:
        assert quantize.main(command) == 0
        table = capsys.readouterr().out
        rows = [line.split()[:2] for line in table.splitlines()[5:]]
        assert rows == [["ternary", "converted"], ["ternary", "trained"]]
        patch.setattr(run, "fit", None)
        assert quantize.main(command) == 0
        assert capsys.readouterr().out == table
    folder, hub = tmp_path / "nets" / "digits-ternary-1epochs", tmp_path / "hub"
    assert publish.main(f"{folder} {TEXTS} --to {hub}".split()) == 0
    page = (hub / "README.md").read_text()
    assert "gradient rate, from the weights of digits, T = 4, 1 epochs, seed 0" in page
    model = rsnn.models.load_pretrained(hub)
    integers = json.loads((hub / "card.json").read_text())["integers"]
    sizes = rsnn.deploy.export_c(
        rsnn.deploy.to_integers(model, verbose=False), tmp_path / "net.c"
    )
    known = sizes.constants, sizes.memory
    assert known == (integers["constants"], integers["memory"])
    assert integers["memory"] > integers["memory_without_cache"] > 0
    assert integers["test_accuracy"] > 0.8


# The probe


TWINS = "--seeds 2 --set width=0.0625 train_images=32 timesteps=2 epochs=1"


def test_the_twins_of_a_recipe_are_trained_once_and_their_ladder_is_printed(
    tmp_path, capsys, monkeypatch
):
    files = f"--output {tmp_path}/twins --plot {tmp_path}/figure.png"
    arguments = f"digits {TWINS} jit_compile=False {files}".split()
    assert probe.main(arguments) == 0
    printed = capsys.readouterr().out
    # Images have no frames, and two windows of two steps are BPTT.
    table, steps = printed.split("\n\n")[:2]
    rows = table.splitlines()[-4:]
    assert [row.split()[0] for row in rows] == ["one-step", "sltt", "rate-1", "bptt"]
    assert "2 seeds, 1 epochs in batches of 64, 360 validation samples" in table
    assert "2 steps over one" in steps
    assert (tmp_path / "figure.png").exists()
    monkeypatch.setattr(rsnn.SpikingModel, "fit", None)
    assert probe.main(arguments) == 0
    assert capsys.readouterr().out.split("\n\n")[0].splitlines()[-4:] == rows
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


def test_the_accuracy_is_that_on_normalised_images(maxformer, capsys):
    model, file, folder = maxformer
    network = f"--network maxformer --timesteps 2 --data-dir {folder}"
    command = [str(file), *ARGUMENTS, *network.split()]
    assert evaluate(command) == 0
    pixels, labels = made_clothes(80, seed=80)
    (mean,), (deviation,) = fashion_mnist.PIXELS
    outputs = model.predict((pixels[..., None] - mean) / deviation, verbose=0)
    accuracy = np.mean(outputs.argmax(axis=1) == labels)
    heading = "fashion_mnist, T = 2, 80 test images\n"
    report, scores = capsys.readouterr().out.split(heading)
    assert report.startswith(f"{file}: maxformer, a MaxFormer")
    assert f"test accuracy: {accuracy:.4f}\n" in scores


UNFIT = """
--network qkformer | `network` must be maxformer
--arguments {"classes":3,"heads":2} | The data must have 3 classes, as the network
--arguments {"pooling":1} | pooling
--data-dir absent | absent
"""


def test_what_does_not_fit_is_said_in_a_line(maxformer, capsys):
    _, file, folder = maxformer
    for line in UNFIT.strip().splitlines():
        arguments, said = line.split(" | ")
        command = [str(file), *ARGUMENTS, "--data-dir", str(folder)]
        assert evaluate([*command, *arguments.split()]) == 2
        assert said in capsys.readouterr().err

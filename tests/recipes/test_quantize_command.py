"""The command that quantizes a network: what it prints, and what it needs."""

import dataclasses
import json
import sys

import pytest
from helpers import BACKEND

import keras_ratesnn as rsnn
from recipes import catalogue, publish, quantize
from tests.recipes.recipe_runs import error_of


def test_the_command_prints_accuracies_before_and_after(capsys):
    assert quantize.main(["digits", "--images", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    accuracies = [float(line.split("%")[0].split()[-1]) for line in lines[2:]]
    assert len(accuracies) == (3 if BACKEND == "tensorflow" else 2)
    assert min(accuracies) > 90


@pytest.mark.runs_once
def test_the_command_prints_networks_of_integers_converted_and_trained(
    capsys, monkeypatch
):
    few = dataclasses.replace(catalogue.find("digits"), train_images=360)
    monkeypatch.setitem(catalogue.RECIPES, "digits", few)
    assert (
        quantize.main(
            [
                "digits",
                "--integer",
                "--images",
                "40",
                "--epochs",
                "1",
                "--timesteps",
                "1",
                "4",
            ]
        )
        == 0
    )
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert header == ["weights", "network", "T", "=", "1", "T", "=", "4"]
    assert [row[:2] for row in rows[1:]] == [
        [weights, how]
        for weights in quantize.WEIGHTS
        for how in ("converted", "trained")
    ]
    accuracies = [
        [float(cell.rstrip("%")) for cell in row if cell.endswith("%")] for row in rows
    ]
    assert all(len(of_row) == 2 for of_row in accuracies)
    assert min(of_row[1] for of_row in accuracies[:5]) > 90
    assert error_of(["digits", "--epochs", "1"], capsys, quantize.main).startswith(
        "error: --epochs is for networks of integers"
    )


@pytest.mark.runs_once
def test_the_command_finds_trained_networks_again(tmp_path, capsys, monkeypatch):
    few = dataclasses.replace(catalogue.find("digits"), train_images=64)
    monkeypatch.setitem(catalogue.RECIPES, "digits", few)
    command = [
        "digits",
        "--integer",
        "--images",
        "40",
        "--epochs",
        "1",
        "--weights",
        "ternary",
        "--out",
        str(tmp_path / "nets"),
    ]
    assert quantize.main(command) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[3:]] == [
        "float32",
        "ternary",
        "ternary",
    ]
    monkeypatch.setattr(quantize, "_trained", None)
    assert quantize.main(command) == 0
    assert capsys.readouterr().out == table
    run = tmp_path / "nets" / "digits-ternary-1epochs"
    texts = [
        "--name",
        "made",
        "--data-set",
        "digits",
        "--preprocessing",
        "none",
        "--licence",
        "Apache-2.0",
    ]
    assert publish.main([str(run), *texts, "--to", str(tmp_path / "hub")]) == 0
    page = (tmp_path / "hub" / "README.md").read_text()
    trained = (
        "gradient rate, from the weights of digits, T = 4, 1 epochs, seed 0, on "
        f"{BACKEND}"
    )
    assert f"| {trained} |\n| integers | accuracy " in page
    model = rsnn.models.load_pretrained(tmp_path / "hub")
    card = json.loads((tmp_path / "hub" / "card.json").read_text())
    assert {
        layer.weight_type
        for layer in model.network.layers
        if hasattr(layer, "weight_type")
    } == {"int8", "ternary"}
    sizes = rsnn.export_c(rsnn.integer(model, verbose=False), tmp_path / "net.c")
    assert [sizes.constants, sizes.memory] == [
        card["integers"][key] for key in ("constants", "memory")
    ]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setitem(
            catalogue.RECIPES, "digits", dataclasses.replace(few, train_images=65)
        )
        assert quantize.main(command) == 2
    assert (
        f"{run} has a network that was trained with other settings or data."
        in capsys.readouterr().err
    )
    (run / "last.keras").write_bytes(b"no network")
    assert quantize.main(command) == 2
    assert f"{run / 'last.keras'} is damaged. Remove {run}" in capsys.readouterr().err


@pytest.mark.parametrize("images", [0, -1])
def test_the_command_needs_images(images, capsys):
    error = error_of(["digits", "--images", images], capsys, quantize.main)
    assert f"`--images` must be 1 or more. Received: --images={images}" in error


@pytest.mark.runs_once
def test_the_command_needs_bits_of_a_membrane_from_8_to_24(capsys):
    for bits in ("7", "25"):
        with pytest.raises(SystemExit) as ended:
            quantize.main(["digits", "--integer", "--membrane-bits", bits])
        assert ended.value.code == 2
        assert (
            f"argument --membrane-bits: invalid choice: {bits} (choose from 8"
            in capsys.readouterr().err
        )


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the other backends make no LiteRT file"
)
def test_the_command_says_which_package_runs_litert_files(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    error = error_of(["digits"], capsys, quantize.main)
    assert "The LiteRT file needs the package ai_edge_litert" in error
    assert "pip install -e '.[export]'" in error
    assert error.count("\n") == 1

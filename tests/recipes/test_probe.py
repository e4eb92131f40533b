"""The command that asks whether the data of a recipe need time, and the recipe whose
data do."""

import dataclasses

import numpy as np
import pytest

import keras_ratesnn as rsnn
from recipes import catalogue, order, probe
from recipes.optimizers import SGD
from tests.recipes.recipe_runs import error_of, trained

pytestmark = pytest.mark.runs_once

QUICKLY = (
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
        *QUICKLY,
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["digits", "--set", "gradient=bptt"],
            "`gradient` cannot be set here. Received: --set gradient=bptt. Twins have",
        ),
        (["digits", "--set", "ordinary=first"], "Twins are trained without it."),
        (
            ["fashion_mnist_resnet13", "--set", "ordinary_epochs=1"],
            "Twins are trained without it.",
        ),
        (
            ["digits", "--set", "timesteps=1"],
            "several time steps. Received: timesteps=1",
        ),
        (
            ["japanese_vowels", "--set", "temporal=delays"],
            "`temporal` must be another one in recipe 'japanese_vowels'",
        ),
        (["digits_detection"], "takes spiking networks that classify images"),
        (["digits", "--plot", "figure.doc"], "must have one of these suffixes"),
        (["digits", "--margin", "-1"], "`margin` must be >= 0.0"),
        (
            ["order", "--data-dir", "data"],
            "The data are made. Received: --data-dir data.",
        ),
        (
            ["order", "--set", "timesteps=4"],
            "`timesteps` must be 8, the length of the sequences",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_what_a_probe_cannot_do_is_an_error(arguments, message, capsys, tmp_path):
    assert message in error_of(
        [*arguments, "--output", tmp_path / "twins"], capsys, probe.main
    )


def test_twins_have_neither_the_augmentation_nor_the_teaching_of_a_recipe(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(
        probe.analysis,
        "temporal_probe",
        lambda make_model, *data, **settings: make_model(),
    )
    recipe = dataclasses.replace(
        catalogue.find("digits"), augment="fashion_mnist", optimizer=SGD(restart_at=0.5)
    )
    monkeypatch.setitem(catalogue.RECIPES, "digits", recipe)
    built = []
    monkeypatch.setattr(
        probe.run, "prepared", lambda recipe, dataset: built.append(recipe)
    )
    assert probe.main(["digits", "--output", str(tmp_path)]) == 0
    assert built[0].augment == "none"
    assert built[0].optimizer == recipe.optimizer


def test_the_recipe_order_has_all_sequences_of_which_only_the_order_tells(tmp_path):
    dataset = catalogue.find("order").load(None)
    np.testing.assert_array_equal(dataset.train_images, order.order_in_time()[0])
    np.testing.assert_array_equal(dataset.train_images, dataset.test_images)
    assert trained(tmp_path, "order", "--set", "epochs=1")["test_images"] == 32

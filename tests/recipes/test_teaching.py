"""Recipes whose spiking network learns from the ordinary network, from pretrained ones,
from branches or from its own steps, or starts from a pretrained network."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import to_numpy

import keras_ratesnn as rsnn
from recipes import catalogue, engine, evaluate, publish, run, run_folder, teaching
from recipes.data import digits
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import (
    assert_same_states,
    curve_without_times,
    error_of,
    stopped,
    trained,
)

pytestmark = pytest.mark.runs_once

TINY = ("timesteps=2", "batch_size=360", "train_images=720", "width=0.125")
if keras.backend.backend() != "jax":
    # Operation by operation JAX takes minutes.
    TINY += ("jit_compile=False",)
TAUGHT = ("ordinary=first", "ordinary_epochs=1", "epochs=2", "teacher_weight=0.5")
DRAWN = ("step_mode=single", "gradient=sltt", "random_steps=1")


def test_the_ordinary_network_has_its_own_length_and_rate_and_can_be_trained_before(
    tmp_path,
):
    settings = ("ordinary_epochs=1", "ordinary_learning_rate=0.2", "epochs=2")
    run = ("digits", "--set", *settings, *TINY[1:])
    alone = trained(tmp_path / "ordinary", *run, "ordinary=only")
    values = [alone["settings"][name] for name in ("epochs", "learning_rate")]
    assert (len(alone["curve"]["loss"]), values) == (1, [1, 0.2])
    both = trained(tmp_path, *run, "ordinary=first", "teacher_weight=0.5", TINY[0])
    assert json.loads((tmp_path / "ordinary" / "result.json").read_text()) == alone
    assert len(both["curve"]["loss"]) == 2
    assert both["comparison"]["ordinary"]["accuracy"] == alone["test_accuracy"]


def test_a_run_tells_what_the_conversion_brought(tmp_path, capsys):
    record = trained(tmp_path, "digits", "--set", *TINY, "ordinary=first", "epochs=1")
    scores, printed = record["comparison"], capsys.readouterr().out
    for what, key in (
        ("ordinary network", "ordinary"),
        ("converted, before training", "converted"),
    ):
        assert f"{what}, test accuracy: {scores[key]['accuracy']:.4f}" in printed
    ordinary = keras.saving.load_model(tmp_path / "ordinary" / "last.keras")
    data = catalogue.find("digits").with_settings(TINY).load(None)
    converted = rsnn.spikify(
        ordinary, timesteps=2, calibrate=run.calibration_images(data), verbose=False
    )
    classes = to_numpy(converted.predict(data.test_images, verbose=0)).argmax(-1)
    assert (classes == data.test_labels).mean() == pytest.approx(
        scores["converted"]["accuracy"], abs=1e-6
    )
    # Whatever was built before, layers have the same names.
    network = run_folder.load_model(tmp_path / "last.keras").network
    kinds = rsnn.layers.Neuron
    names = [layer.name for layer in network.layers if isinstance(layer, kinds)]
    assert names == ["lif", "lif_1", "lif_2"]


def test_a_mistake_costs_no_finished_run_with_its_ordinary_network(tmp_path, capsys):
    run = ["digits", "--set", *TINY, "ordinary=beside", "epochs=1"]
    trained(tmp_path, *run)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    capsys.readouterr()
    command = [*run, "branches=9", "--restart", "--output", tmp_path]
    assert "`branches` must be at most" in error_of(command, capsys)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("settings", "score"),
    [
        ((*TAUGHT, "levels=2", "random_timesteps=[1,3]", *DRAWN), "test_student_loss"),
        (("branches=1", "epochs=2", "temperature=2.0"), "test_accuracy"),
        (
            ("random_timesteps=[1,3]", "step_distillation=0.5", "epochs=2"),
            "test_accuracy",
        ),
    ],
)
def test_a_taught_run_resumes_and_its_network_is_an_ordinary_checkpoint(
    settings, score, tmp_path, capsys
):
    run = ("digits", "--set", *TINY, *settings)
    whole = trained(tmp_path / "whole", *run)
    if "comparison" in whole:
        # To train it once is enough.
        shutil.copytree(
            tmp_path / "whole" / "ordinary", tmp_path / "stopped" / "ordinary"
        )
    stopped(tmp_path / "stopped", 1, *run)
    resumed = trained(tmp_path / "stopped", *run)
    assert "resumes after 1 epochs" in capsys.readouterr().out
    assert curve_without_times(resumed) == curve_without_times(whole)
    assert_same_states(
        tmp_path / "stopped" / "last.keras", tmp_path / "whole" / "last.keras"
    )
    assert score in whole["curve"]
    # Killed after the last checkpoints of both networks.
    for result in (tmp_path / "whole").rglob("result.json"):
        result.unlink()
    assert trained(tmp_path / "whole", *run) == whole

    model = keras.saving.load_model(tmp_path / "whole" / "last.keras")
    assert isinstance(model, rsnn.SpikingModel)
    assert model.output_shape == (None, 10)
    assert model.count_params() == whole["parameters"]
    assert not any("branch" in layer.name for layer in model.network.layers)
    data = digits.load()
    found = to_numpy(model.predict(data.test_images, verbose=0)).argmax(-1)
    assert (found == data.test_labels).mean() == pytest.approx(
        whole["test_accuracy"], abs=1e-6
    )

    assert evaluate.main([str(tmp_path / "whole")]) == 0
    assert f"test accuracy: {whole['test_accuracy']:.4f}" in capsys.readouterr().out
    card, path = publish.publish(
        model,
        whole,
        name="taught",
        data_set="d",
        preprocessing="p",
        licence="MIT",
        folder=tmp_path / "published",
    )
    assert card.parameters == whole["parameters"]
    assert keras.saving.load_model(path).count_params() == whole["parameters"]
    if "comparison" in whole:
        assert whole["comparison"]["spiking"]["2"]["accuracy"] == pytest.approx(
            whole["test_accuracy"], abs=1e-6
        )


@pytest.mark.on_each_backend
def test_the_loss_of_a_taught_run_weighs_labels_and_teacher(tmp_path):
    recipe, data = (
        catalogue.find("digits").with_settings(
            [*TINY, *TAUGHT, "teacher_weight=0.3", "temperature=2.0"]
        ),
        digits.load(),
    )
    teacher = recipe.ordinary_network(data)
    teacher.save(tmp_path / "ordinary.keras")
    model = run.build(recipe, data, tmp_path / "ordinary.keras")
    fitted = run.to_fit(model, recipe, data, tmp_path / "ordinary.keras")
    images, labels = data.test_images[:32], data.test_labels[:32]
    logs = fitted.evaluate(images, labels, batch_size=32, verbose=0, return_dict=True)
    own, of_teacher = (
        keras.ops.convert_to_tensor(each.predict(images, verbose=0))
        for each in (model, teacher)
    )
    of_labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        labels, own
    )
    divergence = keras.losses.KLDivergence()(
        keras.ops.softmax(of_teacher / 2), keras.ops.softmax(own / 2)
    )
    assert logs["loss"] == pytest.approx(
        0.7 * float(of_labels) + 0.3 * 4 * float(divergence), rel=1e-4
    )


def test_branches_sit_at_the_ends_of_the_last_stages():
    for name, stages in (
        ("fashion_mnist", 2),
        ("digits", 2),
        ("fashion_mnist_events", 3),
    ):
        network = catalogue.find(name).network(width=0.125)
        sizes = [
            network.get_layer(each).output.shape[1] for each in teaching.stages(network)
        ]
        assert len(sizes) == stages
        assert sizes == sorted(sizes, reverse=True)


def test_a_taught_run_in_half_precision_is_published_in_whole(tmp_path):
    values = (*TINY, *TAUGHT, "epochs=1", "precision=mixed_bfloat16")
    record = trained(tmp_path / "run", "digits", "--set", *values)
    assert np.isfinite(record["curve"]["loss"]).all()
    texts = "--name half --data-set d --preprocessing p --licence MIT --timesteps 1 3"
    command = f"{tmp_path}/run --folder {tmp_path} {texts}"
    assert publish.main(command.split()) == 0
    model = keras.saving.load_model(tmp_path / "weights" / "half.keras")
    data = digits.load()
    assert {layer.compute_dtype for layer in model.network.layers} == {"float32"}
    card = json.loads((tmp_path / "cards" / "half.json").read_text())
    assert list(card["accuracies"]) == ["1", "2", "3"]
    for timesteps, accuracy in card["accuracies"].items():
        model.timesteps = int(timesteps)
        classes = to_numpy(model.predict(data.test_images, verbose=0)).argmax(-1)
        right = (classes == data.test_labels).mean()
        assert accuracy == pytest.approx(right, abs=1e-6)
    assert card["test_accuracy"] == card["accuracies"]["2"]


def test_one_training_with_random_time_steps_is_tested_with_several_by_one_command(
    tmp_path, capsys
):
    record = trained(
        tmp_path, "digits", "--set", *TINY, "random_timesteps=[1,3]", "epochs=1"
    )
    assert record["settings"]["random_timesteps"] == [1, 3]
    capsys.readouterr()
    assert evaluate.main([str(tmp_path), "--timesteps", "1", "2", "4"]) == 0
    printed = capsys.readouterr().out
    for timesteps in (1, 2, 4):
        assert f"T = {timesteps}," in printed
    assert (
        f"test accuracy: {record['test_accuracy']:.4f}"
        in printed.split("T = 2,")[1].split("T = 4,")[0]
    )


def test_first_epochs_with_one_step_are_trained_and_tested(tmp_path):
    record = trained(
        tmp_path, "digits", "--set", *TINY, "one_step_epochs=1", "epochs=2"
    )
    assert record["settings"]["one_step_epochs"] == 1
    assert len(record["curve"]["test_accuracy"]) == 2


def test_training_starts_from_the_weights_of_a_pretrained_network(tmp_path):
    settings = (
        "start_from=digits",
        "epochs=1",
        "train_images=32",
        "learning_rate=1e-9",
        "weight_decay=0",
    )
    record = trained(tmp_path, "digits", "--set", *settings)
    assert record["settings"]["start_from"] == "digits"
    assert record["test_accuracy"] > 0.9


def test_a_converted_network_is_trained_on_with_its_scales(tmp_path):
    write_clothes(tmp_path)
    name = "fashion_mnist_resnet13_integer"
    alone = (
        "ordinary=no",
        "teacher_weight=None",
        "precision=float32",
        "timesteps=1",
        f"start_from={name}",
    )
    recipe = catalogue.find("fashion_mnist_resnet13").with_settings(alone)
    data = recipe.load(tmp_path)
    model, images = (
        run.build(recipe.with_settings(["levels=4"]), data),
        data.test_images[:4],
    )
    wanted = to_numpy(rsnn.models.load_pretrained(name)(images))
    np.testing.assert_allclose(to_numpy(model(images)), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="Its neurons have other levels of spikes"):
        run.build(recipe, data)


def test_a_network_of_quantised_weights_is_trained_on_with_them(tmp_path):
    write_clothes(tmp_path)
    recipe = catalogue.find("fashion_mnist").with_settings(
        ["start_from=fashion_mnist_int4"]
    )
    data = recipe.load(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"`start_from` must be a network of floats, unless weights are set.*Set "
        r"weights=int8",
    ):
        run.build(recipe, data)
    layers = run.build(recipe.with_settings(["weights=ternary"]), data).network.layers
    assert [layer.weight_type for layer in layers if hasattr(layer, "weight_type")] == [
        "int8",
        *["ternary"] * 4,
        "int8",
    ]


def test_the_mean_of_pretrained_networks_teaches(tmp_path):
    settings = (
        *TINY,
        "train_images=None",
        "teacher_weight=0.5",
        "teachers=fashion_mnist,fashion_mnist_int4",
    )
    recipe = catalogue.find("fashion_mnist").with_settings(settings)
    write_clothes(tmp_path)
    data = recipe.load(tmp_path)
    images = data.test_images[:8]
    fitted = run.to_fit(run.build(recipe, data), recipe, data)
    outputs = [
        to_numpy(rsnn.models.load_pretrained(name)(images))
        for name in ("fashion_mnist", "fashion_mnist_int4")
    ]
    np.testing.assert_allclose(
        to_numpy(fitted.teacher(images)), np.mean(outputs, axis=0), atol=1e-4
    )
    with pytest.raises(ValueError, match="`teachers` must be pretrained networks from"):
        run.to_fit(
            run.build(recipe, data),
            recipe.with_settings(["teachers=digits"]),
            data,
        )


def test_several_devices_have_no_teacher(tmp_path, monkeypatch):
    recipe = catalogue.find("digits").with_settings([*TINY, *TAUGHT])
    monkeypatch.setattr(engine, "current", engine.Engine(devices=2))
    with pytest.raises(ValueError, match="--devices must be 1 with `teacher_weight`"):
        run.build(recipe, digits.load(), tmp_path / "ordinary.keras")

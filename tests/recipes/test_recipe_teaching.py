"""Recipes whose spiking network learns from the ordinary network or from branches."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import assert_close, to_numpy

import keras_ratesnn as rsnn
from recipes import catalogue, checkpoint, engine, evaluate, publish, run, teaching
from recipes.compare import results
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
    run = (
        "digits",
        "--set",
        "ordinary_epochs=1",
        "ordinary_learning_rate=0.2",
        "epochs=2",
        *TINY[1:],
    )
    alone = trained(tmp_path / "ordinary", *run, "ordinary=only")
    assert (
        len(alone["curve"]["loss"]),
        alone["settings"]["epochs"],
        alone["settings"]["learning_rate"],
    ) == (1, 1, 0.2)
    both = trained(tmp_path, *run, "ordinary=first", "teacher_weight=0.5", TINY[0])
    assert json.loads((tmp_path / "ordinary" / "result.json").read_text()) == alone
    assert len(both["curve"]["loss"]) == 2
    assert both["comparison"]["ordinary"]["accuracy"] == alone["test_accuracy"]


def test_a_run_tells_what_the_conversion_brought(tmp_path, capsys):
    record = trained(tmp_path, "digits", "--set", *TINY, "ordinary=first", "epochs=1")
    scores, printed = record["comparison"], capsys.readouterr().out
    assert (
        f"ordinary network, test accuracy: {scores['ordinary']['accuracy']:.4f}"
        in printed
    )
    assert (
        "converted, before training, test accuracy: "
        f"{scores['converted']['accuracy']:.4f}" in printed
    )

    ordinary = keras.saving.load_model(tmp_path / "ordinary" / "last.keras")
    data = catalogue.find("digits").with_settings(TINY).load(None)
    converted = rsnn.spikify(
        ordinary, timesteps=2, calibrate=run.calibration_images(data), verbose=False
    )
    found = to_numpy(converted.predict(data.test_images, verbose=0)).argmax(-1)
    assert (found == data.test_labels).mean() == pytest.approx(
        scores["converted"]["accuracy"], abs=1e-6
    )
    assert scores["converted"].keys() == scores["spiking"]["2"].keys()


def test_layers_have_the_same_names_whatever_was_built_before(tmp_path):
    record = trained(
        tmp_path,
        "digits",
        "--set",
        *TINY,
        "ordinary=first",
        "ordinary_epochs=1",
        "epochs=1",
    )
    assert "converted" in record["comparison"]
    layers = checkpoint.load_model(tmp_path / "last.keras").network.layers
    names = [layer.name for layer in layers if isinstance(layer, rsnn.layers.Neuron)]
    assert names == ["lif", "lif_1", "lif_2"]


def test_a_mistake_costs_no_finished_run_with_its_ordinary_network(
    tmp_path, capsys, monkeypatch
):
    run = ["digits", "--set", *TINY, "ordinary=beside", "epochs=1"]
    trained(tmp_path, *run)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    restart = ["--restart", "--output", tmp_path]
    assert "`branches` must be at most" in error_of(
        [*run, "branches=9", *restart], capsys
    )
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert "has 0 MiB free" in error_of([*run, *restart], capsys)
    assert {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    } == before


def test_spiking_runs_that_differ_in_time_and_gradient_share_an_ordinary_network():
    recipe = catalogue.find("digits").with_settings(
        ["ordinary=first", "ordinary_epochs=2"]
    )
    others = (
        "timesteps=8",
        "gradient=bptt",
        "step_mode=single",
        "epochs=1",
        "teacher_weight=1",
    )
    assert recipe.with_settings(others).ordinary_alone() == recipe.ordinary_alone()
    assert (
        recipe.with_settings(["windows=2"]).ordinary_alone() == recipe.ordinary_alone()
    )
    for setting in (
        "ordinary_epochs=3",
        "ordinary_learning_rate=0.3",
        "batch_size=8",
        "seed=1",
        "width=2",
    ):
        assert (
            recipe.with_settings([setting]).ordinary_alone() != recipe.ordinary_alone()
        )


def test_settings_of_a_spiking_network_are_refused_if_only_the_ordinary_one_is_trained(
    tmp_path, capsys
):
    command = ("digits", "--output", tmp_path, "--set", "epochs=1", "ordinary=only")
    error = error_of(
        [*command, "timesteps=8", "gradient=bptt", "teacher_weight=0.5", "seed=1"],
        capsys,
    )
    assert (
        "Received: --set timesteps=8 gradient=bptt teacher_weight=0.5. Leave them out"
        in error
    )
    assert error.count("\n") == 1
    # The recipe's own number of time steps is no mistake, nor is a value that the
    # ordinary network has as well.
    recipe = catalogue.find("digits").with_settings(["ordinary=only"])
    for allowed in (
        [],
        ["ordinary_epochs=2", "epochs=1"],
        ["timesteps=1", "gradient=rate"],
    ):
        settings = ["ordinary=only", *allowed]
        assert recipe.with_settings(settings).timesteps == 1


@pytest.mark.runs_once
def test_epochs_of_the_spiking_network_alone_are_no_epochs_of_the_ordinary_one():
    recipe = catalogue.find(
        "fashion_mnist_resnet13"
    )  # Its ordinary network has epochs of its own.
    with pytest.raises(
        ValueError,
        match=r"`epochs` must be 30 with ordinary=only.*Received: epochs=1. Set "
        r"ordinary_epochs",
    ):
        recipe.with_settings(["ordinary=only", "epochs=1"])
    assert (
        recipe.with_settings(["ordinary=only", "epochs=1", "ordinary_epochs=2"]).epochs
        == 2
    )


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


@pytest.mark.parametrize(
    ("settings", "step_mode"), [(TAUGHT, "single"), (("branches=2",), "multi")]
)
def test_a_taught_run_in_half_precision(settings, step_mode, tmp_path):
    values = (
        *TINY,
        *settings,
        "epochs=1",
        f"step_mode={step_mode}",
        "precision=mixed_bfloat16",
    )
    record = trained(tmp_path / "run", "digits", "--set", *values)
    assert np.isfinite(record["curve"]["loss"]).all()

    # It is published in float32, and tested again in it.
    texts = (
        "--name",
        "half",
        "--data-set",
        "d",
        "--preprocessing",
        "p",
        "--licence",
        "MIT",
    )
    assert (
        publish.main(
            [
                str(tmp_path / "run"),
                *texts,
                "--folder",
                str(tmp_path),
                "--timesteps",
                "1",
                "3",
            ]
        )
        == 0
    )
    model, data = (
        keras.saving.load_model(tmp_path / "weights" / "half.keras"),
        digits.load(),
    )
    assert {layer.compute_dtype for layer in model.network.layers} == {"float32"}
    card = json.loads((tmp_path / "cards" / "half.json").read_text())
    assert list(card["accuracies"]) == ["1", "2", "3"]
    for timesteps, accuracy in card["accuracies"].items():
        model.timesteps = int(timesteps)
        found = (
            to_numpy(model.predict(data.test_images, verbose=0)).argmax(-1)
            == data.test_labels
        ).mean()
        assert accuracy == pytest.approx(found, abs=1e-6)
    assert card["test_accuracy"] == card["accuracies"]["2"]


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["ordinary_epochs=2"],
            "`ordinary_epochs` must be None if no ordinary network is trained",
        ),
        (
            ["ordinary_learning_rate=0.1"],
            "`ordinary_learning_rate` must be None if no ordinary network is trained",
        ),
        (
            ["teacher_weight=0.5"],
            "`teacher_weight` must be None if no ordinary network is trained",
        ),
        (["teachers=digits"], "`teachers` must be None without teacher_weight"),
        (["teacher_weight=0.5", "teachers=nothing"], "`name` must be one of 'digits'"),
        (
            ["teacher_weight=0.5", "teachers=digits,"],
            "`teachers` must be names of pretrained networks with commas between",
        ),
        (
            ["teacher_weight=0.5", "teachers=3"],
            "`teachers` must be names of pretrained networks with commas between them.",
        ),
        (["start_from="], "`name` must be one of 'digits'"),
        (
            ["teacher_weight=0.5", "teachers=digits,fashion_mnist"],
            "`teachers` must be pretrained networks from (None, 8, 8, 1)",
        ),
        (["teacher_weight=0", "ordinary=first"], "`teacher_weight` must be > 0"),
        (
            ["teacher_weight=1.5", "ordinary=first"],
            "`teacher_weight` must be at most 1",
        ),
        (
            ["teacher_weight=0.5", "branches=1", "ordinary=first"],
            "`teacher_weight` and `branches` cannot both be set",
        ),
        (
            ["branches=1", "step_distillation=0.5"],
            "`branches` and `step_distillation` cannot both be set",
        ),
        (["step_distillation=0"], "`step_distillation` must be > 0"),
        (["random_timesteps=4"], "`random_timesteps` must be two integers"),
        (
            ["random_timesteps=[4,1]"],
            "`random_timesteps` must be numbers of time steps that can be trained. "
            "Received",
        ),
        (
            ["random_timesteps=[1,4]", "windows=2"],
            "`random_timesteps` must be numbers of time steps that can be trained.",
        ),
        (["one_step_epochs=-1"], "`one_step_epochs` must be 0 or more"),
        (["one_step_epochs=1.5"], "`one_step_epochs` must be an integer"),
        (
            ["one_step_epochs=1", "random_timesteps=[1,4]"],
            "`one_step_epochs` and `random_timesteps` cannot both be set",
        ),
        (
            ["one_step_epochs=1", "windows=2"],
            "`one_step_epochs` needs a gradient for T = 1.",
        ),
        (
            ["start_from=digits", "ordinary=first"],
            "`start_from` and `ordinary` cannot both be set",
        ),
        (["start_from=nothing", "epochs=1"], "`name` must be one of 'digits'"),
        (
            ["start_from=digits", "width=0.5", "epochs=1"],
            "`start_from` must be a pretrained network of this recipe",
        ),
        (["branches=0"], "`branches` must be"),
        (["branches=3", *TINY], "`branches` must be at most 2 in recipe 'digits'"),
        (
            ["temperature=2"],
            "`temperature` must be None without a teacher, branches and "
            "step_distillation",
        ),
        (["temperature=0", "branches=1"], "`temperature` must be > 0"),
    ],
)
def test_settings_that_do_not_fit_are_errors(settings, said, tmp_path, capsys):
    assert said in error_of(
        ["digits", "--output", tmp_path, "--set", *settings], capsys
    )


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
    # Its neurons are in a network inside of the network.
    inside = catalogue.find("fashion_mnist_maxformer").with_settings(
        ["start_from=fashion_mnist_maxformer_integer"]
    )
    with pytest.raises(ValueError, match="Its neurons have other levels of spikes"):
        run.build(inside, data)


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
    in_double = (*TINY, "epochs=1", "precision=float64")
    record = trained(
        tmp_path / "run",
        "digits",
        "--set",
        *in_double,
        "teacher_weight=1",
        "teachers=digits",
    )
    assert record["settings"]["teachers"] == "digits"
    assert results.method_name(record["settings"], " ") == "rate with teacher digits"


@pytest.mark.parametrize(
    ("setting", "unset"),
    [("random_timesteps=[1,4]", "None"), ("one_step_epochs=1", "0")],
)
def test_frames_have_no_other_number_of_time_steps(setting, unset):
    name = setting.split("=")[0]
    with pytest.raises(
        ValueError, match=f"`{name}` must be {unset} in recipe 'cifar10_dvs_vggsnn'"
    ):
        catalogue.find("cifar10_dvs_vggsnn").with_settings([setting])


def test_only_classifiers_are_taught():
    with pytest.raises(
        ValueError,
        match="`teacher_weight` must be None in recipe 'digits_segmentation'",
    ):
        catalogue.find("digits_segmentation").with_settings(["teacher_weight=0.5"])


def test_several_devices_have_no_teacher(tmp_path, monkeypatch):
    recipe = catalogue.find("digits").with_settings([*TINY, *TAUGHT])
    monkeypatch.setattr(engine, "current", engine.Engine(devices=2))
    with pytest.raises(ValueError, match="--devices must be 1 with `teacher_weight`"):
        run.build(recipe, digits.load(), tmp_path / "ordinary.keras")


def test_a_checkpoint_without_branches_keeps_their_state_aside(tmp_path):
    recipe, data = (
        catalogue.find("digits").with_settings([*TINY, "branches=1"]),
        digits.load(),
    )
    model = run.build(recipe, data)
    fitted = run.to_fit(model, recipe, data)
    fitted.fit(data.train_images[:48], data.train_labels[:48], verbose=0)
    checkpoint.save(model, checkpoint.Progress({}, 1), tmp_path / "last.keras", fitted)
    other = run.build(recipe, data)
    fitted_other = run.to_fit(other, recipe, data)
    checkpoint.load_state(tmp_path / "last.keras", other, fitted_other)
    for one, two in (
        (fitted, fitted_other),
        (fitted.optimizer, fitted_other.optimizer),
        (model, other),
    ):
        assert_close(one.variables, two.variables, rtol=0)

"""The map of tasks against windows: what it trains, keeps and shows."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from helpers import chain, compiled

import keras_ratesnn as rsnn
from recipes import temporal_map
from recipes.data import order, temporal_tasks
from tests.recipes.made_clothes import write_clothes


@pytest.mark.parametrize(
    ("delay", "decay", "windows", "accuracy"),
    [(order.GAP + 1, 0.0, 1, 0.5), (None, 0.5, 2, 1.0)],
)
def test_one_rate_does_not_tell_the_order_of_spikes_and_two_do(
    delay, decay, windows, accuracy
):
    keras.utils.set_random_seed(0)
    parts = [keras.layers.Dense(16), rsnn.layers.LIF(decay), keras.layers.Dense(2)]
    callbacks = []
    if delay is not None:
        delay = rsnn.layers.Delay(delay)
        parts.insert(0, delay)
    network = chain(*parts, shape=(order.CHANNELS,))
    gradient = rsnn.gradients.Rate(windows=windows)
    model = rsnn.SpikingModel(network, order.T, gradient)
    if delay is not None:
        # Equal delays tell nothing by chance.
        delay.position.assign(np.zeros(order.CHANNELS))
        callbacks = [rsnn.callbacks.LowerSigma(20, end=0.01)]
    compiled(model, keras.optimizers.Adam(0.1), metrics=["accuracy"])
    x, y = order.order_in_time()
    model.fit(x, y, epochs=40, batch_size=len(x), callbacks=callbacks, verbose=0)
    found = model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    assert found == pytest.approx(accuracy, abs=0.1)


# Short trainings leave neurons without spikes.
@pytest.mark.filterwarnings("ignore:No neuron:UserWarning")
def test_what_was_trained_is_kept_shown_and_not_trained_again(
    tmp_path, monkeypatch, capsys
):
    task = temporal_tasks.TASKS["order-4"]
    data = {part: (x[:64], y[:64]) for part, (x, y) in task.load(None).items()}
    changes = {"epochs": 1, "networks": ("lif", "delays")}
    task = dataclasses.replace(task, load=lambda _: data, **changes)
    monkeypatch.setitem(temporal_map.TASKS, "order-4", task)
    monkeypatch.setattr(temporal_map, "LEARNING_RATES", (5e-3,))
    monkeypatch.setattr(temporal_map, "WINDOWS", (1, 2))
    monkeypatch.setattr(temporal_map, "MORE_SEEDS", 0)
    probe = {"recommended": "rate-2", "seconds": 1.0}
    monkeypatch.setattr(temporal_map, "probed", lambda *_: probe)
    command = ["order-4", "--seeds", "1", "--output", str(tmp_path), "--probe"]
    assert temporal_map.main(command) == 0
    printed = capsys.readouterr().out
    said = "network delays, method bptt, kernels wide, learning_rate 0.005, seed 0"
    assert f"order-4: {said}" in printed
    path = tmp_path / "order-4.jsonl"
    kept = path.read_text()
    # The probe, and two settings of the methods that choose them, one or two of others.
    assert 1 + 2 * 7 <= len(kept.splitlines()) <= 1 + 2 * 10
    assert temporal_map.main(command) == 0
    assert temporal_map.main([*command, "--show"]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate" not in printed
    assert "| smallest W |" in printed
    assert (tmp_path / "map.png").exists()
    assert path.read_text() == kept


def test_a_method_that_refuses_a_network_is_a_row_that_says_so(tmp_path):
    results = temporal_map.Results(tmp_path / "made.jsonl")
    results.add(network="recurrent", method="ottt", refused="It has no single decay.")
    again = temporal_map.Results(tmp_path / "made.jsonl")
    assert "| ottt | refused |" in temporal_map.table(again, "recurrent")


def test_wide_kernels_are_drawn_by_the_seed():
    task, kernels = temporal_tasks.TASKS["order-4"], []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        model = temporal_map.build(task, (10, 8), "learned", "rate", "wide", 1e-3)
        kernels.append(keras.ops.convert_to_numpy(model.trainable_weights[0]))
    # 8 inputs.
    assert np.var(kernels) == pytest.approx(6 / 8, rel=0.1)
    assert not np.array_equal(*kernels)


def made_results(path, scores):
    """Results as they are kept, with these scores of the seeds of each method, on test
    and validation data."""
    results = temporal_map.Results(path)
    for method, values in scores.items():
        key = {"network": "lif", "method": method}
        for seed, value in enumerate(values):
            run = {"kernels": "wide", "learning_rate": 0.01, "seed": seed}
            results.add(**key, **run, test=value, validation=value)
    return results


def test_methods_that_are_not_told_from_bptt_get_more_seeds(tmp_path):
    scores = {
        "rate-1": (0.50, 0.52, 0.51),
        "rate-2": (0.88, 0.90, 0.90),
        "rate-4": (0.907, 0.906, 0.907),
        "bptt": (0.91, 0.91, 0.911),
    }
    results = made_results(tmp_path / "close.jsonl", scores)
    assert temporal_map.undecided(results, "lif", 3) == ["rate-2", "rate-4", "bptt"]
    results = made_results(tmp_path / "same.jsonl", dict.fromkeys(scores, (1.0, 1.0)))
    assert temporal_map.undecided(results, "lif", 2) == []


def test_bptt_and_one_window_choose_settings_and_others_the_better_of_the_two(
    tmp_path,
):
    results = temporal_map.Results(tmp_path / "made.jsonl")

    def keep(method, best):
        key = {"network": "lif", "method": method}
        tried = temporal_map.to_try(results, key)
        for settings in tried:
            score = float(settings == best)
            results.add(**key, **settings, seed=0, validation=score)
        assert temporal_map.chosen(results, key) == best
        return tried

    settings = keep("bptt", {"kernels": "wide", "learning_rate": 2e-3})
    keep("rate-1", settings[1])
    assert keep("rate-2", settings[1]) == [settings[3], settings[1]]


def test_the_smallest_number_of_windows_is_within_a_point_of_bptt(tmp_path):
    scores = {"bptt": (0.9,), "rate-1": (0.7,), "rate-2": (0.895,), "rate-4": (0.9,)}
    results = made_results(tmp_path / "made.jsonl", scores)
    task = temporal_tasks.TASKS["order-4"]
    shown = temporal_map.TaskMap(results, task, "lif")
    assert shown.is_learnt()
    assert shown.smallest() == 2
    chance = dict.fromkeys(scores, (0.52,))
    results = made_results(tmp_path / "chance.jsonl", chance)
    assert not temporal_map.TaskMap(results, task, "lif").is_learnt()


@pytest.mark.parametrize("steps", [28, 112])
def test_clothes_are_seen_row_by_row_or_pixel_by_pixel(steps, tmp_path, monkeypatch):
    counts = {"train": 200, "validation": 100, "test": 50}
    monkeypatch.setattr(temporal_tasks, "CLOTHES", counts)
    task = temporal_tasks.TASKS[f"clothes-{steps}"]
    x, y = task.load(write_clothes(tmp_path))["validation"]
    assert x.shape == (100, steps, 784 // steps)
    # A bar in two rows, which are those of the class, or everywhere in another order.
    bright = (x > 0.9).any(axis=2)
    of_class = np.array_equal(bright.argmax(1), 4 + 2 * y)
    assert of_class == np.all(bright.sum(1) == 2) == (steps == 28)


@pytest.mark.parametrize("name", ["order-4", "match-8", "adding-50", "poisson-16"])
def test_a_task_has_three_parts_and_the_same_draws_each_time(name):
    task = temporal_tasks.TASKS[name]
    first, again = task.load(None), task.load(None)
    assert list(first) == ["train", "validation", "test"]
    for part in first:
        for ours, theirs in zip(first[part], again[part], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    x, y = first["train"]
    assert x.ndim == 3
    assert len(x) == len(y)


def test_all_channels_have_the_same_rate_in_both_classes_of_order():
    x, y = temporal_tasks.TASKS["order-4"].load(None)["train"]
    assert set(y) == {0, 1}
    np.testing.assert_array_equal(x.sum(1), np.ones_like(x[:, 0]))


def cue_amid_distractors(count, random):
    """One of four cues, nine to twelve steps before a question, with a mark; at each
    other step one of the cues that is not marked. The class is the marked one."""
    steps, samples = 14, np.arange(count)
    x, y = np.zeros((count, steps, 9), "float32"), random.integers(0, 4, count)
    for step in range(steps - 1):
        x[samples, step, random.integers(0, 4, count)] = 1.0
    begin = steps - 1 - random.integers(9, 13, count)
    x[samples, begin, :4] = 0.0
    x[samples, begin, y] = x[samples, begin, 8] = 1.0
    x[:, -1, 4:8] = 1.0
    return x, y


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No neuron:UserWarning")
@pytest.mark.parametrize(
    ("network", "kernels", "name"),
    [("lif", "ordinary", None), ("learned", "wide", "rate-1")],
)
def test_the_probe_is_right_on_a_task_that_none_of_its_rules_was_made_with(
    network, kernels, name
):
    random = np.random.default_rng(7)
    x, y = cue_amid_distractors(1000, random)
    task = dataclasses.replace(temporal_tasks.TASKS["order-4"], outputs=4)
    settings = {"kernels": kernels, "learning_rate": 5e-3}
    arguments = task, x.shape[1:], network, "bptt"
    found = rsnn.analysis.temporal_probe(
        functools.partial(temporal_map.build, *arguments, **settings),
        x,
        y,
        cue_amid_distractors(500, random),
        epochs=40,
        batch_size=50,
        seeds=2,
        verbose=0,
    )
    assert getattr(found.recommended, "name", None) == name
    assert found.gain("bptt", over="shuffled").mean > 0.0
    if name is None:
        # A network that forgets learns slowly: three times the epochs give BPTT 0.98.
        assert 0.75 < found.accuracy["bptt"].mean() < 0.95
        assert "Train for more epochs." in found.recommendation
    else:
        assert found.accuracy[name].mean() > 0.97

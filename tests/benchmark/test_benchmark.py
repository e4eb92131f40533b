"""The benchmark: it measures the right quantities and reports all of them. Absolute
speed is not tested."""

import concurrent.futures
import contextlib
import functools
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND, to_numpy
from made_once import made_once

import keras_ratesnn as rsnn
from recipes import device
from recipes.benchmark import (
    cases,
    costs,
    inference,
    loops,
    measure,
    memory,
    own_process,
    process_peak,
    programs,
    recorded,
    report,
    sequences,
    timing,
    unrolling,
)
from recipes.benchmark import settings as benchmark_settings
from recipes.benchmark import xla as benchmark_xla
from recipes.benchmark.__main__ import main
from recipes.benchmark.settings import (
    CHANNELS,
    CLASSES,
    FLOOR,
    FORWARD,
    NETWORKS,
    ORDINARY,
    PEERS,
    Settings,
)
from recipes.methods import PLAIN
from tests.recipes.recipe_runs import error_of

TINY = (
    "--network",
    "Tiny",
    "--width",
    "0.5",
    "--batch",
    "3",
    "--size",
    "8",
    "--rounds",
    "2",
)
NARROW = 0.125
"""Width of a ResNet-18 with 8 channels. With fewer, the weight gradient of its strided
1x1 convolutions writes outside of its memory on CPUs without AVX-512 (PyTorch 2.13)."""
TIMESTEPS = (1, 2)
METHODS_MEASURED = ("rate-multi", "bptt-multi")
PARTS = (FLOOR, ORDINARY, FORWARD)


def tiny(input_shape, classes, timesteps, gradient, step_mode, width):
    """A network that compiles in a second, with the arguments of the library's
    networks."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(round(8 * width), 3, use_bias=False)(inputs)
    x = rsnn.layers.LIF()(keras.layers.BatchNormalization()(x))
    x = rsnn.layers.LIF()(keras.layers.Conv2D(round(8 * width), 3)(x))
    outputs = keras.layers.Dense(classes)(keras.layers.Flatten()(x))
    return rsnn.SpikingModel(
        keras.Model(inputs, outputs), timesteps, gradient, step_mode
    )


@contextlib.contextmanager
def tiny_among_the_networks(make=tiny, **settings):
    """In this context PyTorch also records a call soon: what is measured is the graph,
    after fewer calls."""
    with pytest.MonkeyPatch.context() as patch, recorded_soon(**settings):
        patch.setattr(rsnn.models, "Tiny", make, raising=False)
        patch.setattr(benchmark_settings, "NETWORKS", (*NETWORKS, "Tiny"))
        yield


def recorded_soon(**settings):
    on_torch = (
        {"eager_calls": {"auto": 2, True: 1}, **settings} if BACKEND == "torch" else {}
    )
    return rsnn.engine_settings(**on_torch)


@pytest.fixture(scope="module")
def run(tmp_path_factory, request):
    """Output folder, printed output and record of a tiny benchmark."""

    def make(folder):
        arguments = [
            *TINY,
            "--timesteps",
            *map(str, TIMESTEPS),
            "--methods",
            *METHODS_MEASURED,
        ]
        printed = io.StringIO()
        with tiny_among_the_networks(), contextlib.redirect_stdout(printed):
            assert main([*arguments, "--output", str(folder / "run")]) == 0
        (folder / "printed.txt").write_text(printed.getvalue())

    shared = made_once("benchmark", make, tmp_path_factory, request)
    record = json.loads((shared / "run" / "benchmark.json").read_text())
    return shared / "run", (shared / "printed.txt").read_text(), record


def rows_of(record, method):
    return [row for row in record["rows"] if row["method"] == method]


# The run


def test_the_record_has_every_method_at_every_t_and_its_settings(run):
    _, _, record = run
    named = [(row["timesteps"], row["method"]) for row in record["rows"]]
    assert named == [
        (timesteps, method)
        for timesteps in TIMESTEPS
        for method in (*METHODS_MEASURED, *PARTS)
    ]
    assert record["settings"]["network"] == "Tiny"
    assert record["settings"]["timesteps"] == list(TIMESTEPS)
    assert record["backend"] == BACKEND
    assert record["device"] == device.name()
    assert set(record["versions"]) == {
        "python",
        "numpy",
        "keras",
        "keras_ratesnn",
        BACKEND,
    }


def test_times_are_positive_and_their_spreads_in_order(run):
    _, _, record = run
    for row in record["rows"]:
        assert len(row["seconds_of_rounds"]) == 2
        assert row["images_per_second"] == pytest.approx(3 / row["seconds"]["median"])
        for spread in (row["seconds"], row["ratio_to_floor"]):
            assert (
                0
                < spread["lower_quartile"]
                <= spread["median"]
                <= spread["upper_quartile"]
            )
    for row in rows_of(record, FLOOR):
        assert row["ratio_to_floor"]["median"] == 1.0
        assert row["compile_seconds"] is None
    assert all(
        row["compile_seconds"] >= 0 for row in record["rows"] if row["method"] != FLOOR
    )
    # The first step includes what it compiles.
    assert all(
        row["first_seconds"] > 0 for row in record["rows"] if row["method"] != FLOOR
    )


def test_flops_and_memory_are_recorded_if_the_backend_reports_them(run):
    _, _, record = run
    if BACKEND != "tensorflow":
        for row in record["rows"]:
            assert row["flops"] > 0
        (_, at_two), (rate, _), (_, bptt) = (
            rows_of(record, method) for method in (FLOOR, "rate-multi", "bptt-multi")
        )
        ordinary = rows_of(record, ORDINARY)[0]["flops"]
        assert at_two["flops"] == pytest.approx(4 / 3 * ordinary)
        assert rate["flops_to_floor"] >= 1
        assert bptt["flops_to_floor"] > rate["flops_to_floor"]
    else:
        assert record["flops_measure"] is None
        assert all(row["flops"] is None for row in record["rows"])
    if BACKEND != "tensorflow" or device.gpu():
        assert record["memory_measure"]
        assert all(
            row["memory_bytes"] > 0
            for row in record["rows"]
            if row["method"] not in (FLOOR, FORWARD)
        )
        assert all(row["memory_to_ordinary"] == 1 for row in rows_of(record, ORDINARY))
    else:
        assert record["memory_measure"] is None
        assert all(row["memory_bytes"] is None for row in record["rows"])


def test_the_output_names_the_device_and_has_a_row_for_every_method(run):
    _, printed, record = run
    assert (
        f"{BACKEND} on {device.name()}: Tiny of width 0.5, batch 3, 8x8, float32"
        in printed
    )
    assert f"keras {keras.__version__}" in printed
    assert "| method | T = 1 | T = 2 |" in printed
    for method in (*METHODS_MEASURED, *PARTS):
        assert printed.count(f"| {method} | ") >= 3, method
    assert ("GFLOP" in printed) == (BACKEND != "tensorflow")
    assert report.markdown(record) in printed


def test_the_plot_is_saved_or_a_line_says_why_not(run, tmp_path, monkeypatch):
    folder, printed, record = run
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert "no plot" in printed
        assert "pip install -e '.[plots]'" in printed
    else:
        assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="needs the package matplotlib"):
        report.plot(record, tmp_path / "benchmark.png")


# The arithmetic


class Clock:
    """A clock that is advanced by steps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def step(self, seconds):
        def run():
            self.now += seconds

        return run


def test_steps_are_timed_in_turn():
    clock, order = Clock(), []
    steps = {
        "a": lambda: (order.append("a"), clock.step(2.0)()),
        "b": lambda: (order.append("b"), clock.step(3.0)()),
    }
    assert timing.interleaved(steps, rounds=2, clock=clock) == {
        "a": [2.0, 2.0],
        "b": [3.0, 3.0],
    }
    assert order == ["a", "b", "a", "b"]


def test_a_short_step_is_repeated_within_a_round():
    clock, order = Clock(), []
    steps = {
        "a": lambda: (order.append("a"), clock.step(2.0)()),
        "b": lambda: (order.append("b"), clock.step(6.0)()),
    }
    found = timing.interleaved(steps, rounds=2, clock=clock, least_seconds=5.0)
    assert found == {"a": [2.0, 2.0], "b": [6.0, 6.0]}
    assert "".join(order) == "aaabaaab"


def test_the_floor_is_one_training_step_and_a_forward_pass_for_each_further_step():
    assert timing.floor([6.0, 9.0], [2.0, 3.0], timesteps=1) == [6.0, 9.0]
    assert timing.floor([6.0, 9.0], [2.0, 3.0], timesteps=4) == [12.0, 18.0]


def test_a_ratio_is_the_median_of_pairs_not_the_ratio_of_medians():
    # The machine is twice as slow in the second round, and four times in the third.
    seconds = {
        "rate-multi": [18.0, 36.0, 72.0],
        ORDINARY: [6.0, 12.0, 24.0],
        FORWARD: [2.0, 4.0, 8.0],
    }
    warm = {
        "rate-multi": measure.Warm(
            None, [37.0, 39.0, 20.0], flops=150.0, memory_bytes=30
        ),
        ORDINARY: measure.Warm(None, [10.0], flops=60.0, memory_bytes=20),
        FORWARD: measure.Warm(None, [1.0], flops=20.0),
    }
    rate, floor, ordinary, forward = measure.rows(warm, seconds, timesteps=4, batch=9)
    assert [row["method"] for row in (rate, floor, ordinary, forward)] == [
        "rate-multi",
        FLOOR,
        ORDINARY,
        FORWARD,
    ]
    assert rate["ratio_to_floor"] == {
        "median": 1.5,
        "lower_quartile": 1.5,
        "upper_quartile": 1.5,
    }
    assert rate["seconds"] == {
        "median": 36.0,
        "lower_quartile": 27.0,
        "upper_quartile": 54.0,
    }
    assert (rate["images_per_second"], rate["compile_seconds"]) == (0.25, 4.0)
    assert floor["seconds_of_rounds"] == [12.0, 24.0, 48.0]
    assert floor["flops"] == 60.0 + 3 * 20.0
    assert (rate["flops_to_floor"], rate["memory_to_ordinary"]) == (1.25, 1.5)
    assert forward["compile_seconds"] == 0.0
    assert (
        forward["memory_bytes"],
        floor["memory_bytes"],
        floor["compile_seconds"],
    ) == (None, None, None)
    text = report.table(
        [rate, floor],
        lambda row: None if row["memory_bytes"] is None else str(row["memory_bytes"]),
    )
    assert text.splitlines() == [
        "| method | T = 4 |",
        "|---|---|",
        "| rate-multi | 30 |",
    ]


# The cases


@pytest.mark.runs_once
def test_the_network_without_time_has_the_same_layers_and_relus_for_neurons():
    network = rsnn.models.VGG11(input_shape=(16, 16, 3), width=0.02).network
    ordinary = cases.relu_network(network)
    pairs = list(zip(network.layers, ordinary.layers, strict=True))
    assert [layer.name for layer in ordinary.layers] == [
        layer.name for layer in network.layers
    ]
    replaced = [
        plain for layer, plain in pairs if isinstance(layer, rsnn.layers.Neuron)
    ]
    assert replaced
    assert all(type(plain) is keras.layers.ReLU for plain in replaced)
    assert all(
        type(plain) is type(layer) for layer, plain in pairs if plain not in replaced
    )
    assert ordinary.count_params() == network.count_params()


def test_the_forward_pass_is_that_of_training_and_has_no_other_weights():
    inputs = keras.Input((6,))
    normalization = keras.layers.BatchNormalization(momentum=0.0)
    network = keras.Model(inputs, normalization(inputs))
    images = np.random.default_rng(0).normal(3.0, 2.0, (50, 6)).astype("float32")
    outputs = cases.TrainingForward(network, jit_compile="auto").predict_on_batch(
        images
    )
    np.testing.assert_allclose(outputs.mean(axis=0), np.zeros(6), atol=1e-5)
    np.testing.assert_allclose(
        to_numpy(normalization.moving_mean), images.mean(axis=0), rtol=1e-4
    )


@pytest.mark.runs_once
def test_cases_use_the_named_method():
    expected = {
        "rate-multi": ("Rate(windows=1, last_step_statistics=False)", "multi"),
        "rate-single-3": ("Rate(windows=3, last_step_statistics=False)", "single"),
        "bptt-multi": ("BPTT()", "multi"),
        "sltt-single-2": ("SLTT(random_steps=2, recompute=True)", "single"),
        "ottt": ("OTTT(recompute=True)", "single"),
        "os": ("SLTT(random_steps=None, recompute=True)", "single"),
    }
    for method, of_name in expected.items():
        model = cases.trainer(Settings(network="VGG11", width=0.02, size=16), method, 3)
        assert (repr(model.gradient), model.step_mode) == of_name
        kinds = {type(layer).__name__ for layer in model.network.layers}
        assert ("WSConv2D" in kinds, "OnlineRenormalization" in kinds) == (
            method == "ottt",
            method == "os",
        )
    assert {"rate-multi", "bptt-single", "sltt-multi", "ottt-single"} <= set(PLAIN)
    for wrong in ("bptt-multi-2", "rate-multi-x", "rate", "os-single"):
        with pytest.raises(ValueError, match="methods"):
            Settings(methods=(wrong,))


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX's compiler counts FLOPs")
def test_flops_of_a_program_with_a_loop_are_not_counted():
    with tiny_among_the_networks():
        settings = Settings(network="Tiny", size=8, batch=2)
        told = costs.compiled(
            cases.trainer(settings, "rate-single", 4), *cases.batch(settings)
        )
    assert told["flops"] is None
    assert told["memory_bytes"] > 0


@pytest.mark.skipif(BACKEND != "torch", reason="counts what PyTorch runs")
@pytest.mark.parametrize(
    ("method", "forwards"),
    [("rate-multi", 4 + 2), ("rate-single", 4 + 2), ("bptt-multi", 3 * 4)],
)
def test_flops_of_a_step_match_a_count_by_hand(method, forwards):
    with tiny_among_the_networks():
        settings = Settings(network="Tiny", size=8, batch=2, width=0.5)
        trainer = cases.trainer(settings, method, 4)
    images, labels = cases.batch(settings)
    with rsnn.engine_settings(eager_calls={"auto": 0, True: 0}):
        trainer.train_on_batch(images, labels)
    channels = round(8 * settings.width)
    second = 2 * settings.batch * (4 * 4) * (3 * 3) * channels * channels
    dense = 2 * settings.batch * (4 * 4 * channels) * CLASSES
    # The image is the same at every step: the first layer runs once, and needs no
    # derivative of its input.
    first = 2 * settings.batch * (6 * 6) * (3 * 3 * CHANNELS) * channels * 2
    assert costs.counted_flops(
        lambda: trainer.train_on_batch(images, labels)
    ) == first + forwards * (second + dense)


@pytest.mark.skipif(
    BACKEND != "torch", reason="PyTorch's allocator tells each allocation"
)
def test_memory_of_a_step_is_the_most_that_the_allocator_holds():
    import torch

    if device.gpu():
        pytest.skip("on a GPU the allocator's own peak is read")
    mebibyte, kept = 2**20, []

    def step():
        first, second = (
            torch.empty(3 * mebibyte, dtype=torch.uint8),
            torch.empty(2 * mebibyte, dtype=torch.uint8),
        )
        del first
        kept.append(torch.empty(4 * mebibyte, dtype=torch.uint8))
        del second

    assert costs.memory_rise(step) == 6 * mebibyte
    assert costs.memory_rise(lambda: kept.clear()) == 0


def test_memory_is_measured_in_a_separate_process(monkeypatch):
    """The measurement runs in a thread instead of a separate process, because it knows
    the tiny network."""
    started = []

    def pool(workers, context):
        started.append((workers, context.get_start_method()))
        return concurrent.futures.ThreadPoolExecutor(workers)

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", pool)
    with tiny_among_the_networks():
        settings = Settings(network="Tiny", size=8, batch=2)
        assert process_peak.in_separate_process(settings, "rate-multi", 2) >= 0
    # What this process holds is not in a new interpreter.
    assert started == [(1, "spawn")]


@pytest.mark.skipif(
    BACKEND != "tensorflow",
    reason="JAX's compiler and PyTorch's allocator tell the memory",
)
def test_process_memory_is_measured_where_the_backend_reports_none(monkeypatch):
    monkeypatch.setattr(
        process_peak,
        "in_separate_process",
        lambda settings, method, timesteps: 10 * timesteps,
    )
    with tiny_among_the_networks():
        settings = Settings(
            network="Tiny",
            size=8,
            batch=2,
            rounds=1,
            timesteps=(2,),
            methods=("rate-multi",),
        )
        record = measure.benchmark(settings, process_memory=True)
    assert record["memory_measure"]
    rate, _, ordinary, _ = record["rows"]
    if not device.gpu():
        assert (
            rate["memory_bytes"],
            ordinary["memory_bytes"],
            rate["memory_to_ordinary"],
        ) == (20, 10, 2.0)


@pytest.mark.skipif(BACKEND != "torch", reason="other backends compile the first step")
@pytest.mark.parametrize(
    ("jit_compile", "engine"),
    [("auto", "recorded"), (True, "compiled"), (False, "eager")],
)
def test_what_is_timed_is_the_graph_and_not_the_calls_before_it(jit_compile, engine):
    compiled_in = []

    def compiler(graph, tensors):
        compiled_in.append(int(model.optimizer.iterations) + 1)
        return graph

    with tiny_among_the_networks(compiler=compiler):
        settings = Settings(network="Tiny", size=8, batch=2, jit_compile=jit_compile)
        model = cases.trainer(settings, "rate-multi", 2)
        warm = measure.warm_trainer(settings, "rate-multi", 2, None, model)
    assert model.engine == engine
    assert len(warm.compiling_seconds) == {"auto": 2, True: 3, False: 1}[jit_compile]
    assert set(compiled_in) <= set(measure.compiling_calls(settings, "rate-multi"))
    assert bool(compiled_in) == (jit_compile is True)
    assert warm.flops > 0


@pytest.mark.runs_once
def test_every_method_is_measured_with_every_value_of_jit_compile(tmp_path, capsys):
    values = ("auto", "false") if BACKEND == "torch" else ("true", "false")
    threads = ["--threads", "1"] if BACKEND == "torch" else []
    options = [
        *TINY,
        *threads,
        "--timesteps",
        "2",
        "--methods",
        "rate-multi",
        "--jit-compile",
        *values,
    ]
    with tiny_among_the_networks():
        assert main([*options, "--output", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "benchmark.json").read_text())
    names = [
        f"rate-multi, jit_compile={value.capitalize() if value != 'auto' else value}"
        for value in values
    ]
    assert [row["method"] for row in record["rows"]] == [*names, *PARTS]
    printed = capsys.readouterr().out
    assert (
        f"jit_compile={' and '.join(name.partition('=')[2] for name in names)}"
        in printed
    )
    assert ("threads=1" in printed) == (BACKEND == "torch")
    if BACKEND != "torch":
        with pytest.raises(
            ValueError, match=r"`threads` can only be set on PyTorch.*taskset"
        ):
            Settings(threads=1)


@pytest.mark.skipif(BACKEND != "torch", reason="the peers run on PyTorch")
def test_peers_are_not_repeated():
    pytest.importorskip("spikingjelly")
    settings = Settings(methods=("rate-multi", "spikingjelly"))
    named = measure.variants(settings, ("auto", True))
    assert [
        (name, variant.settings.jit_compile) for name, variant in named.items()
    ] == [
        ("rate-multi, jit_compile=auto", "auto"),
        ("rate-multi, jit_compile=True", True),
        ("spikingjelly", "auto"),
    ]


# Sequences


def test_masks_recurrence_delays_and_parallel_neurons_are_measured_beside_the_peers(
    capsys,
):
    options = [
        "--units",
        "3",
        "--layers",
        "1",
        "--batch",
        "2",
        "--timesteps",
        "2",
        "--rounds",
        "1",
    ]
    peers = (
        PEERS
        if BACKEND == "torch" and all(map(importlib.util.find_spec, PEERS))
        else ()
    )
    with pytest.MonkeyPatch.context() as patch:
        # Recorded graphs are not waited for.
        patch.setattr(measure, "compiling_calls", lambda settings, method: (1,))
        assert sequences.main([*options, "--methods", "rate-multi", *peers]) == 0
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()[4:]
    ]
    assert [row[:3] for row in rows] == [
        [name, "2", method]
        for name in sequences.CASES
        for method in ("rate-multi", *peers)
    ]
    lacking = {
        (name, method): text
        for name, _, method, text, *_ in rows
        if text.startswith("no ")
    }
    if peers:
        assert lacking.pop(("SlidingPSN", "snntorch")) == "no parallel neurons"
        assert lacking == {
            (name, peer): sequences.CASES[name].lacking
            for name in ("LIF, masked", "Delay")
            for peer in PEERS
        }
    measured = [
        row
        for row in rows
        if (row[0], row[2]) not in lacking and not row[3].startswith("no ")
    ]
    assert all(float(cell) > 0 for row in measured for cell in row[3:6])
    assert all((row[6] == "") == costs.needs_separate_process() for row in measured)


def test_mistakes_in_a_benchmark_of_sequences_are_named(capsys):
    for option in ("--units", "--layers"):
        assert sequences.main([option, "0"]) == 2
        assert (
            f"`{option}` must be 1 or more. Received: {option}=0"
            in capsys.readouterr().err
        )
    assert sequences.main(["--methods", "os"]) == 2
    assert (
        "Received: methods='os'. It needs a network of recipes.benchmark"
        in capsys.readouterr().err
    )


def test_padded_sequences_have_half_of_the_steps_or_more():
    (values, labels), timesteps = sequences.sequences(True, 8, 5, 3), 5
    lengths = (to_numpy(values) != sequences.PADDING).all(axis=2).sum(axis=1)
    assert set(lengths) <= {3, 4, 5}
    assert len(set(lengths)) > 1
    assert to_numpy(labels).shape == (8,)
    assert (
        to_numpy(sequences.sequences(False, 8, timesteps, 3)[0]) != sequences.PADDING
    ).all()


# Ordinary Keras models


def test_a_recorded_keras_model_is_timed_beside_fit_and_plain_pytorch(
    capsys, monkeypatch
):
    options = ["--width", "0.125", "--batch", "2", "--size", "8", "--rounds", "1"]
    if BACKEND != "torch":
        assert recorded.main(options) == 0
        assert "`recorded` returns the model as it is" in capsys.readouterr().out
        return
    settings = Settings(width=0.125, batch=2, size=8)
    for build in recorded.NETWORKS.values():
        ordinary, module = build(settings)
        assert sum(
            weight.numel() for weight in module.parameters()
        ) == ordinary.count_params() - sum(
            weight.size for weight in to_numpy(ordinary.non_trainable_weights)
        )
    monkeypatch.setattr(recorded, "STEPS", 2)
    with recorded_soon():
        assert recorded.main([*options, "--threads", "1"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[4:]]
    ways = (recorded.FIT, recorded.RECORDED, recorded.PYTORCH)
    assert [(row[0].removeprefix("| "), row[1]) for row in rows] == [
        (name, way) for name in ("MLP", "ResNet18") for way in ways
    ]
    assert all(
        row[3 if row[1] == recorded.FIT else 4].startswith("1.00 (")
        for row in rows
        if row[1] != recorded.RECORDED
    )
    assert all(float(row[2].split(" ")[0]) > 0 for row in rows)


# Unrolled loops


def test_the_choice_of_loops_is_the_last_t_at_which_the_unrolled_one_was_faster():
    def rows(*pairs):
        forms = [
            {"unrolled": {"seconds": {"median": a}}, "loop": {"seconds": {"median": b}}}
            for a, b in pairs
        ]
        return {2**power: row for power, row in enumerate(forms, start=1)}

    assert unrolling.last_faster(rows((1, 2), (2, 3), (5, 4), (1, 2))) == 4
    assert unrolling.last_faster(rows((2, 1), (1, 2))) == 1
    assert unrolling.last_faster(rows((1, 2), (1, 2))) == 4


def test_both_forms_of_loops_are_measured_on_jax(capsys):
    options = [*TINY, "--timesteps", "3"]
    with tiny_among_the_networks():
        if BACKEND != "jax":
            assert "needs JAX" in error_of(options, capsys, unrolling.main)
            return
        settings = Settings(network="Tiny", size=8, batch=2)
        programs = {}
        for choice in (True, False):
            with loops.unrolled(choice):
                model = cases.trainer(settings, "rate-multi", 3)
                images, _ = cases.batch(settings)
                programs[choice] = str(jax_program(model, images))
        assert unrolling.main(options) == 0
    assert "scan[" in programs[False]
    assert "scan[" not in programs[True]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in lines[4:6]] == [
        ["| rate-multi", "3"],
        ["| bptt-multi", "3"],
    ]
    assert lines[-1].startswith("Unrolled up to this T it is faster: {False: ")


def test_a_step_is_measured_with_and_without_xla_on_tensorflow(capsys):
    options = [*TINY, "--timesteps", "2", "--methods", "rate-multi"]
    with tiny_among_the_networks():
        if BACKEND != "tensorflow":
            assert "on TensorFlow alone" in error_of(
                options, capsys, benchmark_xla.main
            )
            return
        assert benchmark_xla.main(options) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[4:]]
    assert [row[:3] for row in rows] == [
        ["| ordinary", "1", "XLA"],
        ["| ordinary", "1", "without XLA"],
        ["| rate-multi", "2", "XLA"],
        ["| rate-multi", "2", "XLA, loops unrolled"],
        ["| rate-multi", "2", "without XLA"],
    ]
    assert all(float(row[3]) > 0 for row in rows)
    assert all(
        int(row[6].replace(",", "")) > 10 for row in rows if row[2] != "without XLA"
    )


def jax_program(model, images):
    import jax

    values = [
        [variable.value for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    return jax.make_jaxpr(
        lambda *state: model.stateless_call(*state, images, training=True)
    )(*values)


# The peers


def peer_with_weights_of(network, peer, timesteps):
    """A peer's network with the kernels of ours, which has convolutions and one dense
    layer."""
    import torch
    from torch import nn

    from recipes.benchmark import peers

    trainer = peers.trainer(peer, NARROW, timesteps)
    stem, stages = trainer.network.stem, trainer.network.stages
    ours = {
        layer.name: layer.kernel for layer in network.layers if hasattr(layer, "kernel")
    }
    blocks = [module for module in stages if isinstance(module, peers.Block)]
    names = [f"stage{stage}_block{block}" for stage in (1, 2, 3, 4) for block in (1, 2)]
    theirs = {"stem_conv": stem[0], "classifier": stages[-1]}
    for name, block in zip(names, blocks, strict=True):
        theirs |= {f"{name}_conv1": block.main[0], f"{name}_conv2": block.main[3]}
        if not isinstance(block.shortcut, nn.Identity):
            theirs[f"{name}_shortcut_conv"] = block.shortcut[0]
    assert set(ours) == set(theirs)
    with torch.no_grad():
        for name, module in theirs.items():
            kernel = torch.tensor(to_numpy(ours[name]))
            module.weight.copy_(
                kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
            )
        stages[-1].bias.copy_(
            torch.tensor(to_numpy(network.get_layer("classifier").bias))
        )
    return trainer


@pytest.mark.skipif(BACKEND != "torch", reason="the peers run on PyTorch")
@pytest.mark.parametrize(
    ("peer", "method", "timesteps"),
    [("spikingjelly", "bptt-multi", 3), ("snntorch", "bptt-single", 1)],
)
def test_a_peer_is_the_same_network(peer, method, timesteps):
    """With one step snnTorch's later reset has no effect."""
    pytest.importorskip(peer)
    settings = Settings(width=NARROW, size=16, batch=4, methods=(method, peer))
    model = cases.trainer(settings, method, timesteps)
    trainer = peer_with_weights_of(model.network, peer, timesteps)
    assert sum(weight.numel() for weight in trainer.network.parameters()) == sum(
        weight.size for weight in to_numpy(model.trainable_weights)
    )
    images, labels = cases.batch(settings, peer)
    ours = [
        float(np.ravel(model.train_on_batch(*cases.batch(settings)))[0])
        for _ in range(2)
    ]
    theirs = [trainer.train_on_batch(images, labels) for _ in range(2)]
    # The second loss is that of the weights after a step of the first gradient.
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    assert ours[0] != ours[1]


def max_former_modules(network):
    """The modules of SpikingJelly's Max-Former with kernels, by the names of our
    layers."""
    names = {
        "patches1_1_conv": network.patch_embed1.conv,
        "patches1_2_conv": network.patch_embed1.branch[1],
    }
    names |= {
        "patches1_shortcut_conv": network.patch_embed1.shortcut[1],
        "classifier": network.head,
    }
    for stage, patches in ((2, network.patch_embed2), (3, network.patch_embed3)):
        names |= {
            f"patches{stage}_1_conv": patches.conv1,
            f"patches{stage}_2_conv": patches.conv2,
        }
        names[f"patches{stage}_shortcut_conv"] = patches.shortcut[0]
    blocks = {
        "stage1_block1": network.stage1[0],
        "stage2_block1": network.stage2[0].mlp,
    }
    blocks |= {
        f"stage3_block{number + 1}": network.stage3[number].mlp for number in range(2)
    }
    for name, mlp in blocks.items():
        names |= {f"{name}_mlp1": mlp.fc1, f"{name}_mlp2": mlp.fc2}
    names["stage2_block1_depthwise"] = network.stage2[0].dwconv
    return names | {
        f"stage3_block{number + 1}_attention_output": network.stage3[number].attn.proj[
            0
        ]
        for number in range(2)
    }


@pytest.mark.skipif(BACKEND != "torch", reason="the peers run on PyTorch")
def test_spikingjellys_max_former_is_the_same_network():
    pytest.importorskip("spikingjelly")
    import torch

    settings = Settings(
        network="MaxFormer",
        width=64 / 384,
        size=16,
        batch=4,
        methods=("bptt-multi", "spikingjelly"),
    )
    model, trainer = (cases.trainer(settings, method, 2) for method in settings.methods)
    network = trainer.network.network
    found = {
        layer.name: [torch.tensor(to_numpy(weight)) for weight in layer.weights]
        for layer in model.network.layers
    }

    def take(module, kernel, bias=None):
        order = (
            {2: (1, 0), 4: (3, 2, 0, 1)}[kernel.ndim]
            if module is not network.stage2[0].dwconv
            else (2, 3, 0, 1)
        )
        module.weight.copy_(kernel.permute(order).reshape(module.weight.shape))
        if bias is not None:
            module.bias.copy_(bias)

    with torch.no_grad():
        for name, module in max_former_modules(network).items():
            take(module, *found[name])
        for number, block in enumerate(network.stage3, 1):
            kernels = [
                found[f"stage3_block{number}_attention_{part}"][0]
                for part in ("query", "key", "value")
            ]
            take(block.attn.qkv[0], torch.cat(kernels, dim=1))
    assert sum(weight.numel() for weight in trainer.network.parameters()) == sum(
        weight.size for weight in to_numpy(model.trainable_weights)
    )
    ours = [
        float(np.ravel(model.train_on_batch(*cases.batch(settings)))[0])
        for _ in range(2)
    ]
    theirs = [
        trainer.train_on_batch(*cases.batch(settings, "spikingjelly")) for _ in range(2)
    ]
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    assert ours[0] != ours[1]


@pytest.mark.skipif(BACKEND != "torch", reason="the peers run on PyTorch")
def test_peers_are_measured_together_with_our_methods():
    peers = [name for name, peer in PEERS.items() if peer.memopt < 2]
    for name in peers:
        pytest.importorskip(PEERS[name].package)
    options = {
        "width": NARROW,
        "size": 16,
        "batch": 2,
        "rounds": 1,
        "timesteps": (2,),
        "jit_compile": False,
    }
    settings = Settings(
        **options, precision="mixed_bfloat16", methods=("bptt-multi", *peers)
    )
    record = measure.benchmark(settings)
    assert [row["method"] for row in record["rows"]] == ["bptt-multi", *peers, *PARTS]
    assert {"spikingjelly", "snntorch"} < set(record["versions"])
    text = report.markdown(record)
    assert "snntorch: its neurons" in text
    assert "spikingjelly-memopt: SpikingJelly with" in text


def steps_that_tell_their_process(timesteps):
    """What a step of another process does is in files, because only its time comes
    back."""
    return {"at": timesteps}, {
        size: functools.partial(
            pathlib.Path(f"{size}.txt").write_text, str(os.getpid())
        )
        for size in (1, 2)
    }


@pytest.mark.runs_once
def test_steps_of_peers_run_and_are_timed_in_a_process_of_their_own(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_process.device, "gpu", lambda: False)
    pids = {}
    for method in ("rate-multi", "spikingjelly", "snntorch"):
        with contextlib.ExitStack() as processes:
            known, steps = own_process.made(
                processes, method, steps_that_tell_their_process, 4
            )
            seconds = timing.interleaved(steps, 3)
        assert known == {"at": 4}
        assert list(steps) == list(seconds) == [1, 2]
        assert all(
            0 < second < 1 for of_rounds in seconds.values() for second in of_rounds
        )
        (pids[method],) = {
            int(pathlib.Path(f"{size}.txt").read_text()) for size in steps
        }
    assert pids["rate-multi"] == os.getpid()
    assert len(set(pids.values())) == 3


@pytest.mark.runs_once
def test_what_fails_in_another_process_is_known_here():
    with contextlib.ExitStack() as processes, pytest.raises(ZeroDivisionError):
        own_process.made(processes, "spikingjelly", divmod, 1, 0)


@pytest.mark.skipif(BACKEND != "torch", reason="the peers run on PyTorch")
def test_spikingjellys_memory_optimisation_keeps_less_for_the_same_gradient():
    pytest.importorskip("spikingjelly")
    settings = Settings(
        width=0.125, size=16, batch=4, methods=("spikingjelly", "spikingjelly-memopt")
    )
    losses, kept = [], []
    for method in settings.methods:
        cases.configure(settings)
        step = functools.partial(
            cases.trainer(settings, method, 4).train_on_batch,
            *cases.batch(settings, method),
        )
        # The second loss is that of the weights after a step of the first gradient.
        losses.append([step(), step()])
        kept.append(costs.memory_rise(step))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert kept[1] < 0.8 * kept[0]


@pytest.mark.skipif(BACKEND != "torch", reason="the peers run on PyTorch")
def test_higher_levels_of_memory_optimisation_need_a_gpu():
    pytest.importorskip("spikingjelly")
    with pytest.raises(
        ValueError,
        match=r"'spikingjelly-memopt-2' on a GPU only.*Name 'spikingjelly-memopt'",
    ):
        Settings(methods=("spikingjelly-memopt-2",))
    with pytest.raises(ValueError, match="for network='ResNet18' with"):
        Settings(methods=("spikingjelly-memopt",), network="MaxFormer")


# Mistakes


@pytest.mark.runs_once
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (
            ["--network", "ResNet20"],
            ["`network` must be one of", "network='ResNet20'", "'ResNet18'"],
        ),
        (["--network", "load_pretrained"], ["`network` must be one of"]),
        (
            ["--methods", "rate"],
            [
                "`methods` must be one of",
                "methods='rate'",
                "'rate-multi'",
                "'spikingjelly'",
            ],
        ),
        (["--timesteps", "0"], ["`timesteps` must be 1 or more", "timesteps=0"]),
        (["--rounds", "0"], ["`rounds` must be 1 or more", "rounds=0"]),
        (["--batch", "0"], ["`batch` must be 1 or more", "batch=0"]),
        (["--threads", "0"], ["`threads` must be 1 or more", "threads=0"]),
        (["--width", "-1"], ["`width` must be > 0", "width=-1.0"]),
        (["--precision", "int8"], ["`precision` must be one of", "precision='int8'"]),
        (
            ["--data-format", "nhwc"],
            ["`data_format` must be one of", "data_format='nhwc'"],
        ),
        (
            ["--methods", "rate-multi", "rate-multi-2"],
            ["'rate-multi-2' and timesteps=1", "`windows` must be at most"],
        ),
        (
            ["--methods", "rate-multi-0"],
            ["'rate-multi-0'", "`windows` must be 1 or more"],
        ),
        (
            ["--methods", "sltt-single-3", "--timesteps", "2"],
            ["'sltt-single-3'", "`random_steps` must be at most timesteps"],
        ),
        (
            ["--methods", "os", "--network", "SEWResNet18"],
            ["'os' for networks with normalization='online'", "'SEWResNet18'"],
        ),
        (
            ["--network", "VGG11", "--size", "2"],
            ["`input_shape` must have a height and width of"],
        ),
        (["--output", __file__], [__file__]),
    ],
)
def test_a_mistake_is_named_before_anything_is_measured(
    arguments, fragments, capsys, tmp_path
):
    message = error_of(["--output", tmp_path / "new", *arguments], capsys, command=main)
    assert [fragment for fragment in fragments if fragment not in message] == [], (
        message
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="other backends have both formats")
@pytest.mark.parametrize(
    "options",
    [[], ["--jit-compile", "true", "false"], ["--jit-compile", "true", "--memory"]],
)
def test_without_a_gpu_convolutions_of_tensorflow_have_one_format(
    options, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(device, "gpu", lambda: False)
    error = error_of(
        ["--data-format", "channels_first", *options, "--output", tmp_path / "new"],
        capsys,
        main,
    )
    assert "`data_format` must be 'channels_last' on TensorFlow without a GPU" in error
    assert not (tmp_path / "new").exists()
    assert Settings(data_format="channels_first", jit_compile=True)


def test_methods_must_fit_the_time_steps_of_each_command(capsys):
    assert "`windows` must be at most timesteps" in error_of(
        ["--methods", "rate-multi-3"], capsys, memory.main
    )
    if BACKEND == "tensorflow":
        options = ["--methods", "rate-multi-3", "--timesteps", "2"]
        assert "`windows` must be at most timesteps" in error_of(
            options, capsys, benchmark_xla.main
        )


def test_the_table_of_memory_has_a_column_for_every_t(capsys, monkeypatch):
    monkeypatch.setattr(
        memory,
        "in_separate_process",
        lambda settings, method, timesteps: timesteps * 2**20,
    )
    assert memory.main(["--network", "MaxFormer", "--batch", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("MaxFormer of width 0.25, batch 3")
    assert lines[4] == "| rate-multi | 2 | 4 | 8 | 16 | 8.00 |"
    assert "batch=0" in error_of(["--batch", "0"], capsys, memory.main)


def test_errors_say_what_peers_need(monkeypatch):
    if BACKEND != "torch":
        with pytest.raises(
            ValueError, match=r"on PyTorch only.*Set KERAS_BACKEND=torch"
        ):
            Settings(methods=("spikingjelly",))
        return
    for arguments in (
        {"network": "VGG11"},
        {"network": "MaxFormer"},
        {"size": 96},
        {"precision": "mixed_float16"},
    ):
        with pytest.raises(ValueError, match="for network='ResNet18'"):
            Settings(methods=("snntorch",), **arguments)
    monkeypatch.setitem(sys.modules, "snntorch", None)
    with pytest.raises(
        ImportError, match=r"'snntorch' needs the package snntorch .*bench"
    ):
        Settings(methods=("snntorch",))


@pytest.mark.runs_once
def test_inference_is_measured_by_default_and_compiled(capsys):
    compiler = {"compiler": "eager"} if BACKEND == "torch" else {}

    def printed(*options):
        with recorded_soon(**compiler):
            assert inference.main(["--batch", "2", "--rounds", "1", *options]) == 0
        return capsys.readouterr().out

    text = printed()
    for value in ("auto", "True"):
        assert re.search(
            rf"\| keras_ratesnn, jit_compile={value} \| [\d,]+ \| \d+\.\d% \|", text
        )
    text = printed("--levels", "2")
    for name in ("integer spikes, 2 levels", "unrolled, 2 slots"):
        assert re.search(rf"\| {name}, jit_compile=True \| [\d,]+ \| 100.0% \|", text)
    assert inference.main(["--batch", "0"]) == 2
    assert "--batch" in capsys.readouterr().err


def test_programs_are_measured_beside_runtimes_and_what_is_missing_is_named(
    capsys, monkeypatch
):
    command = ["--networks", "digits", "--images", "4", "--rounds", "1"]
    if BACKEND != "tensorflow":
        assert "Set KERAS_BACKEND=tensorflow" in error_of(
            command, capsys, programs.main
        )
        return
    if shutil.which("gcc") is not None:
        assert programs.main(command) == 0
        rows = [
            line.split(" | ")
            for line in capsys.readouterr().out.splitlines()
            if "of 4" in line
        ]
        assert [row[0].strip("| ").split(",")[0] for row in rows] == [
            "C",
            "C",
            "ONNX Runtime",
            "LiteRT",
            "LiteRT",
        ]
        assert [row[-1] for row in rows] == ["4 of 4 |"] * 5
        assert rows[2][2] == "1.00"
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert "needs the package onnxruntime" in error_of(
            command, capsys, programs.main
        )
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "need gcc, which is not on the path" in error_of(
        command, capsys, programs.main
    )


@pytest.mark.skipif(BACKEND != "torch", reason="the peers run on PyTorch")
def test_the_pretrained_network_gives_the_same_logits_in_spikingjelly():
    pytest.importorskip("spikingjelly")
    from recipes.benchmark.translated import Translated

    pixels = (
        np.random.default_rng(0)
        .integers(0, 256, (20, *inference.SHAPE))
        .astype("uint8")
    )
    model = rsnn.models.load_pretrained(inference.NETWORK)
    outputs = to_numpy(
        Translated(model).eval()(keras.ops.convert_to_tensor(pixels)).detach()
    )
    # A membrane within rounding of the threshold changes all logits of an image.
    same = np.isclose(
        outputs, model.predict(pixels, verbose=0), rtol=1e-3, atol=1e-3
    ).all(axis=1)
    assert same.mean() >= 0.8


@pytest.mark.slow
def test_numbers_of_devices_are_compared(tmp_path, capsys):
    size = [
        "--network",
        "VGG11",
        "--width",
        "0.05",
        "--size",
        "32",
        "--batch",
        "4",
        "--rounds",
        "1",
    ]
    arguments = [
        *size,
        "--timesteps",
        "2",
        "--methods",
        "rate-multi",
        "--devices",
        "1",
        "2",
        "--output",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "these efficiencies are not evidence" in printed
    rows = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert [(row["kind"], row["devices"], row["batch"]) for row in rows] == [
        ("weak", 1, 4),
        ("weak", 2, 8),
        ("strong", 1, 4),
        ("strong", 2, 4),
    ]
    assert all(row["images_per_second"] > 0 for row in rows)
    if BACKEND == "jax":
        # At least all gradients travel.
        assert set(rows[1]["bytes"]) == {"all-reduce"}
        assert rows[1]["bytes"]["all-reduce"] > 4 * 1000


def test_a_number_of_devices_that_is_none_is_an_error(tmp_path, capsys):
    assert main(["--devices", "none", "--output", str(tmp_path)]) == 2
    assert "--devices must be a positive number or all" in capsys.readouterr().err

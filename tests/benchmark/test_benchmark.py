"""The benchmark: it measures the right quantities and reports all of them. Absolute
speed is not tested."""

import contextlib
import functools
import json
import os
import pathlib
import re
import sys

import keras
import numpy as np
import pytest
from helpers import BACKEND, chain, only_on, to_numpy
from numpy.testing import assert_allclose

import keras_ratesnn as rsnn
from recipes import device
from recipes.benchmark import (
    cases,
    costs,
    inference,
    measure,
    processes,
    report,
    timing,
)
from recipes.benchmark.settings import (
    FLOOR,
    FORWARD,
    ORDINARY,
    Settings,
    Variant,
    variants,
)
from recipes.benchmark.step import main
from tests.benchmark.tiny_network import (
    TINY,
    measure_quickly,
    recorded_soon,
    tiny,
    tiny_among_the_networks,
)
from tests.recipes.recipe_runs import error_of

OPTIONS = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
METHODS = ("rate-multi", "bptt-multi")
PARTS = (FLOOR, ORDINARY, FORWARD)

on_torch = only_on("torch", "others compile whole steps")


def test_the_record_has_every_method_at_every_t_and_what_is_counted(tmp_path, capsys):
    options = [*OPTIONS, "--timesteps", "1", "2", "--methods", *METHODS]
    with tiny_among_the_networks():
        assert main([*options, "--output", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {(row["timesteps"], row["method"]): row for row in record["rows"]}
    names = [(number, name) for number in (1, 2) for name in (*METHODS, *PARTS)]
    assert list(rows) == names
    assert record["settings"]["network"] == "Tiny"
    software = {"python", "numpy", "keras", "keras_ratesnn", BACKEND}
    assert set(record["versions"]) == software
    for (_, name), row in rows.items():
        assert len(row["seconds_of_rounds"]) == 2
        assert row["ratio_to_floor"]["median"] > 0
        if name == FLOOR:
            assert row["ratio_to_floor"]["median"] == 1.0
            assert row["compile_seconds"] is None
        else:
            assert row["first_seconds"] > 0 <= row["compile_seconds"]
    printed = capsys.readouterr().out
    assert report.markdown(record) in printed
    subject = f"{BACKEND} on {device.name()}: Tiny of width 0.5, batch 3, 8x8, float32"
    assert subject in printed
    rate, bptt, floor, ordinary, _ = (rows[2, name] for name in (*METHODS, *PARTS))
    if BACKEND == "tensorflow":
        assert record["flops_measure"] is record["memory_measure"] is None
        assert all(row["flops"] is row["memory_bytes"] is None for row in rows.values())
        return
    assert floor["flops"] == pytest.approx(4 / 3 * ordinary["flops"])
    assert 1 <= rows[1, "rate-multi"]["flops_to_floor"] < bptt["flops_to_floor"]
    assert all(row["memory_bytes"] > 0 for row in (rate, bptt, ordinary))
    assert ordinary["memory_to_ordinary"] == 1


# The arithmetic


@pytest.mark.parametrize(("least_seconds", "order"), [(0.0, "abab"), (5.0, "aaabaaab")])
def test_steps_are_timed_in_turn_and_repeated_within_a_round(least_seconds, order):
    now, calls = [0.0], []

    def step(name, seconds):
        calls.append(name)
        now[0] += seconds

    steps = {
        "a": functools.partial(step, "a", 2.0),
        "b": functools.partial(step, "b", 6.0),
    }
    seconds = timing.interleaved(steps, 2, lambda: now[0], least_seconds)
    assert seconds == {"a": [2.0, 2.0], "b": [6.0, 6.0]}
    assert "".join(calls) == order


def test_a_ratio_is_the_median_of_pairs_not_the_ratio_of_medians():
    # The machine is twice as slow in the second round, and four times in the third.
    paces = np.array([1.0, 2.0, 4.0])
    medians = {"rate-multi": 18 * paces, ORDINARY: 6 * paces, FORWARD: 2 * paces}
    seconds = {name: list(values) for name, values in medians.items()}

    def known(compiling_seconds, flops, memory_bytes=None, **counts):
        values = compiling_seconds, flops, memory_bytes, counts
        names = "compiling_seconds", "flops", "memory_bytes", "counts"
        return {**measure.UNMEASURED, **dict(zip(names, values, strict=True))}

    measured = {
        "rate-multi": known([37.0, 39.0, 20.0], 150.0, 30),
        ORDINARY: known([10.0], 60.0, 20, busy_seconds=0.4),
        FORWARD: known([1.0], 20.0, busy_seconds=0.2),
    }
    rate, floor, _, forward = measure.rows(measured, seconds, timesteps=4)
    assert set(rate["ratio_to_floor"].values()) == {1.5}
    assert list(rate["seconds"].values()) == [36.0, 27.0, 54.0]
    assert rate["compile_seconds"] == 4.0
    assert floor["counts"]["busy_seconds"] == pytest.approx(1.0)
    assert forward["busy_to_floor"] == pytest.approx(0.2)
    assert floor["seconds_of_rounds"] == [12.0, 24.0, 48.0]
    assert floor["flops"] == 60.0 + 3 * 20.0
    assert (rate["flops_to_floor"], rate["memory_to_ordinary"]) == (1.25, 1.5)
    assert (forward["compile_seconds"], floor["compile_seconds"]) == (0.0, None)
    # Sequences have no floor.
    del measured[ORDINARY], measured[FORWARD]
    (alone,) = measure.rows(measured, seconds, timesteps=4)
    assert set(alone["ratio_to_first"].values()) == {1.0}


# The cases


def test_the_forward_pass_is_that_of_training_and_has_no_other_weights():
    normalization = keras.layers.BatchNormalization(momentum=0.0)
    network = chain(normalization)
    samples = np.random.default_rng(0).normal(3.0, 2.0, (50, 6)).astype("float32")
    forward = cases.TrainingForward(network, jit_compile="auto")
    outputs = forward.predict_on_batch(samples)
    assert_allclose(outputs.mean(axis=0), np.zeros(6), atol=1e-5)
    moving = to_numpy(normalization.moving_mean)
    assert_allclose(moving, samples.mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("network", ["MaskedLIF", "Delay"])
def test_sequences_are_padded_and_compared_with_the_first_method(network):
    methods = ("rate-multi", "bptt-multi")
    settings = {"network": network, "width": 0.01, "batch": 8, "rounds": 1}
    settings |= {"timesteps": (5,), "jit_compile": False, "methods": methods}
    settings = Settings(**settings)
    values = to_numpy(cases.batch(settings, 5)[0])
    lengths = (values != cases.PADDING).all(axis=2).sum(axis=1)
    if network == "MaskedLIF":
        assert len(set(lengths)) > 1
        assert set(lengths) <= {3, 4, 5}
    record = measure.benchmark(settings, variants(settings, (False,)))
    assert tuple(row["method"] for row in record["rows"]) == methods
    assert record["rows"][0]["ratio_to_first"]["median"] == 1.0
    assert "Time, ratio to rate-multi" in report.markdown(record)


@only_on("jax", "only JAX's compiler counts FLOPs")
def test_flops_of_a_program_with_a_loop_are_not_counted():
    with tiny_among_the_networks():
        settings = Settings(**TINY)
        model = cases.trainer(settings, "rate-single", 4)
    told = costs.compiled(model, *cases.batch(settings, 4))
    assert told["flops"] is None
    assert told["memory_bytes"] > 0


@on_torch
@pytest.mark.parametrize(
    ("method", "forwards"),
    [("rate-multi", 4 + 2), ("rate-single", 4 + 2), ("bptt-multi", 3 * 4)],
)
def test_flops_of_a_step_match_a_count_by_hand(method, forwards):
    with tiny_among_the_networks():
        settings = Settings(**TINY)
        model = cases.trainer(settings, method, 4)
    batch = cases.batch(settings, 4)
    with rsnn.engine_settings(eager_calls={"auto": 0, True: 0}):
        model.train_on_batch(*batch)
    channels, images = 4, 3
    second = 2 * images * (4 * 4) * (3 * 3) * channels * channels
    dense = 2 * images * (4 * 4 * channels) * cases.CLASSES
    # The image is the same at every step: the first layer runs once, and needs no
    # derivative of its input.
    first = 2 * images * (6 * 6) * (3 * 3 * cases.CHANNELS) * channels * 2
    counted = costs.counted_flops(lambda: model.train_on_batch(*batch))
    assert counted == first + forwards * (second + dense)


@on_torch
def test_memory_of_a_step_is_the_most_that_the_allocator_holds():
    import torch

    if device.gpu():
        pytest.skip("on a GPU the allocator's own peak is read")
    mebibyte, tensors = 2**20, []

    def step():
        first = torch.empty(3 * mebibyte, dtype=torch.uint8)
        second = torch.empty(2 * mebibyte, dtype=torch.uint8)
        del first
        tensors.append(torch.empty(4 * mebibyte, dtype=torch.uint8))
        del second

    assert costs.memory_rise(step) == 6 * mebibyte
    assert costs.memory_rise(lambda: tensors.clear()) == 0


@on_torch
@pytest.mark.parametrize(
    ("jit_compile", "engine", "calls"),
    [("auto", "recorded", 2), (True, "compiled", 3), (False, "eager", 1)],
)
def test_what_is_timed_is_the_graph_and_not_the_calls_before_it(
    jit_compile, engine, calls
):
    compiled_in = set()

    def compiler(graph, tensors):
        compiled_in.add(int(model.optimizer.iterations) + 1)
        return graph

    with tiny_among_the_networks(compiler=compiler):
        settings = Settings(**TINY, jit_compile=jit_compile)
        model = cases.trainer(settings, "rate-multi", 2)
        variant = Variant("rate-multi", settings)
        measured, _ = measure.warm_variant(variant, 2, model=model)
        compiling = measure.compiling_calls(settings, "rate-multi")
    assert model.execution == engine
    assert len(measured["compiling_seconds"]) == calls
    assert compiled_in <= set(compiling)
    assert bool(compiled_in) == (jit_compile is True)
    assert (measured["flops"] is None) == (jit_compile is True)


@pytest.mark.backends(1)
def test_each_method_occurs_with_each_form_and_peers_once():
    pytest.importorskip("spikingjelly")
    peers = ("spikingjelly",) if BACKEND == "torch" else ()
    settings = Settings(methods=("rate-multi", "bptt-single", *peers))
    named = variants(settings, ("auto", True))
    expected = {"spikingjelly": "auto"} if peers else {}
    for method in ("rate-multi", "bptt-single"):
        for value in ("auto", True):
            expected[f"{method}, jit_compile={value}"] = value
    assert {key: one.settings.jit_compile for key, one in named.items()} == expected
    forms = {"rate-multi, unrolled": True, "rate-multi, loop": False}
    loops = variants(settings, ("auto",), loops=True)
    unrolled = {name: variant.unrolled for name, variant in loops.items()}
    assert unrolled == {**forms, **dict.fromkeys(("bptt-single", *peers))}


def test_a_method_that_fails_ends_no_others():
    def failing(input_shape, classes, timesteps, gradient, step_mode, width):
        if isinstance(rsnn.gradients.get(gradient), rsnn.gradients.BPTT):
            raise RuntimeError("out of memory")
        return tiny(input_shape, classes, timesteps, gradient, step_mode, width)

    with tiny_among_the_networks(failing):
        settings = Settings(**TINY, timesteps=(2,), methods=METHODS[::-1])
        record = measure.benchmark(settings, variants(settings, ("auto",)))
    names = [row["method"] for row in record["rows"]]
    assert names == ["rate-multi", *PARTS]
    error = "bptt-multi, T = 2: RuntimeError: out of memory"
    assert report.markdown(record).endswith(error)
    for row in record["rows"]:
        row["counts"] = {"busy_seconds": 0.002, **dict.fromkeys(report.COUNTS, 3.0)}
        row["engine"] = "recorded"
    text = report.markdown(record)
    for cell in ("| rate-multi | 3.0 |", "| rate-multi | 2.00 |", "| recorded |"):
        assert cell in text


# Processes


def steps_that_tell_their_process(timesteps):
    """What a step of another process does is in files, because only its time comes
    back."""
    write = functools.partial(pathlib.Path("process.txt").write_text, str(os.getpid()))
    return {"at": timesteps}, {"step": write}


@pytest.mark.backends(1)
def test_steps_of_peers_run_and_are_timed_in_a_process_of_their_own(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes.device, "gpu", lambda: False)
    own = {}
    for method in ("rate-multi", "spikingjelly"):
        with contextlib.ExitStack() as stack:
            make = steps_that_tell_their_process
            known, steps = processes.made(stack, method, make, 4)
            seconds = timing.interleaved(steps, 3)["step"]
        assert known == {"at": 4}
        assert 0 < min(seconds) <= max(seconds) < 1
        own[method] = int(pathlib.Path("process.txt").read_text())
    assert own["rate-multi"] == os.getpid() != own["spikingjelly"]


def test_the_peak_of_a_step_is_measured():
    with tiny_among_the_networks():
        assert measure.peak_bytes(Settings(**TINY), "rate-multi", 2) >= 0


# The peers


@on_torch
@pytest.mark.parametrize(
    ("network", "layers_of_segments"),
    [("ResNet18", [1, 3, 3, 4, 3, 4, 3, 4, 3, 1]), ("VGG11", [1] * 9)],
)
def test_spikingjelly_trains_the_same_network_and_its_memory_optimisation_keeps_less(
    network, layers_of_segments
):
    """The second loss is that of the weights after a step."""
    pytest.importorskip("spikingjelly")
    methods = ("bptt-multi", "spikingjelly", "spikingjelly-memopt")
    small = {"width": 0.125, "size": 16, "batch": 8, "jit_compile": False}
    settings = Settings(network=network, methods=methods, **small)
    memory, losses = {}, {}
    for method in methods:
        cases.configure(settings)
        model = measure.trainer(settings, method, 4)
        batch = cases.batch(settings, 4, method)
        if method == "spikingjelly":
            # The memory optimisation computes blocks again.
            sizes = [len(segment.nodes) for segment in model.network.stages]
            assert sizes == layers_of_segments
        step = functools.partial(model.train_on_batch, *batch)
        losses[method] = [float(np.ravel(step())[0]) for _ in range(2)]
        # In the first step under a profiler it depends on addresses of earlier ones
        # what counts as freed: SpikingJelly's neurons keep their membranes until then.
        costs.memory_rise(step)
        memory[method] = costs.memory_rise(step)
    assert memory["spikingjelly-memopt"] < 0.8 * memory["spikingjelly"]
    ours, theirs, optimized = losses.values()
    assert ours[0] != ours[1]
    assert_allclose(theirs, ours, rtol=1e-4)
    assert_allclose(optimized, theirs, rtol=1e-5)


# Mistakes

PEERS_NEED = [
    ({"network": "VGG13"}, "for network='ResNet18' or"),
    ({"size": 96}, "images smaller than 96 x 96"),
    ({"precision": "mixed_float16"}, "in float32 or mixed_bfloat16"),
    ({"methods": ("spikingjelly-memopt-2",)}, "Name 'spikingjelly-memopt'"),
]


def test_errors_say_what_each_backend_lacks(capsys, monkeypatch):
    if BACKEND != "torch":
        for options in (
            {"methods": ("spikingjelly",)},
            {"threads": 1},
        ):
            with pytest.raises(ValueError, match=r"PyTorch|KERAS_BACKEND=torch"):
                Settings(**options)
        return
    assert "`--loops` is for XLA" in error_of(["--loops"], capsys, main)
    for options, said in PEERS_NEED:
        with pytest.raises(ValueError, match=said):
            Settings(**{"methods": ("spikingjelly",), **options})
    monkeypatch.setitem(sys.modules, "snntorch", None)
    with pytest.raises(ImportError, match="'snntorch' needs the package snntorch"):
        Settings(methods=("snntorch",))


# Inference


@pytest.mark.backends(1)
def test_inference_is_measured_by_default_and_compiled(capsys, monkeypatch):
    pytest.importorskip("spikingjelly")
    peers = ["spikingjelly"] if BACKEND == "torch" else []
    measure_quickly(monkeypatch)
    compiler = {"compiler": "eager"} if BACKEND == "torch" else {}
    compiled = ("auto", "True")
    for levels, names in (
        ((), ["keras_ratesnn"]),
        (("--levels", "2"), ["integer spikes, 2 levels", "unrolled, 2 substeps"]),
    ):
        with recorded_soon(**compiler):
            assert inference.main(["--batch", "2", "--rounds", "1", *levels]) == 0
        printed = capsys.readouterr().out
        rows = re.findall(r"^\| (.+) \| [\d,]+ \|$", printed, re.MULTILINE)
        expected = [
            f"{name}, jit_compile={value}" for value in compiled for name in names
        ]
        assert rows == expected + ([] if levels else peers)

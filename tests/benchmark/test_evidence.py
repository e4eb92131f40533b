"""The evidence kit: every stage runs, what is measured is on disk at once, and no stage
takes the others down."""

import dataclasses
import json
import os
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
from helpers import BACKEND

import keras_ratesnn as rsnn
from recipes import device
from recipes.benchmark.__main__ import main
from recipes.benchmark.evidence import (
    about,
    agreement,
    compilation,
    first_steps,
    journal,
    plan,
    reference,
    results,
    runner,
    steps,
    tables,
)
from recipes.benchmark.evidence import stage as stage_process
from recipes.benchmark.settings import FLOOR, FORWARD, ORDINARY
from tests.benchmark.test_benchmark import tiny, tiny_among_the_networks

pytestmark = pytest.mark.runs_once

on_torch = pytest.mark.skipif(
    BACKEND != "torch", reason="graphs are recorded on PyTorch only"
)

TINY = {
    "network": "Tiny",
    "width": 0.5,
    "batch": 3,
    "size": 8,
    "rounds": 2,
    "timesteps": [2],
    "methods": ["rate-multi"],
}


# The journal


def test_a_row_is_on_disk_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / journal.NAME
    for row, stage in enumerate(("one", "two"), start=1):
        journal.append(path, {"stage": stage, "kind": "step", "seconds": row})
        assert len(journal.rows(path)) == row
    assert journal.rows(path)[1] == {"stage": "two", "kind": "step", "seconds": 2}


def test_a_line_that_was_cut_off_leaves_the_others(tmp_path):
    path = tmp_path / journal.NAME
    journal.append(path, {"kind": "step"})
    with open(path, "a") as file:
        file.write('{"kind": "st')
    assert journal.rows(path) == [{"kind": "step"}]


# The runner


def of_script(script, name="one", seconds=20.0, timed=True, **arguments):
    """A stage whose process runs a script, with the path of the journal as its
    argument."""
    return plan.Stage(name, script, arguments, seconds, timed)


def start(stage, path, log):
    return subprocess.Popen(
        [sys.executable, "-c", stage.work, str(path)],
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


NOTES = """import sys; open(sys.argv[1], 'a').write('{"kind": "note"}\\n')"""
WRITES = "import sys; open(sys.argv[1], 'a').write('{\"kind\": \"step\"}\\n')"


def statuses(folder):
    return {
        row["stage"]: row["status"]
        for row in journal.rows(folder / journal.NAME)
        if row["kind"] == "stage"
    }


def test_a_stage_that_fails_or_hangs_is_recorded_and_the_rest_runs(tmp_path):
    stages = [
        of_script("raise ValueError('broken')", "fails"),
        of_script(WRITES + "; import time; time.sleep(60)", "hangs", seconds=1.0),
        of_script(WRITES, "works"),
        of_script(WRITES, "at once", timed=False),
    ]
    runner.run(stages, tmp_path, 60, 60, start)
    assert statuses(tmp_path) == {
        "fails": "failed",
        "hangs": "deadline",
        "works": "done",
        "at once": "done",
    }
    rows = journal.rows(tmp_path / journal.NAME)
    # What the stage had measured before its deadline is there, too; what is not timed
    # comes first.
    assert sum(row["kind"] == "step" for row in rows) == 3
    assert next(row["stage"] for row in rows if row["kind"] == "stage") == "at once"
    assert "broken" in (tmp_path / runner.LOG).read_text()


def test_what_was_not_compiled_in_time_is_left_out_and_said_so(tmp_path):
    needs = {"rate-multi": "compiles", "bptt-multi": "fails"}
    stages = [
        of_script(NOTES, "compiles", timed=False),
        of_script("raise ValueError", "fails", timed=False),
        dataclasses.replace(
            of_script(NOTES, "partly", tables=[{"methods": list(needs)}]), needs=needs
        ),
        dataclasses.replace(
            of_script(NOTES, "nothing", tables=[{"methods": ["bptt-multi"]}]),
            needs={"bptt-multi": "fails"},
        ),
        of_script(f"import sys; sys.exit({stage_process.PARTLY})", "leaves out"),
    ]
    started = []
    runner.run(
        stages,
        tmp_path,
        60,
        60,
        lambda stage, *rest: started.append(stage) or start(stage, *rest),
    )
    ended = {
        "compiles": "done",
        "fails": "failed",
        "partly": "partly",
        "nothing": "skipped",
        "leaves out": "partly",
    }
    assert statuses(tmp_path) == ended
    assert {stage.name: stage.arguments.get("tables") for stage in started}[
        "partly"
    ] == [{"methods": ["rate-multi"]}]
    rows = journal.rows(tmp_path / journal.NAME)
    assert (
        "**Left out for lack of time:** partly (bptt-multi); nothing (bptt-multi)."
        in tables.markdown(rows)
    )
    assert "compilation" not in tables.left_out(
        [{"kind": "stage", "stage": "compilation, T = 4", "status": "skipped"}]
    )
    assert {"partly", "nothing", "leaves out"} <= {
        stage.name for stage in plan.remaining(stages, rows)
    }


def test_the_process_of_a_stage_records_its_error(tmp_path, capsys):
    path = tmp_path / journal.NAME
    stage = plan.Stage("reference", "reference", {"wrong": 1}, 60)
    assert stage_process.main([str(path), json.dumps(dataclasses.asdict(stage))]) == 1
    (row,) = journal.rows(path)
    assert (row["stage"], row["kind"]) == ("reference", "error")
    assert "TypeError" in row["error"]
    assert "TypeError" in capsys.readouterr().err


# The stages


@on_torch
def test_versions_and_flags_are_written():
    rows = []
    about.run(rows.append, evidence=False)
    (row,) = rows
    assert {"python", "numpy", "keras", "torch", "keras_ratesnn"} <= set(
        row["versions"]
    )
    assert row["evidence"] is False
    assert tables.NOT_EVIDENCE in tables.markdown(rows)


@on_torch
def test_reference_cases_are_checked_in_eager_mode_and_by_recorded_graphs():
    rows = []
    reference.run(rows.append, ["mlp_rate_m"])
    assert [
        (row["case"], row["mode"], row["way"], row["agrees"])
        for row in rows
        if row["kind"] == "reference"
    ] == [
        ("mlp_rate_m", "eager", "eager", True),
        ("mlp_rate_m", "recorded", "recorded", True),
    ]


@on_torch
def test_gradients_that_are_compared_are_those_of_a_replayed_graph():
    """The first step of a graph runs in eager mode; its gradient would agree whatever
    the graph computes."""

    def wrong(graph, tensors):
        return lambda *tensors: [2 * out for out in graph(*tensors)]

    rows = []
    with tiny_among_the_networks():
        agreement.run(rows.append, TINY, 1, ["compiled"], wrong)
    assert rows[0]["errors"]["gradients"] > 0.01


@on_torch
def test_a_reference_case_that_fails_leaves_the_others():
    rows = []
    reference.run(rows.append, ["no_such_case", "mlp_rate_m"])
    assert [row["case"] for row in rows if row["kind"] == "reference"] == [
        "mlp_rate_m"
    ] * 2
    assert "| no_such_case: " in tables.markdown(rows)


def test_logits_and_classes_that_differ_are_counted():
    logits = np.array([[1.0, 2.0], [3.0, 0.5]])
    case = types.SimpleNamespace(arrays={"logits": logits})
    found = types.SimpleNamespace(
        outputs=logits + np.array([[0.0, 0.002], [-2.7, 0.1]])
    )
    assert reference.flips(case, found) == {
        "logits": 4,
        "logits_moved": 2,
        "samples": 2,
        "classes_changed": 1,
    }


def test_a_gradient_that_should_be_zero_is_compared_with_the_largest():
    expected = {"weight": np.array([3.0, 4.0]), "bias": np.array([1e-7])}
    near = {"weight": np.array([3.0, 4.5]), "bias": np.array([-2e-7])}
    assert results.gradient_errors(near, expected) == {
        "weight": pytest.approx(0.1),
        "bias": 0.0,
    }
    assert (
        results.gradient_errors({**near, "bias": np.array([1.0])}, expected)["bias"]
        == np.inf
    )
    assert np.isnan(results.largest({"weight": 1e-5, "bias": np.nan}))
    assert results.largest({}) == 0
    with pytest.raises(ValueError, match="different variables"):
        results.gradient_errors({"weight": near["weight"]}, expected)


@on_torch
def test_graphs_are_compared_with_eager_mode():
    rows = []
    with tiny_among_the_networks():
        agreement.run(
            rows.append,
            {**TINY, "precision": "float64"},
            2,
            ["recorded", "compiled"],
            "aot_eager",
        )
    assert [row["way"] for row in rows] == ["recorded", "compiled"]
    for row in rows:
        assert max(row["errors"].values()) < 1e-9, row
    assert "| rate-multi | float64 | compiled (aot_eager) |" in tables.markdown(rows)


@on_torch
def test_what_is_timed_later_is_compiled_before():
    rows = []
    with tiny_among_the_networks(compiler="eager"):
        compilation.run(rows.append, TINY, tf32=True)
    assert [(row["kind"], row["method"], row["timesteps"]) for row in rows] == [
        ("compiled", "rate-multi", 2)
    ]


@on_torch
@pytest.mark.parametrize(("jit_compile", "calls"), [("auto", 4), (True, 4)])
def test_first_steps_last_until_the_graph_is_replayed_and_find_no_cache(
    jit_compile, calls, monkeypatch
):
    for name in first_steps.CACHES:
        monkeypatch.setenv(name, "a full cache")
    rows = []
    with tiny_among_the_networks(compiler="aot_eager"):
        first_steps.run(rows.append, {**TINY, "jit_compile": jit_compile}, tf32=True)
    (row,) = rows
    assert (row["way"], row["steps"]) == (
        "compiled" if jit_compile is True else "recorded",
        calls,
    )
    assert not any("full" in os.environ[name] for name in first_steps.CACHES)
    assert (
        f"| rate-multi | T = 2 | float32 | {jit_compile} ({row['way']}) | {calls} |"
        in tables.markdown([{"stage": "first steps", **row}])
    )


@on_torch
def test_methods_for_which_no_time_is_left_are_left_out():
    rows = []
    with tiny_among_the_networks():
        steps.run(rows.append, [TINY], ["auto"], tf32=True, end=time.time() - 1.0)
    assert [(row["kind"], row["method"]) for row in rows] == [
        ("left out", ORDINARY),
        ("left out", "rate-multi, jit_compile=auto"),
    ]


@on_torch
@pytest.mark.parametrize(
    ("precision", "fused"), [("float32", 0), ("mixed_bfloat16", 1)]
)
def test_spikingjelly_uses_its_fused_neurons_in_half_precision_too(
    precision, fused, monkeypatch
):
    """By default it does not: a comparison with its slow neurons would flatter ours."""
    pytest.importorskip("spikingjelly")
    import torch
    from spikingjelly.activation_based import precision as library

    from recipes.benchmark import peers

    prepared = []
    monkeypatch.setattr(
        library,
        "prepare_model_for_precision",
        lambda *arguments: prepared.append(arguments),
    )
    monkeypatch.setattr(peers.device, "gpu", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)
    network = peers.trainer("spikingjelly", 0.125, 2, precision).network
    assert [
        (model is network, device, config.neuron_storage)
        for model, device, config in prepared
    ] == ([(True, "cuda", "bf16")] * fused)


@pytest.mark.on_each_backend
def test_steps_are_written_alone_at_once_and_in_turn_at_the_end():
    rows = []
    methods = ["rate-multi", "bptt-multi"] if BACKEND == "torch" else ["rate-multi"]

    def failing(input_shape, classes, timesteps, gradient, step_mode, width):
        if isinstance(rsnn.gradients.get(gradient), rsnn.gradients.BPTT):
            raise RuntimeError("out of memory")
        return tiny(input_shape, classes, timesteps, gradient, step_mode, width)

    with tiny_among_the_networks(failing):
        steps.run(rows.append, [{**TINY, "methods": methods}], ["auto"], tf32=True)
    torch_form = (
        ["rate-multi, jit_compile=auto"] if BACKEND == "torch" else ["rate-multi"]
    )
    forms = {"jax": ["rate-multi, unrolled", "rate-multi, loop"]}.get(
        BACKEND, torch_form
    )
    assert [row["method"] for row in rows if row["kind"] == "step"] == [
        ORDINARY,
        FORWARD,
        FLOOR,
        *forms,
    ]
    assert [row["method"] for row in rows if row["kind"] == "interleaved"] == [
        *forms,
        FLOOR,
        ORDINARY,
        FORWARD,
    ]
    if not device.gpu():
        with pytest.raises(RuntimeError, match="sees no GPU"):
            steps.run(rows.append, [TINY], ["auto"], tf32=True, on_gpu=True)
    failed = [(row["method"], row["error"]) for row in rows if row["kind"] == "failed"]
    assert failed == (
        [("bptt-multi, jit_compile=auto", "RuntimeError: out of memory")]
        if BACKEND == "torch"
        else []
    )
    if BACKEND == "torch":
        rate = next(
            row for row in rows if row["kind"] == "step" and row["method"] == forms[0]
        )
        assert rate["way"] == "recorded"
        assert rate["fetches"] >= 1
        assert (rate["kernels"], rate["busy_seconds"]) == (0, 0)
    text = tables.markdown(rows)
    assert all(f"| {form}" in text for form in (*forms, FLOOR))


def test_work_is_compared_with_the_work_of_the_floor():
    """Keras' eager mode, which the floor is, makes a GPU wait: times alone would
    flatter."""
    spread = {"median": 1.0, "lower_quartile": 0.5, "upper_quartile": 2.0}
    ordinary = {"seconds": spread, "busy_seconds": 0.4, "kernels": 100.0, "flops": None}
    forward = {"seconds": spread, "busy_seconds": 0.2, "kernels": 30.0, "flops": None}
    floor = steps.floor_of(ordinary, forward, timesteps=4)
    assert floor["seconds"] == {
        "median": 4.0,
        "lower_quartile": 2.0,
        "upper_quartile": 8.0,
    }
    assert (floor["busy_seconds"], floor["kernels"]) == (pytest.approx(1.0), 190.0)
    assert steps._to_floor({"busy_seconds": 1.5}, floor) == {
        "busy_to_floor": pytest.approx(1.5)
    }
    assert steps._to_floor({"busy_seconds": 0}, floor) == {}


@on_torch
def test_kernels_and_synchronisations_are_counted_inside_of_steps():
    import torch

    from recipes.benchmark.evidence import trace

    def event(name, begin, end, on_gpu=False, annotation=False):
        interval = types.SimpleNamespace(start=begin, end=end)
        kind = (
            torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
        )
        return types.SimpleNamespace(
            name=name,
            time_range=interval,
            device_type=kind,
            is_user_annotation=annotation,
        )

    events = [
        event(trace._RANGE, 0, 100, annotation=True),
        event(trace._RANGE, 5, 160, on_gpu=True, annotation=True),
        event("Optimizer.step#SGD.step", 5, 160, on_gpu=True, annotation=True),
        event("cudaLaunchKernel", 1, 2),
        event("cuLaunchKernelEx", 3, 4),
        event("aten::_local_scalar_dense", 50, 90),
        event("cudaStreamSynchronize", 51, 89),
        event("cudaDeviceSynchronize", 101, 150),
        event("conv", 10, 40, on_gpu=True),
        event("add", 30, 60, on_gpu=True),
        event("Memcpy DtoH (Device -> Pageable)", 70, 80, on_gpu=True),
    ]
    assert trace.counts(events, steps=2) == {
        "kernels": 1.0,
        "copies": 0.5,
        "busy_seconds": pytest.approx(30e-6),
        "launches": 1.0,
        "waits": 0.5,
        "fetches": 0.5,
    }


# The tables


def test_a_run_that_was_cut_off_still_gives_tables(tmp_path, capsys):
    spread = {"median": 0.0123, "lower_quartile": 0.012, "upper_quartile": 0.013}
    common = {
        "backend": "torch",
        "timesteps": 4,
        "precision": "float32",
        "data_format": "channels_last",
        "tf32": True,
    }
    step = {
        "kind": "step",
        **common,
        "method": "rate-multi",
        "way": "recorded",
        "seconds": spread,
        "compile_seconds": 1.5,
    }
    counts = {
        "kernels": 812.0,
        "copies": 3.0,
        "busy_seconds": 0.0101,
        "launches": 815.0,
        "waits": 2.0,
        "fetches": 2.0,
        "busy_to_floor": 1.25,
    }
    lines = [
        {"kind": "stage", "stage": "steps", "status": "deadline", "seconds": 75.0},
        {**step, **counts, "memory_bytes": 3 * 2**20},
        {
            "kind": "failed",
            **common,
            "method": "bptt-multi",
            "error": "OutOfMemoryError: no memory",
        },
    ]
    path = tmp_path / journal.NAME
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tables.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| steps | deadline | 75 |  |" in printed
    assert "**Left out for lack of time:** steps (the rest of it)." in printed
    assert "torch, T = 4, float32 as TF32, channels_last" in printed
    expected = (
        "12.30 (12.00 to 13.00) * |  | 10.10 | 1.25 | 812 | 3 | 815 | 2 | 2 | 3 | 1.5 |"
    )
    assert f"| rate-multi (recorded) | {expected}" in printed
    assert "| bptt-multi: OutOfMemoryError: no memory |" in printed
    assert tables.main([str(tmp_path / "nowhere")]) == 2
    assert (
        "error: name a folder that contains evidence.jsonl" in capsys.readouterr().err
    )


# The command


@pytest.mark.on_each_backend
def test_the_command_says_what_it_needs(tmp_path, capsys):
    if BACKEND != "torch":
        assert main(["--evidence", str(tmp_path)]) == 2
        assert "KERAS_BACKEND=torch" in capsys.readouterr().err
        return
    assert main(["--evidence", __file__]) == 2
    assert __file__ in capsys.readouterr().err


@on_torch
@pytest.mark.slow
def test_the_whole_kit_runs_on_a_cpu(tmp_path, capsys):
    assert main(["--evidence", str(tmp_path)]) == 0
    assert set(statuses(tmp_path).values()) == {"done"}
    printed = capsys.readouterr().out
    assert tables.NOT_EVIDENCE in printed
    assert keras.__version__ in printed

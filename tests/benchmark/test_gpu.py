"""The questions about a GPU: each is answered, what is measured is on disk at once, and
no question takes the others down."""

import dataclasses
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers import BACKEND

import keras_ratesnn as rsnn
from recipes.benchmark import answers, gpu, measure
from recipes.benchmark.settings import FLOOR, FORWARD, ORDINARY
from tests.benchmark.tiny_network import TINY, tiny, tiny_among_the_networks

pytestmark = pytest.mark.runs_once

on_torch = pytest.mark.skipif(BACKEND != "torch", reason="records calls on PyTorch")

SETTINGS = {**TINY, "timesteps": (2,), "methods": ("rate-multi",)}


def scripted(name, script, seconds=20.0, **options):
    """A question whose process runs a script, with the path of the rows as its
    argument."""
    return gpu.Question(name, script, seconds, is_timed=True, **options)


def start(question, path, log):
    command = [sys.executable, "-c", question.answer, str(path)]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def test_a_question_that_fails_or_hangs_is_recorded_and_the_rest_is_asked(tmp_path):
    path = tmp_path / gpu.ROWS
    row = json.dumps({"question": "hangs", "row": "rate-multi", "seconds": 1.5})
    hangs = f"import time; open({str(path)!r}, 'a').write({row + chr(10)!r})"
    questions = [
        scripted("fails", "raise ValueError('broken')"),
        scripted("hangs", hangs + "; time.sleep(60)", seconds=1.0),
        scripted("works", "pass"),
        gpu.Question("is not timed", "pass", 20.0),
        gpu.Question("compiles", "compilation", 0.0),
    ]
    with open(tmp_path / gpu.LOG, "a") as log:
        gpu.Asking(path, log, start).ask_all(questions[:4], 60, 60)
    rows = gpu.rows_of(path)
    ends = {row["question"]: row["status"] for row in rows if "status" in row}
    assert ends == {
        "is not timed": "done",
        "fails": "failed",
        "hangs": "deadline",
        "works": "done",
    }
    assert next(iter(ends)) == "is not timed"
    assert "broken" in (tmp_path / gpu.LOG).read_text()
    left = gpu.unanswered([*questions, gpu.Question("about", "about", 1)], rows)
    assert [one.name for one in left] == ["fails", "hangs", "compiles", "about"]
    # What was measured before the deadline is there, also if a line was cut off.
    with open(path, "a") as file:
        file.write('{"question": "wor')
    text = gpu.tables(gpu.rows_of(path))
    assert "## hangs: deadline after 1 s" in text
    assert "|  | seconds |\n|---|---|\n| rate-multi | 1.5 |" in text


def test_tables_are_of_the_last_time_that_a_question_was_asked():
    spread = {"median": 12.345678, "lower_quartile": 12.0, "upper_quartile": 13.0}
    end = {"question": "steps", "status": "deadline", "seconds": 9.0}
    rows = [
        {"question": "steps", "row": "bptt-multi", "error": "OutOfMemoryError"},
        end,
        {"question": "steps", "row": "rate-multi", "kernels": 812.0},
        {"question": "steps", "row": "rate-multi", "ms": spread, "agrees": False},
        {**end, "status": "done"},
        {"question": "about", "row": "", "is_evidence": False},
    ]
    text = gpu.tables(rows)
    assert text.startswith(gpu.NOT_EVIDENCE)
    assert "| rate-multi | 812 | 12.35 (12 to 13) | **no** |" in text
    assert "OutOfMemoryError" not in text
    assert "## about: cut off" in text


def test_the_process_of_a_question_records_its_error(tmp_path):
    question = gpu.Question("reference", "reference", 1, {"wrong": 1})
    question = dataclasses.asdict(question)
    with pytest.raises(TypeError):
        gpu.answer(tmp_path / gpu.ROWS, question)
    (row,) = gpu.rows_of(tmp_path / gpu.ROWS)
    assert "TypeError" in row["error"]


@pytest.mark.parametrize("is_gpu", [True, False])
def test_each_question_has_a_name_of_its_own_and_an_answer(is_gpu):
    asked = gpu.questions(is_gpu)
    assert len({question.name for question in asked}) == len(asked)
    for question in asked:
        assert json.dumps(question.options)
    kinds = {"about", "reference", "agreement", "compilation", "steps", "first_steps"}
    assert {question.answer for question in asked} == kinds
    assert all(callable(getattr(answers, kind)) for kind in kinds)


# The answers


@on_torch
def test_reference_cases_are_checked_in_eager_mode_and_by_recorded_graphs():
    rows = []
    answers.reference(rows.append, ["no_such_case", "mlp_rate_m"])
    assert "error" in rows[0]
    assert [(row["row"], row["agrees"]) for row in rows[1:]] == [
        ("mlp_rate_m, eager", True),
        ("mlp_rate_m, recorded", True),
    ]


@on_torch
def test_graphs_are_compared_with_eager_mode():
    rows = []
    for jit_compile in ("auto", True):
        settings = {**SETTINGS, "precision": "float64", "jit_compile": jit_compile}
        with tiny_among_the_networks(compiler="aot_eager"):
            answers.agreement(rows.append, settings)
    assert [row.pop("row") for row in rows] == [
        "rate-multi, recorded",
        "rate-multi, compiled",
    ]
    assert all(max(row.values()) < 1e-9 for row in rows)


@on_torch
def test_gradients_that_are_compared_are_those_of_a_replayed_graph():
    """The first step of a graph runs in eager mode; its gradient would agree whatever
    the graph computes."""

    def wrong(graph, tensors):
        return lambda *tensors: [2 * out for out in graph(*tensors)]

    rows = []
    with tiny_among_the_networks(compiler=wrong):
        answers.agreement(rows.append, {**SETTINGS, "jit_compile": True})
    assert rows[0]["gradients"] > 0.01


def test_a_gradient_that_should_be_zero_is_compared_with_the_largest():
    expected = {"weight": np.array([3.0, 4.0]), "bias": np.array([1e-7])}
    near = {"weight": np.array([3.0, 4.5]), "bias": np.array([-2e-7])}
    assert answers.gradient_error(near, expected) == pytest.approx(0.1)
    far = {**near, "bias": np.array([1.0])}
    assert answers.gradient_error(far, expected) == np.inf
    assert np.isnan(answers.largest([1e-5, np.nan]))
    with pytest.raises(ValueError, match="different variables"):
        answers.gradient_error({"weight": near["weight"]}, expected)
    logits = np.array([[1.0, 2.0], [3.0, 0.5]])
    moved = logits + np.array([[0.0, 0.002], [-2.7, 0.1]])
    counts = answers.moved_logits(logits, moved)
    assert list(counts.values()) == ["2 of 4", "1 of 2"]


@on_torch
@pytest.mark.parametrize(
    ("jit_compile", "engine"), [("auto", "recorded"), (True, "compiled")]
)
def test_first_steps_last_until_the_graph_is_replayed_and_find_no_cache(
    jit_compile, engine, monkeypatch
):
    for name in measure.CACHES:
        monkeypatch.setenv(name, "a full cache")
    rows = []
    with tiny_among_the_networks(compiler="aot_eager"):
        answers.first_steps(rows.append, {**SETTINGS, "jit_compile": jit_compile})
    (row,) = rows
    assert (row["row"], row["steps"]) == (f"rate-multi, {engine}", 4)
    # What is timed later is compiled before.
    with tiny_among_the_networks(compiler="eager"):
        answers.compilation(rows.append, {**SETTINGS, "jit_compile": True})
    assert rows[1]["seconds"] > 0
    assert not any("full" in os.environ[name] for name in measure.CACHES)


@pytest.mark.on_each_backend
def test_steps_are_timed_with_the_floor_and_failures_end_no_others():
    def failing(input_shape, classes, timesteps, gradient, step_mode, width):
        if isinstance(rsnn.gradients.get(gradient), rsnn.gradients.BPTT):
            raise RuntimeError("out of memory")
        return tiny(input_shape, classes, timesteps, gradient, step_mode, width)

    rows, methods = [], ("bptt-single", "rate-multi")
    with tiny_among_the_networks(failing):
        answers.steps(rows.append, {**SETTINGS, "methods": methods})
    forms = ["rate-multi"]
    if BACKEND == "jax":
        forms = ["rate-multi, unrolled", "rate-multi, loop"]
    errors = [row["error"] for row in rows if row["row"] == "bptt-single"]
    assert errors == ["RuntimeError: out of memory"]
    timed = {row["row"]: row for row in rows if "to floor" in row}
    assert set(timed) == {*forms, FLOOR, ORDINARY, FORWARD}
    if BACKEND == "torch":
        (look,) = [row for row in rows if "used" in row]
        assert look["used"] == "recorded"
        assert look["fetches"] >= 1
    with pytest.raises(RuntimeError, match="sees no GPU"):
        answers.steps(rows.append, SETTINGS, needs_gpu=True)


def test_work_of_the_floor_is_that_of_its_parts():
    ordinary = {"busy_seconds": 0.4, "kernels": 100.0}
    forward = {"busy_seconds": 0.2, "kernels": 30.0}
    floor = answers.floor_counts(ordinary, forward, timesteps=4)
    assert floor == {"busy_seconds": pytest.approx(1.0), "kernels": 190.0}


@on_torch
def test_kernels_and_synchronisations_are_counted_inside_of_steps():
    import torch

    from recipes.benchmark import trace

    def event(name, begin, end, on_gpu=False, annotation=False):
        kinds = torch.autograd.DeviceType
        return types.SimpleNamespace(
            name=name,
            time_range=types.SimpleNamespace(start=begin, end=end),
            device_type=kinds.CUDA if on_gpu else kinds.CPU,
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


# The command


@pytest.mark.on_each_backend
def test_the_command_says_what_it_needs(tmp_path, capsys):
    if BACKEND != "torch":
        assert gpu.main([str(tmp_path)]) == 2
        assert "KERAS_BACKEND=torch" in capsys.readouterr().err
        return
    assert gpu.main([__file__]) == 2
    assert __file__ in capsys.readouterr().err


@on_torch
@pytest.mark.slow
def test_all_questions_are_answered_on_a_cpu(tmp_path, capsys):
    assert gpu.main([str(tmp_path)]) == 0
    rows = gpu.rows_of(tmp_path / gpu.ROWS)
    assert {row["status"] for row in rows if "status" in row} == {"done"}
    assert gpu.NOT_EVIDENCE in capsys.readouterr().out

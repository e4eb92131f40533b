"""The questions about a GPU: each is answered in a process of its own, and none takes
the others down."""

import types

import pytest
from helpers import BACKEND, only_on

from recipes import command_line
from recipes.benchmark import gpu, step

pytestmark = pytest.mark.runs_once

on_torch = only_on("torch", "records calls on PyTorch")


def test_a_question_that_fails_or_hangs_is_told_and_the_rest_is_asked(tmp_path):
    hangs = "timeit --number 1000000000000 --setup print('begun',flush=True) pass"
    questions = [
        gpu.Question("fails", "no_such_module", 20),
        gpu.Question("hangs", hangs, 2),
        gpu.Question("is timed", "platform", 20),
        gpu.Question("is not timed", "platform", 20, is_timed=False),
    ]
    gpu.ask_all(questions, tmp_path, 0, 0)
    assert gpu.answer(questions[2], tmp_path) == "## is timed: not asked yet"
    gpu.ask_all(questions, tmp_path, 60, 60)
    assert "no_such_module" in (tmp_path / "fails.log").read_text()
    answers = [gpu.answer(question, tmp_path).split("\n\n") for question in questions]
    assert answers[:2] == [
        ["## fails: failed, or cut off", ""],
        ["## hangs: failed, or cut off", "begun"],
    ]
    for (title, text), name in zip(
        answers[2:], ("is timed", "is not timed"), strict=True
    ):
        assert title == f"## {name}"
        assert text
    # What is answered is not asked again.
    (tmp_path / "is timed.md").write_text("before")
    gpu.ask_all(questions[2:], tmp_path, 60, 60)
    assert gpu.answer(questions[2], tmp_path) == "## is timed\n\nbefore"


@pytest.mark.parametrize("is_gpu", [True, False])
def test_each_question_has_a_name_of_its_own_and_a_command_that_exists(is_gpu):
    asked = gpu.questions(is_gpu)
    assert len({question.name for question in asked}) == len(asked)
    commands = {"recipes.benchmark": step, "recipes.benchmark.gpu": gpu}
    for question in asked:
        module, *arguments = question.command.split()
        if module in commands:
            add_arguments = commands[module].add_arguments
            command_line.parser("", " ", add_arguments).parse_args(arguments)


def test_what_was_compiled_for_an_h100_stands_beside_what_is_measured():
    text = gpu.predicted()
    assert text.startswith("## Predicted\n\nCompiled by XLA, not run.")
    assert "| cifar10_resnet18, 8 | bptt-multi | 128 x 1 | 5,568 |" in text


@on_torch
def test_reference_cases_are_checked_one_by_one(capsys):
    assert gpu.check_reference("auto", ["no_such_case", "mlp_rate_m"]) == 1
    missing, case = capsys.readouterr().out.splitlines()
    assert missing.startswith("* no_such_case: FileNotFoundError")
    assert case == "* mlp_rate_m: agrees"
    assert gpu.check_reference(False, ["mlp_rate_m"]) == 0


@on_torch
def test_kernels_and_synchronisations_are_counted():
    import torch

    from recipes.benchmark import trace

    def average(key, count, seconds=0.0, on_gpu=False, is_user_annotation=False):
        kinds = torch.autograd.DeviceType
        return types.SimpleNamespace(
            key=key,
            count=count,
            device_type=kinds.CUDA if on_gpu else kinds.CPU,
            self_device_time_total=seconds * 1e6,
            is_user_annotation=is_user_annotation,
        )

    averages = [
        average("Optimizer.step#SGD.step", 2, 1.0, True, is_user_annotation=True),
        average("cudaLaunchKernel", 4),
        average("cuLaunchKernelEx", 2),
        average("aten::_local_scalar_dense", 2, 0.1),
        average("cudaStreamSynchronize", 2),
        average("cudaDeviceSynchronize", 2),
        average("conv", 4, 0.04, on_gpu=True),
        average("add", 2, 0.02, on_gpu=True),
        average("Memcpy DtoH (Device -> Pageable)", 2, 0.02, on_gpu=True),
    ]
    assert trace.counts(averages, steps=2) == {
        "busy_seconds": pytest.approx(0.04),
        "kernels": 3.0,
        "copies": 1.0,
        "launches": 3.0,
        "waits": 1.0,
        "fetches": 1.0,
    }
    assert trace.profile(torch.ones(2).sum().item)["fetches"] == 1.0


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
    text = (tmp_path / gpu.EVIDENCE).read_text()
    assert text.startswith(gpu.NOT_EVIDENCE)
    assert "cut off" not in text
    assert text == capsys.readouterr().out

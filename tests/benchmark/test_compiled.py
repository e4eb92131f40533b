"""Programs that are compiled ahead of time for devices that are not there."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest
from helpers import BACKEND

from recipes.benchmark import compiled, compiled_tables, costs, programs
from tests.benchmark.tiny_network import tiny

PAGE = pathlib.Path(compiled_tables.__file__).parents[2] / "docs" / "compiled.md"

on_jax = pytest.mark.skipif(BACKEND != "jax", reason="JAX asks XLA for programs")

PROGRAM = """\
HloModule step, num_partitions=2

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.9 = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %v = f32[8]{0} get-tuple-element(%p), index=1
  %f.1 = f32[8]{0:T(128)} fusion(%v), kind=kLoop, calls=%inner
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %f.1)
}

ENTRY %main (x: bf16[4,2], y: pred[]) -> (f32[8], pred[3]) {
  %x = bf16[4,2]{1,0} parameter(0)
  %y = pred[] parameter(1)
  %c = (f32[8]{0}, u8[0]{0}) custom-call(%x, %y), custom_call_target="__cudnn$conv"
  %g = f32[8]{0} get-tuple-element(%c), index=0
  %s = f32[8]{0} all-reduce-start(%g), channel_id=1, to_apply=%sum
  %d = f32[8]{0} all-reduce-done(%s)
  %w = (s32[], f32[8]{0}) while(%i), body=%body, {"known_trip_count":{"n":"5"}}
  ROOT %r = pred[3]{0} copy(%y)
}
"""


@pytest.mark.runs_once
def test_launches_loops_bytes_and_exchanges_of_a_program_are_counted():
    assert programs.counted(PROGRAM) == {
        "launches": 8,
        "kinds": {"library calls": 1, "all-reduce": 1, "fusions": 5, "copies": 1},
        "loops": 1,
        # The call reads 17 and writes 32, the sum and each round of the loop read and
        # write 32, the copy reads 1 and writes 3.
        "bytes": 49 + 64 + 5 * 64 + 4,
        "exchanges": {"all-reduce": 1},
        "exchanged_bytes": 32,
    }


@on_jax
def test_flops_are_those_of_the_program_before_a_compiler_changes_it():
    import jax

    traced = jax.jit(lambda a: (a @ a).sum()).trace(jax.numpy.ones((32, 32)))
    assert costs.flops_of_traced(traced) == pytest.approx(2 * 32**3, rel=0.03)


@pytest.fixture
def on_the_cpu(monkeypatch):
    """The command compiles for two of this machine's CPUs, of 10 MiB each."""
    import jax

    here = dataclasses.replace(
        compiled.TARGETS["h100"], options={}, memory_bytes=10 * 2**20
    )
    monkeypatch.setitem(compiled.TARGETS, "h100", here)
    monkeypatch.setattr(compiled, "_devices", lambda *_: jax.devices("cpu")[:1])


@on_jax
def test_a_network_of_a_file_takes_the_settings_of_the_command(
    on_the_cpu, tmp_path, capsys
):
    model, output = tmp_path / "model.keras", tmp_path / "record.json"
    tiny((8, 8, 3), 4, 2, "rate", "multi", 0.5).save(model)
    command = ["h100", str(model), "--output", str(output)]
    records = []
    for options in (
        [],
        ["--method", "bptt-multi", "--timesteps", "3", "--batch-size", "8"],
        ["--batch-size", "4096"],
    ):
        assert compiled.main([*command, *options]) == 0
        assert compiled.NOT_RUN in capsys.readouterr().out
        records.append(json.loads(output.read_text()))
    assert [
        (record["timesteps"], record["batch_size"], record["fits"])
        for record in records
    ] == [(2, compiled.FILE_BATCH, True), (3, 8, True), (2, 4096, False)]
    assert records[1]["method"] == "bptt-multi"
    assert "rate" in records[0]["method"].lower()
    for record in records:
        assert record["temporary_mib"] < record["held_mib"]
        assert record["launches"] > 0
        assert record["flops"] > 0
    # Time steps are unrolled as for a GPU, not as for the CPU that compiles here.
    assert records[0]["loops"] == 0
    assert compiled.main([*command, "--precision", "float32"]) == 2
    assert "`--precision` cannot change the SpikingModel" in capsys.readouterr().err
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(model)
    assert compiled.main([*command, "--timesteps", "2"]) == 2
    assert "`--timesteps` cannot change the Sequential" in capsys.readouterr().err


def test_the_command_says_what_it_needs(monkeypatch, capsys):
    elsewhere = dataclasses.replace(compiled.TARGETS["h100"], platform="cuda_of_none")
    monkeypatch.setitem(compiled.TARGETS, "h100", elsewhere)
    assert compiled.main(["h100", "digits"]) == 2
    error = capsys.readouterr().err
    assert (
        'install -e ".[h100]"' if BACKEND == "jax" else "KERAS_BACKEND=jax"
    ) in error


@pytest.mark.slow
@on_jax
@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None,
    reason="the compiler is not in the extra test: see .ci/versions compilers",
)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_an_h100_s_compiler_takes_the_steps_of_each_method(precision, tmp_path):
    output, memory = tmp_path / "record.json", {}
    for method in ("rate-multi", "rate-single", "bptt-multi"):
        command = f"h100 digits --method {method} --timesteps 8 --precision {precision}"
        module = [sys.executable, "-m", "recipes.benchmark.compiled"]
        subprocess.run(
            [*module, *command.split(), "--output", str(output)],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
            check=True,
        )
        record = json.loads(output.read_text())
        assert record["fits"]
        assert record["launches"] > 10
        assert record["loops"] == (method == "rate-single")
        memory[method] = record["temporary_mib"]
    assert max(memory["rate-multi"], memory["rate-single"]) < memory["bptt-multi"]


@pytest.mark.runs_once
def test_what_was_compiled_is_in_the_tables_and_not_compiled_again(
    tmp_path, monkeypatch, capsys
):
    found = [*compiled_tables.read_lines(compiled_tables.RESULTS)]
    by_line = {record["command"]: record for record in found}
    asked = []
    monkeypatch.setattr(
        compiled_tables, "_compiled", lambda line: asked.append(line) or found[0]
    )
    output = tmp_path / "compiled.jsonl"
    output.write_text("".join(json.dumps(record) + "\n" for record in found[:2]))
    command = ["--output", str(output)]
    assert compiled_tables.main(command) == 0
    lines = {line for lines in compiled_tables.TABLES.values() for line in lines}
    assert set(asked) == lines - {record["command"] for record in found[:2]}
    assert by_line.keys() <= lines
    assert compiled_tables.report(by_line) in PAGE.read_text()
    assert len(output.read_text().splitlines()) == len(lines)

"""Mutations of the library, made by hand: whether a test fails for each. Run on demand,
on PyTorch.

    python tests/mutations.py [--only N ...] [--engine] [--named]

Each changes a number, a formula or a guard in a temporary copy of the repository, where
the tests that are named run until one fails: first those that are the most likely to,
then the folders of tests/ that concern the file. `--engine` takes those of how steps
run, for which only the tests named here run.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = (
    "gradients",
    "layers",
    "model",
    "testing",
    "losses",
    "analysis",
    "conversion",
    "core",
)
"""Of tests/, in which a mutation is looked for that the tests named for it do not
find."""

# Each: the file, what is there once, what takes its place, and tests.
GRADIENTS = [
    (
        "keras_ratesnn/gradients/time/windows.py",
        "(*[1] * (windows - 1), timesteps - windows + 1)",
        "(timesteps - windows + 1, *[1] * (windows - 1))",
        "contract/test_drawn.py",
    ),
    (
        "keras_ratesnn/gradients/time/windows.py",
        "return _divided(total, self._counts[window])",
        "return _divided(total, self.sizes[window])",
        "gradients/test_time_masks.py",
    ),
    (
        "keras_ratesnn/gradients/time/windows.py",
        "return (size - 1) / size, 1 / size",
        "return 1.0, 1 / size",
        "layers/test_recurrent.py",
    ),
    (
        "keras_ratesnn/gradients/time/windows.py",
        "return self.sizes[window] / self.timesteps",
        "return 1.0 / len(self.sizes)",
        "model/test_layer_losses.py",
    ),
    (
        "keras_ratesnn/gradients/time/windows.py",
        "return self.mask is None and len(set(self.sizes)) == 1",
        "return self.mask is None",
        "contract/test_drawn.py",
    ),
    (
        "keras_ratesnn/gradients/time/derivative.py",
        "return spikes, after, along, 1.0",
        "return spikes, after, along, 0.5",
        "gradients/test_eligibility.py",
    ),
    (
        "keras_ratesnn/gradients/time/derivative.py",
        " and not inheritance.overrides_computation(type(cell), owner)",
        "",
        "gradients/test_eligibility.py",
    ),
    (
        "keras_ratesnn/gradients/time/loops.py",
        "outputs = [time_axis.zero_unless(valid, output) for output in outputs]",
        "outputs = list(outputs)",
        "gradients/test_time_masks.py",
    ),
    (
        "keras_ratesnn/gradients/time/loops.py",
        "return ops.where(time_axis.as_rows(valid, like), new, old)",
        "return new",
        "gradients/test_time_masks.py",
    ),
    (
        "keras_ratesnn/gradients/time/windows.py",
        "if len(values) >= rest",
        "if len(values) in (rest, len(self))",
        "contract/test_drawn.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/eligibility.py",
        "input_tangent, here = 0.0, phase[self.windows.since(window)]",
        "input_tangent, here = 1.0, phase[self.windows.since(window)]",
        "gradients/test_eligibility.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/normalization.py",
        "1.0 / (variance + self.operation.epsilon)",
        "1.0 / variance",
        "gradients/test_reference.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/normalization.py",
        "ops.maximum(square - ops.square(mean), 0.0)",
        "square",
        "layers/test_online_stabilization.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/random_mask.py",
        "state.mask.dtype) * masks",
        "state.mask.dtype)",
        "contract/test_contract.py::test_a_layer_keeps_its_promise"
        "[a_window_for_each_step_is_bptt-Dropout]",
    ),
    (
        "keras_ratesnn/gradients/handlers/random.py",
        "variable.assign(seed)",
        "pass",
        "layers/test_random_layers.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/mixing.py",
        "if self.context.between is None:",
        "if True:",
        "layers/test_time_mixing.py layers/test_delay.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/feedback.py",
        "ops.convert_to_tensor(total) / size",
        "ops.convert_to_tensor(total)",
        "layers/test_recurrent.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/parallel.py",
        "ops.sum(part, axis=1) / part.shape[1]",
        "ops.sum(part, axis=1)",
        "layers/test_parallel.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/encoder.py",
        "slope = self.operation.rate_derivative",
        "slope = 1.0",
        "layers/test_encoders.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/neuron.py",
        "slope = ops.where(some, 1.0 / ops.where(some, share, 1.0), 0.0)",
        "slope = ops.ones_like(share)",
        "gradients/test_row_masks.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/neuron.py",
        "return self.cell.in_parallel and self.context.between is None",
        "return self.cell.in_parallel",
        "layers/test_parallel.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/time_mean.py",
        "state.steps + 1.0",
        "state.steps + 2.0",
        "contract/test_contract.py::test_a_layer_keeps_its_promise"
        "[a_stream_is_the_sequence-TimeMean]",
    ),
    (
        "keras_ratesnn/gradients/handlers/handler.py",
        "windows.padding(context.training) / context.calls",
        "windows.padding(context.training)",
        "model/test_layer_losses.py",
    ),
    (
        "keras_ratesnn/gradients/handlers/operation.py",
        "if self.takes_time or not self.kind.affine or self._has_steps(inputs):",
        "if self.takes_time or self._has_steps(inputs):",
        "gradients/test_rate.py contract/test_drawn.py gradients/test_single_step.py",
    ),
    (
        "keras_ratesnn/gradients/recomputation.py",
        "total if gradient is None else total + gradient",
        "total if gradient is None else gradient",
        "gradients/test_online.py",
    ),
    (
        "keras_ratesnn/gradients/sltt.py",
        "return rank < self.random_steps",
        "return rank <= self.random_steps",
        "gradients/test_online.py",
    ),
    (
        "keras_ratesnn/gradients/sltt.py",
        "Network(run, nodes, between=stopped, chosen=chosen)",
        "Network(run, nodes, between=None, chosen=chosen)",
        "gradients/test_online.py",
    ),
    (
        "keras_ratesnn/gradients/ottt.py",
        "spikes, self.cell.trace_decay())",
        "spikes, 0.5 * self.cell.trace_decay())",
        "gradients/test_online.py",
    ),
    (
        "keras_ratesnn/gradients/rate.py",
        "engine.graft(value, rate, 1.0)",
        "engine.graft(value, rate, 0.5)",
        "gradients/test_rate.py",
    ),
    (
        "keras_ratesnn/gradients/rate.py",
        "if last_step and run.mask is not None:",
        "if False:",
        "gradients/test_time_masks.py core/test_errors.py",
    ),
]
LAYERS = [
    (
        "keras_ratesnn/layers/dynamics.py",
        "ops.cast(membrane >= threshold, membrane.dtype)",
        "ops.cast(membrane > threshold, membrane.dtype)",
        "layers/test_cells.py",
    ),
    (
        "keras_ratesnn/layers/dynamics.py",
        "1.0 if detach_reset else 1.0 - threshold * surrogate_derivative",
        "1.0",
        "layers/test_cells.py gradients/test_eligibility.py",
    ),
    (
        "keras_ratesnn/layers/dynamics.py",
        "membrane * (1.0 - spikes) + v_reset * spikes",
        "membrane * (1.0 - spikes)",
        "layers/test_cells.py",
    ),
    (
        "keras_ratesnn/layers/cells.py",
        "return (1.0 - decay) * before",
        "return before",
        "layers/test_cells.py gradients/test_eligibility.py",
    ),
    (
        "keras_ratesnn/layers/cells.py",
        "return tangent - threshold if learns_threshold else tangent, after",
        "return tangent, after",
        "layers/test_cells.py gradients/test_eligibility.py",
    ),
    (
        "keras_ratesnn/layers/adaptive.py",
        "(1.0 - adaptation_decay) * spikes",
        "spikes",
        "layers/test_cells.py layers/test_reference_neurons.py",
    ),
    (
        "keras_ratesnn/layers/integer.py",
        "return slope * self.spike_size",
        "return slope",
        "layers/test_integer.py",
    ),
    (
        "keras_ratesnn/layers/parallel_cells.py",
        "return (lag >= 0) & (lag < order)",
        "return (lag >= 0) & (lag <= order)",
        "layers/test_parallel.py",
    ),
    (
        "keras_ratesnn/layers/delay.py",
        "ops.exp(-0.5 * ops.square(distance))",
        "ops.exp(-1.0 * ops.square(distance))",
        "layers/test_delay.py",
    ),
    (
        "keras_ratesnn/layers/temporal_normalization.py",
        "keras.initializers.Constant(self.alpha * self.threshold)",
        "keras.initializers.Constant(self.alpha)",
        "layers/test_temporal_normalization.py",
    ),
    (
        "keras_ratesnn/layers/recurrent.py",
        'ops.zeros_like(state["spikes"])',
        'state["spikes"]',
        "layers/test_recurrent.py",
    ),
    (
        "keras_ratesnn/layers/threshold_stabilizer.py",
        "(initial - mean) / ops.where(differ, deviation, 1.0)",
        "initial / ops.where(differ, deviation, 1.0)",
        "layers/test_online_stabilization.py",
    ),
    (
        "keras_ratesnn/layers/firing_rate_scale.py",
        "momentum * before + (1.0 - momentum) * rates",
        "momentum * before + rates",
        "models/test_spikingresformer.py",
    ),
    (
        "keras_ratesnn/layers/online_renormalization.py",
        "if not (training and self.trainable):",
        "if not training:",
        "contract/test_contract.py::test_a_layer_keeps_its_promise"
        "[a_frozen_layer_stays_and_lets_the_gradient_through-OnlineRenormalization]",
    ),
    (
        "keras_ratesnn/layers/quantized.py",
        "engine.graft(used, kernel, 1.0)",
        "engine.graft(used, kernel, 0.5)",
        "layers/test_quantized.py",
    ),
    (
        "keras_ratesnn/layers/encoders.py",
        "ops.stop_gradient(encoded), inputs, self.rate_derivative)",
        "ops.stop_gradient(encoded), inputs, 0.5)",
        "layers/test_encoders.py",
    ),
    (
        "keras_ratesnn/layers/readout.py",
        "before, current, decay, self.decay_input",
        "before, current, decay",
        "layers/test_readout.py",
    ),
    (
        "keras_ratesnn/layers/weight_standardized.py",
        "(fan_in / (fan_in - 1))",
        "1.0",
        "layers/test_weight_standardized.py",
    ),
    (
        "keras_ratesnn/layers/current_based.py",
        "super().step(current, before)",
        "super().step(inputs, before)",
        "layers/test_cells.py layers/test_other_libraries.py",
    ),
    (
        "keras_ratesnn/layers/pooling.py",
        "[(size // 2, size // 2) for size in self.pool_size]",
        "[(size // 2, 0) for size in self.pool_size]",
        "layers models",
    ),
]
ENGINE = [
    (
        "keras_ratesnn/_core/backend/torch/graphs/fusion.py",
        "if is_recording() or not (kind in _kinds or _are_large(tensors)):",
        "if is_recording() or not _are_large(tensors):",
        "backend/test_fusion.py::test_an_existing_kernel_is_used_for_small_layers",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/fusion.py",
        "return self._attributes.unchanged()",
        "return True",
        "backend/test_fusion.py::test_no_change_of_what_a_cell_holds_goes_unnoticed",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/fusion.py",
        "if program.run is None or not (function.is_closed and self.are_present()):",
        "if program.run is None:",
        "backend/test_fusion.py::test_a_cell_with_effects_that_a_compiled_loop_would_not_have_is_not_compiled",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/compiler.py",
        "if len(self._compiled) >= MOST_LAYOUTS or None in layout:",
        "if None in layout:",
        "backend/test_fusion.py::test_a_time_loop_is_compiled_for_each_layout_on_gpus_until_there_are_too_many",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/compiler.py",
        "return tensors if len(tensors) > 1 else",
        "return tensors if tensors else",
        "model/test_call_graphs.py::test_no_operation_of_a_graph_has_a_list_of_one_result",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/call_graphs.py",
        "if len(self._calls) > GRAPHS_KEPT:",
        "if False:",
        "model/test_call_graphs.py::test_only_the_latest_kinds_of_calls_are_remembered",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/call_graphs.py",
        "return same and self.attributes.unchanged()",
        "return same",
        "model/test_recorded_settings.py::test_settings_are_found_wherever_they_are",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/cuda_graphs.py",
        "return [*_owned(results[: self._outputs]), *saved]",
        "return [*results[: self._outputs], *saved]",
        "backend/test_cuda_graphs.py",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/cuda_graphs.py",
        "if not self._memory.is_due(self) or self._is_in_use():",
        "if not self._memory.is_due(self):",
        "backend/test_cuda_graphs.py",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/graph_passes.py",
        'copies[node] = result.call_method("pop", (arguments,))',
        'copies[node] = result.call_method("__getitem__", (arguments, -1 - '
        "len(copies)))",
        "backend/test_graph_passes.py::test_a_backward_pass_frees_what_was_saved_after_its_last_use",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/small_operations.py",
        "if not changing.isdisjoint(memory):",
        "if False:",
        "backend/test_graph_passes.py",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/small_operations.py",
        "operation = operation.Scalar if is_one else operation.ScalarList",
        "operation, is_one = operation.Scalar, True",
        "backend/test_graph_passes.py",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/padding.py",
        "if amounts[:2] != (0, 0):",
        "if False:",
        "backend/test_graph_passes.py",
    ),
    (
        "keras_ratesnn/analysis/probe/_twins.py",
        "result = None if self._folder is None else",
        "result = None if True else",
        "analysis/test_temporal_probe.py",
    ),
    (
        "keras_ratesnn/analysis/probe/_frames.py",
        "for steps, counting in zip(order, self._counts, strict=True):",
        "for steps, counting in zip(order, self._counts | True, strict=True):",
        "analysis/test_temporal_probe.py",
    ),
    (
        "keras_ratesnn/analysis/probe/_paired.py",
        "variance = squares @ [1, 1, -1]",
        "variance = squares @ [1, 0, 0]",
        "analysis/test_temporal_probe.py",
    ),
    (
        "keras_ratesnn/models/pretrained/_archive.py",
        "if member.file_size > _LONGEST.get(member.filename, math.inf):",
        "if False:",
        "models/test_hubs.py",
    ),
    (
        "keras_ratesnn/models/pretrained/_hubs.py",
        '_check_size(f"{name} of {self.address}", size or 0, largest)',
        "pass",
        "models/test_hubs.py",
    ),
    (
        "keras_ratesnn/models/pretrained/_files.py",
        "if digest != card.sha256:",
        "if False:",
        "models/test_pretrained.py",
    ),
    (
        "recipes/benchmark/timing.py",
        "step + (timesteps - 1) * once",
        "step + timesteps * once",
        "benchmark/test_benchmark.py",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/graph.py",
        "forward = small_operations.batched_at_end(forward)",
        "pass",
        "backend/test_graph_passes.py::test_a_layer_more_adds_few_operations",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/graph.py",
        "graph_passes.use_means(part)",
        "pass",
        "gradients/test_costs_of_steps.py",
    ),
    (
        "keras_ratesnn/_core/backend/torch/graphs/recorder/graph.py",
        "random.read_seeds_once(part)",
        "pass",
        "backend/test_graph_passes.py::test_all_draws_have_the_numbers_of_eager_steps_and_their_seeds_are_read_at_once",
    ),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        metavar="N",
        help="the numbers of mutations, from 1 on",
    )
    parser.add_argument("--engine", action="store_true", help="those of how steps run")
    parser.add_argument(
        "--named",
        action="store_true",
        help="run the named tests alone, not the folders after them",
    )
    arguments = parser.parse_args()
    mutations = ENGINE if arguments.engine else GRADIENTS + LAYERS
    numbers = arguments.only or range(1, len(mutations) + 1)
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, "copy")
        shutil.copytree(
            ROOT,
            copy,
            ignore=shutil.ignore_patterns(
                ".git", "__pycache__", ".pytest_cache", "runs", "site"
            ),
        )
        for number in numbers:
            file, old, new, tests = mutations[number - 1]
            more = () if arguments.engine or arguments.named else FOLDERS
            killed = is_killed(
                copy, file, old, new, [tests.split(), *([name] for name in more)]
            )
            print(
                f"{number:3} {'killed' if killed else 'SURVIVED'}  {file}: {old!r} -> "
                f"{new!r}",
                flush=True,
            )
            survived += [] if killed else [number]
    print(
        f"{len(numbers) - len(survived)} of {len(numbers)} killed. Survived: "
        f"{survived or 'none'}"
    )
    return 1 if survived else 0


def is_killed(copy, file, old, new, groups):
    """Whether a test of one of the groups, lists of files or folders in tests/, fails
    with another text in a file."""
    path = copy / file
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(
            f"{file} must have this once: {old!r}. It has it {text.count(old)} times. "
            "Write the mutation anew."
        )
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        return any(fails(copy, tests) for tests in groups)
    finally:
        path.write_text(text, encoding="utf-8")


def fails(copy, tests):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-n",
        "0",
        *(f"tests/{name}" for name in tests),
    ]
    environment = {
        **os.environ,
        "KERAS_BACKEND": "torch",
        # No mutation depends on which pairs of the contract are drawn.
        "CONTRACT_PAIRS": "all",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    found = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    if found.returncode not in (0, 1):
        raise SystemExit(
            "The tests could not run: "
            f"{' '.join(command)}\n{found.stdout[-2000:]}{found.stderr[-2000:]}"
        )
    return found.returncode == 1


if __name__ == "__main__":
    sys.exit(main())

"""Checks of a cell's step, outside a network."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend import engine
from keras_ratesnn.testing._findings import require, require_same, to_numpy

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "float64")


def check_outputs(subject):
    """Checks that a step returns three outputs, with a state that a loop can carry."""
    cell = subject.copy()
    inputs = ops.convert_to_tensor(subject.inputs[0], dtype=cell.compute_dtype)
    at_rest = cell.initial_state(inputs)
    for leaf in tree.flatten(at_rest):
        require(
            ops.is_tensor(leaf),
            f"{subject.name}.initial_state must return tensors. It returned {leaf!r}.",
        )
        require(
            len(leaf.shape) == 0 or leaf.shape[0] == len(subject.inputs[0]),
            f"The state of {subject.name} must have the batch as its first axis. "
            f"`initial_state` returned a tensor of shape {tuple(leaf.shape)} for a "
            f"batch of {len(subject.inputs[0])}.",
        )
        require(
            np.isfinite(to_numpy(leaf)).all(),
            f"The state of {subject.name} must be finite: a sample with an infinite "
            "state counts as broken, and its outputs become NaN. `initial_state` "
            "returned a state that is not. Use a large number instead.",
        )
    outputs = cell.step(inputs, at_rest)
    require(
        isinstance(outputs, tuple) and len(outputs) == 3,
        f"{subject.name}.step must return (membrane, spikes, state). It returned "
        f"{_described(outputs)}.",
    )
    membrane, spikes, state = outputs
    for name, tensor in {"membrane": membrane, "spikes": spikes}.items():
        require(
            tuple(tensor.shape) == tuple(inputs.shape),
            f"The {name} that {subject.name}.step returns must have the shape of its "
            f"input. Its shape is {tuple(tensor.shape)}, that of the input "
            f"{tuple(inputs.shape)}.",
        )
    require(
        _described(state) == _described(at_rest),
        f"The state of {subject.name} must keep its structure, shapes and dtypes, so "
        f"that a loop can carry it. `initial_state` returned {_described(at_rest)}, "
        f"`step` {_described(state)}.",
    )


def check_spikes(subject):
    """Checks that spikes are exactly 0 or 1, or what a cell with integer spikes states,
    and that more than one value occurs."""
    spikes = np.stack(to_numpy(subject.steps(subject.copy(), subject.inputs)[0]))
    # Membranes far below rest and far above the threshold, where a cell might have
    # spikes of -1 or 2.
    strong = [
        to_numpy(subject.steps(subject.copy(), factor * subject.inputs)[0])
        for factor in (10.0, -10.0)
    ]
    wrong = np.setdiff1d([spikes, *strong], subject.values())
    require(
        wrong.size == 0,
        f"Spikes must be exactly {subject.values_as_text()}. {subject.name} returned "
        f"{', '.join(map(str, wrong[:3]))}. Compute them with `self.fire(membrane)`, "
        "or state in the attribute `levels` how many spikes a step may emit.",
    )
    how_often = "never spiked" if spikes.mean() == 0.0 else "spiked at every step"
    require(
        0.0 < spikes.mean() < subject.values()[-1],
        f"{subject.name} {how_often} for "
        f"inputs between {subject.inputs.min():.2f} and {subject.inputs.max():.2f}: "
        "nothing can be checked this way. Call check_cell with another `scale`.",
    )


def check_membrane(subject):
    """Checks that the membrane that a step returns is the one that spikes, before the
    reset."""
    cell = subject.copy()
    fired = []
    fire = cell.fire

    def recorded(membrane, *args, **kwargs):
        fired.append(membrane)
        return fire(membrane, *args, **kwargs)

    cell.fire = recorded
    state = cell.initial_state(ops.convert_to_tensor(subject.inputs[0]))
    for inputs in subject.inputs:
        fired.clear()
        membrane, _, state = cell.step(ops.convert_to_tensor(inputs), state)
        # A cell may leave spikes to another cell, or fire several times.
        returned = to_numpy(membrane)
        same = [
            np.allclose(to_numpy(argument), returned, rtol=1e-5, atol=1e-6)
            for argument in fired
        ]
        require(
            not same or any(same),
            f"The membrane that {subject.name}.step returns must be the one that it "
            "gives to `self.fire`, before the reset: gradients and "
            "`analysis.membranes` read it. Return it as it was before the reset, and "
            "pass a threshold that changes as the argument `threshold` of `fire`.",
        )


def check_gradient_of_spikes(subject):
    """Checks that spikes have a gradient with respect to the input, by the surrogate of
    `self.fire`."""
    cell = subject.copy()
    currents = engine.differentiable(ops.convert_to_tensor(subject.inputs))
    upstream = [ops.ones(subject.inputs.shape[1:])] * len(subject.inputs)

    def has_gradient(which):
        def outputs(currents):
            state, tensors = cell.initial_state(currents[0]), []
            for t in range(len(subject.inputs)):
                *both, state = cell.step(currents[t], state)
                tensors.append(both[which])
            return tensors, ()

        (gradient,), _ = engine.gradient_of(outputs, [currents], upstream)
        return gradient is not None and bool(np.any(to_numpy(gradient)))

    require(
        has_gradient(0),
        f"The membrane that {subject.name}.step returns has no gradient with respect "
        "to the input: nothing before the neurons could learn. Compute it with "
        "keras.ops, without ops.stop_gradient, detach or NumPy.",
    )
    require(
        has_gradient(1),
        f"The spikes that {subject.name}.step returns have no gradient with respect to "
        "the input: nothing before the neurons could learn. Compute them with "
        "`self.fire(membrane)`, which has the derivative of the surrogate, and return "
        "them without ops.stop_gradient.",
    )


def check_no_hidden_state(subject):
    """Checks that the same input and state always give the same result, but for random
    numbers of the cell's own generator."""
    cell = subject.copy()
    dtype = cell.compute_dtype
    first = ops.convert_to_tensor(subject.inputs[0], dtype=dtype)
    second = ops.convert_to_tensor(subject.inputs[1], dtype=dtype)
    at_rest = cell.initial_state(first)
    before = to_numpy(list(cell.variables))
    expected = to_numpy(cell.step(first, at_rest))
    cell.step(second, at_rest)
    subject.rewind(cell)
    require_same(
        to_numpy(cell.step(first, at_rest)),
        expected,
        f"{subject.name}.step gave a different result when it was called again with "
        "the same input and state. It must depend only on its arguments and weights: "
        "store what it must remember in the state, and draw random numbers from a "
        "keras.random.SeedGenerator that is an attribute of the cell.",
    )
    subject.rewind(cell)
    after = to_numpy(list(cell.variables))
    require_same(
        after,
        before,
        f"{subject.name}.step changed its variables. Store what it must remember in "
        "the state.",
    )


def check_samples(subject):
    """Checks that samples do not affect each other, unless the cell draws random
    numbers, which depend on the number of samples."""
    if subject.seeds:
        return
    cell = subject.copy()
    together = to_numpy(subject.steps(cell, subject.inputs))
    for sample in range(subject.inputs.shape[1]):
        alone = to_numpy(subject.steps(cell, subject.inputs[:, sample : sample + 1]))
        part = tree.map_leaves(
            lambda leaf, i=sample: leaf[i : i + 1] if leaf.ndim else leaf, together
        )
        finding = (
            f"Sample {sample} gives different results in a batch of "
            f"{subject.inputs.shape[1]} and alone"
        )
        require_same(
            part,
            alone,
            f"{finding}: {subject.name} mixes the samples of a batch.",
            rtol=1e-5,
            atol=1e-6,
        )


def check_dtypes(subject):
    """Checks that the state is float32 or wider, and spikes have the compute dtype."""
    for policy in POLICIES:
        if policy == "float64" and not has_float64():
            continue
        cell = subject.copy(dtype=policy)
        spikes, states = subject.steps(cell, subject.inputs)
        wanted = "float64" if policy == "float64" else "float32"
        for leaf in tree.flatten(states):
            dtype = keras.backend.standardize_dtype(leaf.dtype)
            require(
                not tree.is_float(leaf) or dtype == wanted,
                f"With dtype={policy!r} the state of {subject.name} must be {wanted}, "
                f"but is {dtype}. Cast inputs to the dtype of the state: "
                "ops.cast(inputs, state.dtype).",
            )
        inputs = ops.convert_to_tensor(subject.inputs[0], dtype=cell.compute_dtype)
        membrane, step_spikes, _ = cell.step(inputs, states[0])
        for name, tensor in {"membrane": membrane, "spikes": step_spikes}.items():
            dtype = keras.backend.standardize_dtype(tensor.dtype)
            finding = (
                f"With dtype={policy!r} the {name} of {subject.name}.step must "
                f"be {wanted}, but are {dtype}."
            )
            require(dtype in (wanted, cell.compute_dtype), finding)
        dtypes = {keras.backend.standardize_dtype(tensor.dtype) for tensor in spikes}
        finding = f"With dtype={policy!r} the spikes of {subject.name}"
        require(
            dtypes == {cell.compute_dtype},
            f"{finding} must be {cell.compute_dtype}, but are {sorted(dtypes)}.",
        )
        are_right = np.isin(
            np.stack(to_numpy(spikes)), subject.values(cell.compute_dtype)
        ).all()
        require(are_right, f"{finding} are not exactly {subject.values_as_text()}.")


def has_float64():
    """Whether the backend computes in float64."""
    # JAX warns that it uses float32, unless float64 is enabled.
    with warnings.catch_warnings(action="ignore"):
        zero = ops.zeros((), dtype="float64")
    return keras.backend.standardize_dtype(zero.dtype) == "float64"


def _described(structure):
    """Structure, shapes and dtypes as text, for comparison and error messages."""

    def described(leaf):
        if not hasattr(leaf, "shape"):
            return leaf
        return f"{keras.backend.standardize_dtype(leaf.dtype)}{list(leaf.shape)}"

    return str(tree.map_leaves(described, structure))


CHECKS = (
    check_outputs,
    check_spikes,
    check_no_hidden_state,
    check_samples,
    check_dtypes,
    check_membrane,
    check_gradient_of_spikes,
)

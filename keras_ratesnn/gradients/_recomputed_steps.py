"""Single-step mode with memory that does not grow with T, for methods without gradient between time steps.

All steps run without gradient. Once the gradient of their outputs is known, they run again, each followed by its own backward
pass. A training step costs about 4T forward passes; storing all activations costs 3T.
"""

from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree
from keras_ratesnn.gradients import _compiled_loop
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.record import Record
from keras_ratesnn.gradients.signals import Signal
from keras_ratesnn.gradients.step_modes import SingleStep


def recomputed(run, rule, chosen=None):
    """The outputs of a run.

    Args:
        run: `Run`, in single-step mode.
        rule: Function `step_mode -> ForwardRule`, the rule used to differentiate a step.
        chosen: Boolean tensor `(T,)`: which steps carry gradient. Defaults to `None`, all steps.
    """
    step_mode, noise = SingleStep(run.timesteps, mask=run.mask), backend.noise_state()
    first = _FirstSweep(step_mode, run.training, with_gradient=False)
    # Keras collects them from all layers each time.
    variables = run.network.variables
    changing = _compiled_loop.changing_of(variables)
    # The backward pass reuses the variable reads of the forward pass.
    with backend.reading_once(run.network):
        values = keras_internals.values_of(variables)
        for index in changing:
            # The first sweep changes these variables, in place on PyTorch.
            values[index] = ops.copy(values[index])
        gathered = step_mode.sweep(first, run)
    losses = step_mode.record.losses
    given = _given(run, step_mode, values, chosen)
    parts = _Parts(given, _differentiable(given, variables))
    recomputation = Recomputation(run, rule, variables, changing, keys=list(losses), noise=noise, parts=parts)
    # Integers and booleans have no gradient.
    flat = [*filter(tree.is_float, tree.flatten(gathered)), *losses.values()]
    results = iter(backend.with_backward(flat, *recomputation.parts.split(given), recomputation.backward))
    gathered = tree.map_leaves(lambda leaf: next(results) if tree.is_float(leaf) else leaf, gathered)
    losses.update({key: next(results) for key in recomputation.keys})
    return step_mode.outputs_of(run, gathered)


def _given(run, step_mode, values, chosen):
    """All tensors that the steps depend on, after the first sweep with a step mode."""
    return {
        "inputs": [tensor for tensor, _ in run.inputs],
        "constants": {key: tree.map_leaves(lambda signal: signal.value, of) for key, of in step_mode.constants.items()},
        "masks": {key: tree.map_leaves(_mask_of, of) for key, of in step_mode.constants.items()},
        "variables": values,
        "drawn": step_mode.record.drawn(),
        "chosen": () if chosen is None else chosen,
        "mask": () if run.mask is None else run.mask,
    }


class Recomputation:
    """Runs the steps again, each followed by its own backward pass.

    Args:
        run: The `Run`.
        rule: Function `step_mode -> ForwardRule`.
        variables: List of the variables of the network.
        changing: List of the indices of those that a walk changes.
        keys: The keys of the calls that have losses.
        noise: The state of the backend's generator before the first sweep.
        parts: `_Parts` of what the steps are given: what may have a gradient, and the rest.
    """

    def __init__(self, run, rule, variables, changing, keys, noise, parts):
        self.run = run
        self.rule = rule
        self.variables = variables
        self.changing = changing
        self.keys = keys
        self.noise = noise
        self.parts = parts

    def step(self, given, t, record, changed):
        """`([outputs, losses], (record, changed))` of one step."""
        run, mask = self.run, given["mask"] if ops.is_tensor(given["mask"]) else None
        step_mode = SingleStep(run.timesteps, mask=mask)
        step_mode.constants = {
            key: tree.map_leaves(_constant, of, given["masks"][key]) for key, of in given["constants"].items()
        }

        def signals():
            return [
                step_mode.begin(tensor, has_time) for tensor, (_, has_time) in zip(given["inputs"], run.inputs, strict=True)
            ]

        def walk():
            return step_mode.walk_step(self.rule(step_mode), run.walk, signals, t, record)

        (record, outputs), changed = _compiled_loop.in_scope(walk, self.variables, given["variables"], self.changing, changed)
        outputs = tree.flatten(outputs)
        outputs = list(filter(tree.is_float, outputs)) if run.return_sequences else list(map(time_axis.widen, outputs))
        return [*outputs, *(record.losses[key] for key in self.keys)], (record, changed)

    def backward(self, inputs, others, upstream):
        """The gradients with respect to the inputs, summed over all steps."""
        given = self.parts.joined(inputs, others)

        def advance(t, carried):
            totals, *state = carried

            def with_derivative():
                gradients, state_after = backend.gradient_of(
                    lambda *inputs: self.step(self.parts.joined(inputs, others), t, *state), inputs, self._of_step(upstream, t)
                )
                sums = [x if gradient is None else x + gradient for x, gradient in zip(totals, gradients, strict=True)]
                return sums, *state_after

            def without_derivative():
                return totals, *backend.detached(self.step, given, t, *state)[1]

            if not ops.is_tensor(given["chosen"]):
                return with_derivative()
            chosen = ops.take(given["chosen"], t)
            if backend.replicas.count() > 1 and not backend.replicas.PROCESSES:
                # TensorFlow's replicas cannot exchange statistics in a branch.
                sums, *after = with_derivative()
                return [ops.where(chosen, new, old) for new, old in zip(sums, totals, strict=True)], *after
            return ops.cond(chosen, with_derivative, without_derivative)

        changed = [given["variables"][index] for index in self.changing]
        with backend.repeated_noise(self.noise):
            carried = advance(0, ([ops.zeros_like(tensor) for tensor in inputs], Record.empty(**given["drawn"]), changed))
            if self.run.timesteps > backend.unrolled_network_steps():
                carried = ops.fori_loop(1, self.run.timesteps, advance, carried)
            else:
                for t in range(1, self.run.timesteps):
                    carried = advance(t, carried)
        return carried[0]

    def _of_step(self, upstream, t):
        """The gradient of the results of one step."""
        if not self.run.return_sequences:
            return upstream
        outputs = len(upstream) - len(self.keys)
        return [*(ops.take(each, t, axis=1) for each in upstream[:outputs]), *upstream[outputs:]]


def _mask_of(signal):
    """The mask that Keras has put on the tensor of a signal, `()` if there is none: layers after it look for it there."""
    mask = keras_internals.mask_of(signal.value)
    return () if mask is None else mask


def _constant(value, mask):
    """The signal of a tensor that is the same at every step, with its mask."""
    return Signal(keras_internals.put_mask(value, mask if ops.is_tensor(mask) else None), static=True)


def _differentiable(given, variables):
    """Whether each leaf of the inputs of the steps may have a gradient."""
    return [
        *(tree.is_float(leaf) for leaf in tree.flatten([given["inputs"], given["constants"]])),
        *(False for _ in tree.flatten(given["masks"])),
        *(variable.trainable for variable in variables),
        *(False for _ in tree.flatten([given["drawn"], given["chosen"], given["mask"]])),
    ]


class _Parts:
    """Splits a structure of tensors into two lists: flagged tensors and the others."""

    def __init__(self, structure, flags):
        self.structure = tree.map_leaves(lambda _: None, structure)
        self.flags = flags

    def split(self, structure):
        leaves = list(zip(tree.flatten(structure), self.flags, strict=True))
        return [leaf for leaf, flag in leaves if flag], [leaf for leaf, flag in leaves if not flag]

    def joined(self, flagged, others):
        flagged, others, flags = iter(flagged), iter(others), iter(self.flags)
        return tree.map_leaves(lambda _: next(flagged if next(flags) else others), self.structure)


class _FirstSweep(ForwardRule):
    """The spiking network; only operations that are the same at every step have a gradient."""

    def evaluate(self, function, *args):
        return backend.detached(function, *args)

"""Spatial learning through time: separate backpropagation at each time step."""

from collections.abc import Sequence

import keras
from keras import ops, random

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.handler import stopped
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.network import Network, in_time, plain, plain_nodes
from keras_ratesnn.gradients.recomputation import recomputed
from keras_ratesnn.gradients.run import Run


@registry.register
class SLTT(GradientMethod):
    """Spatial learning through time: BPTT without gradient between time steps.

    Each step is differentiated separately; the state of the previous step is treated as
    a constant: ∇W = Σ_t δ_t ⊗ s_t, with the error δ_t of the layer's output and its
    input spikes s_t. With `step_mode="single"` the memory of a training step does not
    grow with T.

    Args:
        random_steps: Integer K >= 1. Only K of the T steps, drawn again for each batch,
            carry gradient (SLTT-K). The gradient is not rescaled: its mean is K / T of
            that of all steps. With a mask the steps are drawn from the V <= T that
            are no padding for at least one sample, each as likely as any other, be it
            of one sample or of all, and the mean is K / V of that; if V <= K, all carry
            gradient. Losses that layers add, and activity regularisation, carry
            gradient at the same steps; their value is that of all steps. Where steps
            are recomputed, a training step costs 2T + 2K forward passes; otherwise as
            much as that of all steps. Defaults to `None`, all steps.
        recompute: Boolean, only used with `step_mode="single"`. If `True`, each step is
            recomputed for its backward pass and nothing of size T is stored; a training
            step then costs about 4T forward passes. Otherwise all activations are
            stored, and a training step costs 3T. Defaults to `True`.

    Raises:
        TypeError: If `random_steps` is not an integer or `recompute` not a boolean.
        ValueError: If `random_steps` is not >= 1. In training, if there are fewer time
            steps.

    Source: Meng et al., "Towards Memory- and Time-Efficient Backpropagation for
    Training Spiking Neural Networks", ICCV 2023.
    """

    in_config = "random_steps", "recompute"

    def __init__(self, random_steps: int | None = None, recompute: bool = True) -> None:
        if random_steps is not None:
            checks.positive_integer(
                "random_steps",
                random_steps,
                advice="None lets all steps carry gradient.",
            )
        self.random_steps = random_steps
        self.recompute = checks.boolean("recompute", recompute)

    @property
    def uses_random_numbers(self) -> bool:
        return self.random_steps is not None

    def call(self, run: Run) -> Structure:
        draws_now = self.uses_random_numbers and run.training and run.with_gradient
        chosen = self._chosen(run) if draws_now else None
        return run_online(run, self.recompute, chosen=chosen)

    def _chosen(self, run):
        steps = ops.arange(run.timesteps, dtype="int32")
        rank = random.shuffle(steps, seed=run.seed_generator)
        if run.mask is None:
            return rank < self.random_steps
        # The replicas of a model draw the same steps.
        (samples,) = engine.replicas.sums(
            ops.sum(ops.cast(run.mask, "float32"), axis=0)
        )
        counts = ops.take(samples > 0.0, ops.argsort(rank))
        number = ops.cumsum(ops.cast(counts, "int32"))
        first = ops.logical_and(counts, number <= self.random_steps)
        return ops.take(first, rank)

    def check(self, neurons: Sequence[keras.layers.Layer]) -> None:
        for neuron in neurons:
            if neuron.cell.sees_all_steps:
                kind = type(neuron).__name__
                raise ValueError(
                    'gradient="sltt" differentiates each time step by itself. '
                    f"Received: layer {neuron.name!r} of type {kind}, whose spikes "
                    "depend on inputs of all steps, and which has no state. Train with "
                    'gradient="bptt" or "rate".'
                )

    def check_timesteps(self, timesteps: int) -> None:
        if self.random_steps is not None and self.random_steps > timesteps:
            raise ValueError(
                "`random_steps` must be at most timesteps. Received: "
                f"random_steps={self.random_steps} for timesteps={timesteps}. Leave it "
                "out to let all steps carry gradient."
            )


def run_online(run, recompute, nodes=plain_nodes, chosen=None):
    """The outputs of a run whose steps are differentiated one by one.

    Args:
        run: `Run`.
        recompute: Boolean, whether single-step mode recomputes each step for its
            backward pass and stores none.
        nodes: See `Network`; other nodes than the plain ones put tensors in the place
            of weights.
        chosen: See `Context`.
    """
    if not run.with_gradient:
        return plain(run)
    recompute = recompute and run.step_mode == "single"
    if recompute or nodes is not plain_nodes:
        engine.check_replaced_weights(
            run.network, ": single-step mode keeps the activations of one step alone"
        )
    if recompute:
        return recomputed(run, nodes, stopped, chosen)
    return in_time(Network(run, nodes, between=stopped, chosen=chosen))

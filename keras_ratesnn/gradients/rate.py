r"""Rate-based backpropagation: the exact spiking forward pass, and one backward pass
through firing rates.

A first walk runs the spiking network without gradient, in multi-step or single-step
mode, and records what a second walk needs. The second walk, with gradient, runs the
network once on firing rates, the time means of the spikes. The value of a rate is the
exact time mean of the spiking path, so the loss is the true loss of the spiking
network. Its derivative is local:

    neuron                ∂r/∂c = g, the eligibility, see `time.derivative`
    normalisation         derivative at the mean input c, see `normalize_rate`
    any other operation   derivative of the operation at its input rate

so that ∂L/∂W = (∂L/∂c) rᵀ: autodiff stores one value per neuron instead of T, and
backpropagates once.

Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks
through Rate-based Backpropagation", NeurIPS 2024. Unlike in the authors' program, the
gradient is not divided by T.
"""

from collections.abc import Sequence

import keras

from keras_ratesnn._core import checks, keras_internals, registry, time_axis, tree
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients import neuron_independence
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.network import Network, plain
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.time.derivative import has_written_derivative
from keras_ratesnn.gradients.time.windows import fit, sizes_of
from keras_ratesnn.layer_kinds import seeds_of


@registry.register
class Rate(GradientMethod):
    """Rate-based backpropagation: one backward pass through firing rates, as in an
    ordinary network.

    The loss is that of the spiking network. The gradient is BPTT's for T = 1; otherwise
    it approximates that, in deep networks before training only roughly: see
    `analysis.gradient_agreement`. The cost and memory of the backward pass do not grow
    with T. `windows` interpolates between this gradient and BPTT: each of W consecutive
    time windows has a rate. A training step then costs T + 2W forward passes and W
    times the memory of an ordinary network. One window gives the gradient of the paper,
    T windows that of BPTT.

    Args:
        windows: Integer W from 1 to T, or a tuple of sizes that add up to T. With an
            integer, each of the first W - 1 steps, in which membranes rise from rest,
            is a window of its own, and the last window holds the remaining steps.
            Defaults to `1`.
        last_step_statistics: Boolean, only used with `step_mode="single"`. If `True`,
            the rate pass takes the statistics of batch normalisation, and the frame of
            an input with time, from the last step only, like the authors' program.
            Otherwise it uses means over time, as in the paper. If every step has its
            own frame, the gradient of the first layer is then closer to BPTT's;
            otherwise there is no difference. Defaults to `False`.

    Raises:
        TypeError: If `windows` is not an integer or tuple of integers, or
            `last_step_statistics` not a boolean.
        ValueError: If a size is not >= 1, `windows` is a dict, or
            `last_step_statistics=True` is combined with several windows. In training,
            if T steps cannot be split this way.

    Source: Yu et al., NeurIPS 2024; windows are an extension of this library.
    """

    in_config = "windows", "last_step_statistics"

    def __init__(
        self, windows: int | Sequence[int] = 1, last_step_statistics: bool = False
    ) -> None:
        self.windows = _checked_windows(windows)
        self.last_step_statistics = checks.boolean(
            "last_step_statistics", last_step_statistics
        )
        if self.last_step_statistics and self.windows != 1:
            raise ValueError(
                "`last_step_statistics=True` needs a single rate for all steps. "
                f"Received: windows={self.windows}. Leave one of the two arguments out."
            )

    def call(self, run: Run) -> Structure:
        if not run.with_gradient:
            return plain(run)
        last_step = self.last_step_statistics and run.step_mode == "single"
        if last_step and run.mask is not None:
            raise ValueError(
                "`last_step_statistics=True` takes the statistics of one step, which "
                "is padding for some of the sequences. Received: a mask in time. Use "
                "Rate(), whose statistics are those of all steps that are not masked."
            )
        network = Network(
            run,
            windows=self._sizes(run),
            records=True,
            last_step=last_step,
            with_gradient=False,
            detached=True,
        )
        with engine.reading_once(run.network):
            constants = network.once()
            states, outputs = network.run_steps(constants)
            rates = network.rates(states, constants)
        outputs = network.commit(states, outputs)
        windows = network.windows
        rate_of_output = windows.at_each_step if run.return_sequences else windows.mean

        def with_derivative(value, rate, slot):
            # The mean of integers, of which all steps are there instead of a rate, has
            # no derivative.
            if not (time_axis.is_float(value.dtype) and time_axis.is_float(rate.dtype)):
                return value
            rate = windows.repeat(rate) if slot.index in network.static else rate
            rate = time_axis.cast(rate_of_output(rate), value.dtype)
            grafted = engine.graft(value, rate, 1.0)
            return keras_internals.masked_as(grafted, value)

        return tree.map_leaves(with_derivative, outputs, rates, network.outputs)

    def _sizes(self, run):
        """The sizes of the windows. In inference, if the windows do not fit, a single
        window with all steps."""
        if not run.training and not fit(self.windows, run.timesteps):
            return (run.timesteps,)
        return sizes_of(self.windows, run.timesteps)

    def check(self, neurons: Sequence[keras.layers.Layer]) -> None:
        for neuron in neurons:
            if neuron.couples_neurons:
                raise ValueError(
                    'gradient="rate" keeps one eligibility per neuron, so neurons must '
                    f"be independent. Received: layer {neuron.name!r}, whose "
                    "thresholds depend on all membranes (threshold_stabilizer=True). "
                    'Train with gradient="sltt" or "bptt", or leave the stabilizer out.'
                )
            cell = neuron.cell
            if cell.in_parallel and seeds_of(cell):
                raise ValueError(
                    'gradient="rate" computes all steps of a parallel cell more than '
                    f"once. Received: layer {neuron.name!r}, which draws random "
                    'numbers. Train with gradient="bptt", or draw them in another '
                    "layer."
                )
            if not (
                cell.in_parallel or has_written_derivative(cell.independent_cell())
            ):
                neuron_independence.check(neuron)

    def check_timesteps(self, timesteps: int) -> None:
        sizes_of(self.windows, timesteps)


def _checked_windows(windows):
    advice = (
        "Pass the number of time windows, such as windows=2, or a tuple of their "
        "sizes, such as windows=(1, 3)."
    )
    if isinstance(windows, dict):
        # Not a TypeError, around which Keras writes the whole config of a saved model.
        raise ValueError(
            f"`windows` must be the same in all layers. Received: windows={windows!r}. "
            f"{advice}"
        )
    if isinstance(windows, (tuple, list)):
        if not windows:
            raise ValueError(
                f"`windows` must not be empty. Received: windows={windows!r}. {advice}"
            )
        return tuple(
            checks.positive_integer(f"windows[{index}]", size, advice=advice)
            for index, size in enumerate(windows)
        )
    return checks.positive_integer("windows", windows, advice=advice)

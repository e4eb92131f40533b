r"""Shifts the input currents of calibrated neurons, so that their mean output is that
of the activations they replace.

A calibrated neuron rounds and clips. Its input also arrives as spikes, later and less
evenly than the constant current that the rounding assumes. All this lowers the firing
rates, and the deficit grows from layer to layer. Layer by layer, in a network in which
the layers before are already corrected, a constant current

    b <- b + D τ (mean of a/θ - mean of s_t / D)

is added to the neurons of up to D spikes in a step, where the means run over samples,
neurons and time steps. Rows that are masked do not count: neurons do not spike there.

Source: Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural
Networks Calibration", ICML 2021, whose light pipeline shifts each channel. One shift
for a layer loses less of what fine-tuning can reach.
"""

import keras
from keras import ops

from keras_ratesnn._core import keras_internals, progress
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.extend import NeuronHandler, with_neurons
from keras_ratesnn.gradients.observing import Observing
from keras_ratesnn.spiking_model import SpikingModel

ROUNDS = 3
"""How often the current of a layer is corrected. The rate is not linear in the current;
more rounds change little."""


class _Shifting(NeuronHandler):
    """Neurons whose currents are shifted before they run.

    Args:
        call: See `Handler`.
        context: See `Handler`.
        wanted: Float, the mean firing rate that is wanted, as a fraction of the largest
            one.
        shifted: Function of the layer and its shift, called once.
    """

    def __init__(self, call, context, wanted, shifted):
        super().__init__(call, context)
        self._wanted, self._shifted = wanted, shifted

    def all_steps(self, state, inputs):
        (current,), cell, shift = inputs, self.operation.cell, 0.0
        mask = keras_internals.row_mask(current)
        share = (
            1.0 if mask is None else float(ops.mean(ops.cast(mask, "float32"))) or 1.0
        )
        for _ in range(ROUNDS):
            _, (spikes,) = super().all_steps(state, [current])
            rate = float(ops.mean(ops.cast(spikes, "float32"))) / (
                cell.levels * cell.spike_size * share
            )
            change = cell.levels * cell.threshold * (self._wanted - rate)
            current = keras_internals.masked_as(current + change, current)
            shift += change
        self._shifted(self.operation, shift)
        return super().all_steps(state, [current])


def mean_shifts(network, timesteps, tensors, rates, step_mode, verbose):
    """The shifts of input currents.

    Args:
        network: A network of one time step with neurons.
        timesteps: Integer T.
        tensors: List of tensors, a batch of its inputs, without time.
        rates: Dict of neuron layers to the mean firing rates that are wanted, as
            fractions of the largest ones.
        step_mode: That of the `SpikingModel`.
        verbose: As in `progress.checked`: whether a progress bar is drawn.

    Returns:
        Dict of neuron layers to floats; empty for a network that can only run in
        single-step mode.

    Raises:
        ValueError: If the network can only run in single-step mode, and `step_mode` is
            `"multi"`.
    """
    bar = keras.utils.Progbar(
        len(rates), verbose=progress.checked(verbose), unit_name="neuron layer"
    )
    shifts = {}

    def shifted(neuron, shift):
        shifts[neuron] = shift
        bar.add(1)

    def shifting(call, context):
        if call.operation not in rates:
            return NeuronHandler(call, context)
        return _Shifting(call, context, rates[call.operation], shifted)

    model = SpikingModel(network, timesteps, Observing(nodes=with_neurons(shifting)))
    try:
        with engine.no_gradient():
            model(keras.tree.pack_sequence_as(model.input, tensors), training=False)
    except ValueError:
        # Such a network reshapes the batch axis. In single-step mode no layer ever has
        # all of its steps, which a mean needs.
        if step_mode == "multi":
            raise
        return {}
    return shifts

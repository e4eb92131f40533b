r"""Shifts the input currents of calibrated neurons, so that their mean output is that of the activations they replace.

A calibrated neuron rounds and clips. Its input also arrives as spikes, later and less evenly than the constant current that the
rounding assumes. All this lowers the firing rates, and the deficit grows from layer to layer. Layer by layer, in a network in
which the layers before are already corrected, a constant current

    b <- b + D τ (mean of a/θ - mean of s_t / D)

is added to the neurons of up to D spikes in a step, where the means run over samples, neurons and time steps.

Source: Li et al., "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML 2021, whose
light pipeline shifts each channel. One shift for a layer loses less of what fine-tuning can reach.
"""

import keras
from keras import ops

from keras_ratesnn._core import backend, keras_internals, progress
from keras_ratesnn.gradients._observing import Observing
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.signals import only_signal
from keras_ratesnn.spiking_model import SpikingModel

ROUNDS = 3
"""How often the current of a layer is corrected. The rate is not linear in the current; more rounds change little."""


class _Shifting(ForwardRule):
    """The plain spiking network, which shifts the currents of some neurons as it passes them.

    Args:
        step_mode: See `Rule`.
        training: See `Rule`.
        with_gradient: See `ForwardRule`.
        rates: Dict of neuron layers to the mean firing rates that are wanted, as fractions of the largest ones.
        shifted: Function of a neuron layer and its shift, called for each of them.
    """

    def __init__(self, step_mode, training, with_gradient, rates, shifted):
        super().__init__(step_mode, training, with_gradient)
        self.rates = rates
        self.shifted = shifted

    def neuron(self, call):
        if call.operation not in self.rates:
            return super().neuron(call)
        current, cell, shift = only_signal(call), call.operation.cell, 0.0
        for _ in range(ROUNDS):
            spikes = float(ops.mean(ops.cast(super().neuron(call).value, "float32")))
            rate = spikes / (cell.levels * cell.spike_size)
            change = cell.levels * cell.threshold * (self.rates[call.operation] - rate)
            current.value = keras_internals.put_mask(current.value + change, keras_internals.mask_of(current.value))
            shift += change
        self.shifted(call.operation, shift)
        return super().neuron(call)


def mean_shifts(network, timesteps, tensors, rates, step_mode, verbose):
    """The shifts of input currents.

    Args:
        network: A network of one time step with neurons.
        timesteps: Integer T.
        tensors: List of tensors, a batch of its inputs, without time.
        rates: Dict of neuron layers to the mean firing rates that are wanted, as fractions of the largest ones.
        step_mode: That of the `SpikingModel`.
        verbose: As in `progress.checked`: whether a progress bar is drawn.

    Returns:
        Dict of neuron layers to floats; empty for a network that can only run in single-step mode.

    Raises:
        ValueError: If the network can only run in single-step mode, and will not.
    """
    bar = keras.utils.Progbar(len(rates), verbose=progress.checked(verbose), unit_name="neuron layer")
    shifts = {}

    def shifted(neuron, shift):
        shifts[neuron] = shift
        bar.add(1)

    def make_rule(step_mode, training, with_gradient):
        return _Shifting(step_mode, training, with_gradient, rates, shifted)

    model = SpikingModel(network, timesteps, Observing(make_rule))
    try:
        with backend.no_gradient():
            model(keras.tree.pack_sequence_as(model.input, tensors), training=False)
    except ValueError:
        # Such a network reshapes the batch axis. In single-step mode no layer ever has all of its steps, which a
        # mean needs.
        if step_mode == "multi":
            raise
        return {}
    return shifts

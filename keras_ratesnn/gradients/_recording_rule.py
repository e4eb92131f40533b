"""The first walk of rate-based backpropagation: the spiking network without gradient."""

from keras import ops

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import backend, normalization, time_axis
from keras_ratesnn.gradients import _rates_of_neurons
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.signals import only_signal


class RecordingRule(ForwardRule):
    """The spiking network without gradient; records what the rate pass needs.

    Args:
        step_mode: See `Rule`.
        training: See `Rule`.
        last_step: Boolean, whether to record the statistics of the last step instead of their means.
    """

    def __init__(self, step_mode, training, last_step):
        super().__init__(step_mode, training, with_gradient=False)
        self.last_step = last_step
        self._input_masks = {}

    def __call__(self, call):
        # Before the call: Keras' MultiHeadAttention takes the masks off its inputs.
        self._input_masks = self._masks_in_time(call)
        return super().__call__(call)

    def evaluate(self, function, *args):
        return backend.detached(function, *args)

    def neuron_pass(self, neuron):
        return _rates_of_neurons.recording_pass(neuron.cell, neuron.compute_dtype, self.step_mode.windows)

    def neuron(self, call):
        mask = self.step_mode.row_mask(only_signal(call))
        if mask is not None:
            self.evaluate(self.step_mode.average_steps, "weights", call.key, ops.cast(mask, "float32"))
        return super().neuron(call)

    def normalization(self, call):
        if call.kind.normalization.normalize_rate is None:
            raise ValueError(
                'gradient="rate" must know how a normalisation acts on rates. Received: layer '
                f'{call.operation.name!r} with renorm=True. Make it with renorm=False, or train with gradient="bptt".'
            )
        return super().normalization(call)

    def remember_statistics(self, call, inputs, mean, variance, mask):
        # 1 / mean_t(1 / (σ_t² + ε)) replaces σ² + ε.
        statistics = {"mean": mean, "precision": 1.0 / (variance + call.operation.epsilon)}
        if self.step_mode.windows.mask is not None and not self.step_mode.sees_all_steps:
            # Steps of few sequences have few values, whose variance may be 0 by chance. Their derivative is small, though.
            counts = self.step_mode.weights_in_statistics(call, mask)
            freedom = time_axis.cast(normalization.degrees_of_freedom(call.operation, inputs, counts), mean.dtype)
            # In the order of the alphabet, which JAX gives the state of a loop.
            statistics = {"freedom": freedom, "mean": mean, "precision": statistics["precision"] * freedom}
        weights = None if mask is None else ops.cast(mask, "float32")
        if self.last_step:
            record = self.step_mode.record
            record.statistics[call.key] = [statistics]
            if weights is not None:
                record.weights[call.key] = weights
            return
        self.step_mode.average("statistics", call.key, statistics)
        if weights is not None:
            self.evaluate(self.step_mode.average_steps, "weights", call.key, weights)

    def remember(self, call, outputs):
        masks = self._input_masks
        if masks:
            self.evaluate(self.step_mode.average_steps, "input_masks", call.key, masks)
        if masks or self._is_needed(call):
            return self.evaluate(self.step_mode.average_steps, "outputs", call.key, outputs)
        return outputs

    def _masks_in_time(self, call):
        """The Keras masks of the inputs of an operation that may use them, if they may change over time, by their index."""
        if not layer_kinds.may_use_masks(call.operation):
            return {}
        masks = {str(index): self.step_mode.mask(signal) for index, signal in enumerate(call.signals) if not signal.static}
        return {index: ops.cast(mask, "bool") for index, mask in masks.items() if mask is not None}

    def _is_needed(self, call):
        """Whether the rate pass needs the recorded output of an operation.

        If an affine operation is the same at every step, its output rate follows from its input rate. For an operation with
        weights the recorded time mean is cheaper, but in single-step mode it would have to be carried from step to step.
        """
        if self.takes_time(call) or not call.kind.affine:
            return True
        if any(not signal.static and not time_axis.is_float(signal.value.dtype) for signal in call.signals):
            return True
        return self.step_mode.sees_all_steps and not call.kind.parameter_free

    def regularize(self, call, outputs):
        """Does nothing: the rate pass regularises rates."""

    def add_loss(self, call, loss, t=None):
        """The rate pass computes the losses of layers from rates."""
        if self.is_static(call):
            super().add_loss(call, loss, t)
        else:
            self.step_mode.adds_losses.add(call.key)

"""Encoders: an input without time becomes spikes over time."""

from keras_ratesnn.gradients.handlers.handler import joined
from keras_ratesnn.gradients.handlers.operation import OperationHandler, OperationState


class EncoderHandler(OperationHandler):
    """An encoder: an input without time becomes spikes; the rate has the derivative
    that the encoder declares.

    Args: as in `Handler`.
    """

    counts_steps = True
    is_static_if_inputs_are = False

    def step(self, state, inputs, t):
        return self.after(state or OperationState(), [self._spikes(inputs, t)], t)

    def all_steps(self, state, inputs):
        timesteps = self.windows.timesteps
        spikes = joined([self._spikes(inputs, t) for t in range(timesteps)])
        return self.after(OperationState(), [spikes], None)

    def _spikes(self, inputs, t):
        self._only_input(inputs)
        if not (self.static[0] or self.context.streams):
            raise ValueError(
                f"Encoder {self.operation.name!r} must be given an input without time. "
                "Received: an input with a time axis, or one that comes after neurons. "
                "Pass inputs of shape (batch, ...), or leave the encoder out."
            )
        return self.operation.spikes(inputs[0], t, self.windows.timesteps)

    def rates(self, state, inputs):
        slope = self.operation.rate_derivative
        rates = self.with_means(state, self.rates_of(inputs), slope)
        return rates, self.regularization_of_rates(rates)

r"""Rates between operations with different windows.

A step has the rate of its window. In windows b of others a, of which n_ab steps are in b,

    dr_b = Σ_a (n_ab / n_b) dr_a

so that one rate is spread over several windows, and several are averaged. The value is the exact mean of the signal in b.
"""

from keras_ratesnn._core import time_axis
from keras_ratesnn._graph import PlannedCall
from keras_ratesnn.gradients.handlers.handler import Context
from keras_ratesnn.gradients.handlers.operation import OperationHandler, State
from keras_ratesnn.gradients.time.windows import Windows


class ConversionHandler(OperationHandler):
    """A signal on its way to an operation with other windows: the same at each step, and its rates in these windows.

    Args:
        call: `PlannedCall`, that of the operation.
        context: Its `Context`, with its windows.
        before: `Windows` of the rates that come in.
    """

    def __init__(self, call: PlannedCall, context: Context, before: Windows) -> None:
        super().__init__(call, context)
        self.before = before

    def step(self, state, inputs, t):
        return self.after(state or State(), inputs, t, inputs=inputs)

    def _needs_mean(self, inputs):
        # Means of whole windows have the exact value.
        return time_axis.is_float(inputs[0].dtype) and not self.before.have_all_ends_of(self.context.windows.sizes)

    def rates(self, state, inputs):
        (rates,) = inputs
        # Of integers and booleans all steps are there.
        if time_axis.is_float(rates.dtype):
            rates = self.context.windows.means_of(rates, self.before)
        return self.with_means(state, [rates]), None

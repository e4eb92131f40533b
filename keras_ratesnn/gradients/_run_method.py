"""Networks with time means: a spiking part that runs at each step, and what follows, which runs once on its time means."""

import dataclasses

from keras_ratesnn.gradients.network import plain


def run_method(method, run):
    """The outputs of a call of a model: `method.call(run)`, and then the part of the network that follows `layers.TimeMean`.

    A method gives the means as it gives any output of a network, with their gradient, so what follows is differentiated as in
    an ordinary network.

    Args:
        method: `GradientMethod`.
        run: `Run`.
    """
    outputs = method.call(run)
    _, after_means = run.parts
    if after_means is None:
        return outputs
    inputs = [(mean, False) for mean in outputs]
    rest = dataclasses.replace(run, parts=(after_means, None), inputs=inputs, timesteps=1, step_mode="multi", mask=None)
    if method.runs_means:
        return method.call(rest)
    return plain(rest)

"""One call of a model by a gradient method, as a function of tensors that can be recorded."""

import dataclasses
import functools

from keras_ratesnn.gradients.network import plain


def through_time(graphs, method, run, settings, jit_compile):
    """The outputs of a run.

    Args:
        graphs: The `backend.CallGraphs` of the model.
        method: `GradientMethod`.
        run: `Run`.
        settings: Hashable: what else the call depends on, besides the network and the run.
        jit_compile: True, False or "auto", as in `SpikingModel.compile`.
    """
    tensors = [tensor for tensor, _ in run.inputs]
    if run.mask is not None:
        tensors.append(run.mask)
    has_time = [has_time for _, has_time in run.inputs]
    settings = (tuple(has_time), run.training, run.with_gradient, settings)
    # What is recorded keeps no tensors.
    function = functools.partial(_of_tensors, method, dataclasses.replace(run, inputs=[], mask=None), has_time)
    # A graph would repeat the steps that were drawn.
    jit_compile = False if run.draws is not None else jit_compile
    return graphs.call(function, tensors, run.network, (method,), settings, jit_compile)


def _of_tensors(method, run, has_time, tensors):
    inputs, mask = tensors[: len(has_time)], tensors[len(has_time) :]
    run = dataclasses.replace(run, inputs=list(zip(inputs, has_time, strict=True)), mask=mask[0] if mask else None)
    return _run_method(method, run)


def _run_method(method, run):
    """`method.call(run)`, and then the part of the network that follows `layers.TimeMean`, once on the time means.

    A method gives the means as it gives any output of a network, with their gradient, so what follows is differentiated as in
    an ordinary network.
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

r"""How a neuron's firing rate answers to its input and to its parameters, collected forward in time.

For a quantity p of which the membrane depends, with h_t = h(v_t − θ) the surrogate derivative of the spike,

    a_t = dv_t/dp                       how a constant change of p has built up in the membrane (ρ_t for the input)
    a_{t+1} = (∂v_{t+1}/∂p) + (∂v_{t+1}/∂v_t) a_t
    dr/dp = (1/T) Σ_t ( h_t a_t + ∂s_t/∂p )

where the partial derivatives are those that see p directly. For a constant shift of the input current, a_1 = 1,
∂v_{t+1}/∂p = 1 and ∂s_t/∂p = 0: this is the eligibility g = ∂r/∂c of Yu et al., NeurIPS 2024. Learnable parameters, for
example a decay or a threshold, start at a_1 = 0 and give their own two terms, see `NeuronCell.parameter_derivatives`.
"""

from keras import ops

from keras_ratesnn._core import backend, time_axis, tree


def start(cell):
    """The traces before the first step: a dict of numbers, which become tensors where they come to differ."""
    parameters = len(cell.rate_parameters())
    return {"spikes": 0.0, "slopes": [0.0] * (1 + parameters), "sensitivities": [1.0] + [0.0] * parameters}


def advance(cell, traces, membrane, spikes, state):
    """The traces after one more step.

    Args:
        cell: A `NeuronCell`.
        traces: What `start` or `advance` returned.
        membrane: Tensor v_t, before the reset.
        spikes: Tensor s_t.
        state: The cell's state after the step.
    """
    surrogate_derivative = cell.surrogate_derivative(membrane)
    along_membrane = cell.membrane_derivative(membrane, spikes, surrogate_derivative)
    direct = [(1.0, None), *cell.parameter_derivatives(membrane, spikes, state, surrogate_derivative)]
    slopes, sensitivities = [], []
    for slope, sensitivity, (on_membrane, on_spike) in zip(traces["slopes"], traces["sensitivities"], direct, strict=True):
        slope = backend.multiply_add(surrogate_derivative, sensitivity, slope)
        slopes.append(slope if on_spike is None else slope + on_spike)
        sensitivities.append(on_membrane + along_membrane * sensitivity)
    return {"spikes": traces["spikes"] + spikes, "slopes": slopes, "sensitivities": sensitivities}


def as_tensors(traces):
    """The traces after a step, tensors all: a loop would carry what is still a number as float32, whatever they are."""
    return tree.map_leaves(lambda trace: ops.convert_to_tensor(trace, dtype=traces["spikes"].dtype), traces)


def means(traces, timesteps):
    """What is wanted of the traces after the last step: the firing rate, and its derivatives by input and parameters.

    Args:
        traces: What the last `advance` returned.
        timesteps: Integer T.
    """
    return {"rate": traces["spikes"] / timesteps, "slopes": [slope / timesteps for slope in traces["slopes"]]}


def firing_rate(cell, means, mean_input):
    """The firing rate: its value is the time mean of the spikes, its derivatives are those that the traces collected.

    Args:
        cell: A `NeuronCell`.
        means: What `means` returned.
        mean_input: Tensor c, the rate of the input current, with gradient.

    Returns:
        Tensor r of the membrane's dtype.
    """
    value, (of_input, *of_parameters) = means["rate"], means["slopes"]
    rate = backend.graft(value, time_axis.cast(mean_input, value.dtype), of_input)
    for parameter, slope in zip(cell.rate_parameters(), of_parameters, strict=True):
        onto = ops.broadcast_to(ops.cast(parameter, value.dtype), ops.shape(value))
        rate = rate + backend.graft(ops.zeros_like(value), onto, slope)
    return rate

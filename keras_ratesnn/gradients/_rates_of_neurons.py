"""How the firing rates of neurons, and their derivatives, are found: by the facts of the cell."""

from keras_ratesnn.gradients import _all_steps, _eligibility, _feedback

QUANTITY = _eligibility.EligibilityPass.quantity


def recording_pass(cell, dtype, windows):
    """The `NeuronPass` that records what `firing_rate` needs.

    Args:
        cell: A `NeuronCell`.
        dtype: String, the dtype of the spikes.
        windows: `Windows`.
    """
    if cell.feeds_back:
        return _feedback.FeedbackPass(cell, dtype, windows.sizes)
    if _has_weights_of_steps(cell):
        return _all_steps.AllStepsPass(cell, dtype, windows)
    if cell.in_parallel and _eligibility.has_written_derivative(cell, "over_time_derivatives"):
        return _all_steps.PartialSumsPass(cell, dtype, windows)
    return _eligibility.EligibilityPass(cell, dtype, windows.sizes)


def firing_rate(cell, recorded, mean_input, windows):
    """The firing rate in each window, `(batch * W, ...)`, with gradient.

    Args:
        cell: A `NeuronCell`.
        recorded: The record of its pass.
        mean_input: Tensor c `(batch * W, ...)`, the rate of the input current, with gradient.
        windows: `Windows`.
    """
    if cell.feeds_back:
        return _feedback.firing_rate(cell, recorded, mean_input, windows)
    found = _all_steps if _has_weights_of_steps(cell) else _eligibility
    return found.firing_rate(cell, recorded, mean_input, windows)


def _has_weights_of_steps(cell):
    return cell.in_parallel and not _eligibility.has_written_derivative(cell)

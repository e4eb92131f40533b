"""Models that several processes train on PyTorch, since Keras 3.16 does so as well."""

import keras

_METRICS_HERE = [
    vars(cls)["get_metrics_result"]
    for cls in keras.Model.__mro__
    if "get_metrics_result" in vars(cls)
][-1]
"""How Keras reads the metrics of a model, without those of other processes."""


def initialize_no_ddp(model):
    """In the place of Keras' `_initialize_ddp`, for models that exchange gradients and
    metrics by themselves where there is a process group of PyTorch: wraps nothing.

    Since Keras 3.16 `fit`, `evaluate` and `predict` wrap a model in
    `DistributedDataParallel` there, and wait for all other processes to do so. That is
    an error for a model without trainable weights, or if a step leaves out a weight.
    Metrics are summed over all processes in every step (docs/upstream.md, with a
    process group).
    """


def metrics_here(results):
    """The metrics of a model, without those of other processes.

    Args:
        results: The method `get_metrics_result` of the model, Keras' or another one.
    """
    if results.__func__ is keras.Model.get_metrics_result:
        return _METRICS_HERE(results.__self__)
    return results()

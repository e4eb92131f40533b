"""Models that several processes train on PyTorch, since Keras 3.16 does so as well."""

from typing import Any

import keras

_METRICS_HERE = [
    vars(cls)["get_metrics_result"]
    for cls in keras.Model.__mro__
    if "get_metrics_result" in vars(cls)
][-1]
"""How Keras reads the metrics of a model, without those of other processes."""


class TrainsInProcesses:
    """A mixin for models that exchange gradients and metrics by themselves where there
    is a process group of PyTorch.

    Since Keras 3.16 `fit`, `evaluate` and `predict` wrap a model in
    `DistributedDataParallel` there, and wait for all other processes to do so. That is
    an error for a model without trainable weights, or if a step leaves out a weight.
    Metrics are summed over all processes in every step (docs/upstream.md, with a
    process group).
    """

    def _initialize_ddp(self):
        """Wraps nothing."""

    def get_metrics_result(self) -> dict[str, Any]:
        of_keras = super().get_metrics_result  # type: ignore[misc]
        return (
            of_keras()
            if of_keras.__func__ is not keras.Model.get_metrics_result
            else _METRICS_HERE(self)
        )

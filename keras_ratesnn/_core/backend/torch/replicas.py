"""Replicas on PyTorch: the processes of `torch.distributed`, if there is a process
group."""

import torch
from torch import distributed

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend import base


class Replicas(base.Replicas):
    """Replicas that are processes, each with layers of its own."""

    PROCESSES = True

    def count(self):
        return (
            distributed.get_world_size()
            if distributed.is_available() and distributed.is_initialized()
            else 1
        )

    def index(self):
        return distributed.get_rank() if self.count() > 1 else 0

    def gather(self, tensor):
        parts = [torch.zeros_like(tensor)] * self.count()
        parts[self.index()] = tensor
        return _sum(torch.stack(parts))

    def average_gradients(self, outputs, weights):
        if self.count() == 1 or self.in_data_parallel_module():
            return
        waiting: list[bool] = []

        def at_the_end():
            waiting.clear()
            _average([weight.value for weight in weights()])

        def hook(gradient):
            if not waiting:
                waiting.append(True)
                # As DistributedDataParallel does; PyTorch has no public function for
                # this.
                torch.autograd.Variable._execution_engine.queue_callback(at_the_end)

        for output in tree.flatten(outputs):
            if output.requires_grad:
                output.register_hook(hook)

    def in_data_parallel_module(self):
        """Whether this runs inside a `DistributedDataParallel` module."""
        return (
            torch.nn.parallel.DistributedDataParallel._get_active_ddp_module()
            is not None
        )

    @torch.no_grad()
    def share_first(self, model):
        """Gives all replicas the variables of the optimizer, too. Raises ValueError if
        weights are sharded."""
        # Imported here because it is needed only by several processes.
        from torch.distributed.tensor import DTensor

        if any(isinstance(weight, DTensor) for weight in model.parameters()):
            raise ValueError(
                "`torch.distributed.fsdp` and tensor parallelism are not supported: "
                "Keras would train weights that the network does not use. Received: "
                f"model {model.name!r} with weights of type DTensor. Use whole weights "
                "on each device."
            )
        for variable in (*model.variables, *getattr(model.optimizer, "variables", ())):
            distributed.broadcast(variable.value.data, src=0)


replicas = Replicas()


@torch.library.custom_op("keras_ratesnn::sum_over_replicas", mutates_args=())
def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the tensors of all replicas."""
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


@_sum.register_fake
def _shape_of_sum(tensor):
    return torch.empty_like(tensor)


# Each replica's tensor is a part of the sums that all replicas use.
_sum.register_autograd(lambda ctx, upstream: _sum(upstream))


@torch.no_grad()
def _average(weights):
    """Averages gradients over all replicas, one message for each dtype. Weights without
    gradient on any replica keep none."""
    for dtype in dict.fromkeys(weight.dtype for weight in weights):
        _average_of_dtype([weight for weight in weights if weight.dtype == dtype])


def _average_of_dtype(weights):
    gradients = [
        torch.zeros_like(weight) if weight.grad is None else weight.grad
        for weight in weights
    ]
    here = [weight.grad is not None for weight in weights]
    kind = {"dtype": weights[0].dtype, "device": weights[0].device}
    # Where no gradient is missing, as is usual, nothing is copied to the device, and
    # nothing waits for it.
    is_complete = all(here)
    if is_complete:
        has_gradient = torch.ones(len(here), **kind)
    else:
        has_gradient = torch.tensor(here, **kind)
    flat = torch.cat([has_gradient, *(gradient.reshape(-1) for gradient in gradients)])
    # Divided before the sum, which might overflow in half precision.
    message = flat / replicas.count()
    distributed.all_reduce(message)
    sizes = [gradient.numel() for gradient in gradients]
    has_gradient, *averages = message.split([len(weights), *sizes])
    on_any = here if is_complete else has_gradient.tolist()
    for weight, average, is_given in zip(weights, averages, on_any, strict=True):
        if is_given:
            weight.grad = average.reshape(weight.shape)

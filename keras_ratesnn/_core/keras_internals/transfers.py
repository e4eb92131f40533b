"""Numbers, batches and logs on their way between host and GPU, on PyTorch, without
waiting for what the GPU computes.

Keras copies each number of Python's to the device by itself and reads each metric by
itself. The copies are from and to memory that CUDA cannot read while the host goes on,
so each of them waits for everything that was launched before: seven times a step
(docs/upstream.md, numbers and logs wait for the GPU).
"""

import contextlib
import functools
import types

import keras
import numpy as np

from keras_ratesnn._core.keras_internals.imported import torch_core
from keras_ratesnn._core.keras_internals.replacements import Replacements
from keras_ratesnn._core.keras_internals.trees import trees_that_free_tensors


def in_steps():
    """A context around what a model of ours computes, in which Keras on PyTorch frees
    tensors and waits for no numbers."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    # PyTorch's compiler cannot trace a lock.
    return contextlib.nullcontext() if torch.compiler.is_compiling() else _mended_keras


@Replacements
def _mended_keras():
    import torch

    return trees_that_free_tensors() + (
        transfers_that_overlap() if torch.cuda.is_available() else []
    )


def transfers_that_overlap():
    """Replacements that let Keras on PyTorch, with a GPU, wait for no numbers in a
    step, for `Replacements`. The values are the same."""
    import torch
    from keras.src.backend.torch.optimizers.torch_sgd import SGD

    # Keras' functions look up `torch` in their module. A copy of PyTorch's module is as
    # fast, and others keep the original.
    own_torch = types.ModuleType("torch")
    own_torch.__dict__.update(
        vars(torch), __getattr__=functools.partial(getattr, torch), as_tensor=_as_tensor
    )
    update = SGD._parallel_update_step

    def update_step(self, grads, variables, learning_rate):
        rate = getattr(learning_rate, "value", learning_rate)
        if torch.is_tensor(rate) and is_on_gpu(rate.device):
            # As a factor, the learning rate would be read by the host.
            grads = torch._foreach_mul(grads, rate.to(grads[0].dtype))
            learning_rate = 1.0
        return update(self, grads, variables, learning_rate)

    return [
        (torch_core(), "torch", own_torch),
        (SGD, "_parallel_update_step", update_step),
    ]


def on_device(batch):
    """A batch, a structure of tensors and arrays, on the GPU that Keras uses on
    PyTorch, if it uses one. Keras' losses and metrics would move the labels each for
    itself."""
    if keras.backend.backend() != "torch":
        return batch
    device = torch_core().get_device()
    if not is_on_gpu(device):
        return batch
    return keras.tree.map_structure(functools.partial(_moved, device=device), batch)


def is_on_gpu(device):
    """Whether a device, a string or a `torch.device`, is a GPU of NVIDIA's or AMD's."""
    return str(device).startswith("cuda")


def _moved(leaf, device):
    import torch

    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf":
        return keras.ops.convert_to_tensor(leaf)
    if type(leaf) is torch.Tensor and leaf.device.type == "cpu":
        return _copied(leaf, device)
    return leaf


def _as_tensor(data, dtype=None, device=None):
    """`torch.as_tensor`, without waiting for the GPU."""
    import torch

    is_traced = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack()
    if is_traced or not is_on_gpu(device) or torch.is_tensor(data):
        # In a graph it is a constant, which is not copied again.
        return torch.as_tensor(data, dtype=dtype, device=device)
    if type(data) in (bool, int, float) and dtype is not None:
        return torch.full((), data, dtype=dtype, device=device)
    return _copied(torch.as_tensor(data, dtype=dtype, device="cpu"), device)


def _copied(tensor, device):
    """A tensor of the host, copied to a GPU from memory that the GPU can read while the
    host goes on."""
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(
        device, non_blocking=True
    )


def read_together(logs):
    """The logs of a step; those of its numbers that are on the GPU are read all at
    once, when one is needed on the host."""
    if keras.backend.backend() != "torch" or not isinstance(logs, dict):
        return logs
    import torch

    there = {
        name: value.detach()
        for name, value in logs.items()
        if torch.is_tensor(value)
        and value.numel() == 1
        and value.is_floating_point()
        and is_on_gpu(value.device)
    }
    if len(there) < 2:
        return logs
    read = functools.cache(
        torch.stack([value.reshape(()).double() for value in there.values()]).tolist
    )
    return {**logs, **{name: _Number(read, index) for index, name in enumerate(there)}}


class _Number:
    """A number of Python's, once Keras asks for it: `read()[index]`."""

    def __init__(self, read, index):
        self._read, self._index = read, index

    def __float__(self):
        return self._read()[self._index]

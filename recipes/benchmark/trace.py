"""Kernels and memory of a training step on a GPU, from PyTorch's profiler."""

import torch

STEPS = 3
"""The number of steps that are profiled."""

WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""Calls that wait for the GPU. The benchmark itself calls cudaDeviceSynchronize after
each step."""

FETCH = "aten::_local_scalar_dense"
"""The operation behind `.item()`, `float(tensor)` and `if tensor`."""

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")

COPIES = ("Memcpy", "Memset")


def profile(step):
    """Profiles a step that has been warmed up; returns the result of `counts`."""
    with torch.profiler.profile() as profiler:
        for _ in range(STEPS):
            step()
    return counts(profiler.key_averages(), STEPS)


def counts(averages, steps):
    """The numbers of a step that a profile gives.

    Args:
        averages: List of `torch.autograd.profiler_util.FunctionEventAvg`.
        steps: Integer, the number of steps in the profile.

    Returns:
        Dictionary of numbers for each step: `busy_seconds` of the GPU; `kernels` and
        `copies` on it, `launches` by the host, `waits` for the GPU, and `fetches` of a
        number from a tensor.
    """
    total = dict.fromkeys(
        ("busy_seconds", "kernels", "copies", "launches", "waits", "fetches"), 0
    )
    for average in averages:
        name, count = average.key, average.count
        if average.is_user_annotation:
            # Named ranges are shown on the GPU as well.
            continue
        if average.device_type == torch.autograd.DeviceType.CUDA:
            total["busy_seconds"] += average.self_device_time_total * 1e-6
            total["copies" if name.startswith(COPIES) else "kernels"] += count
        elif name.startswith(LAUNCHES):
            total["launches"] += count
        elif name in WAITS:
            total["waits"] += count
        elif name == FETCH:
            total["fetches"] += count
    return {name: value / steps for name, value in total.items()}

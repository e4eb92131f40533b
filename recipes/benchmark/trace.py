"""Kernels and synchronisations of a training step, from PyTorch's profiler."""

import torch

from recipes import device

STEPS = 3
"""The number of steps that are profiled."""

_RANGE = "recipes.benchmark step"

WAITS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
)
"""Calls that wait for the GPU."""

FETCH = "aten::_local_scalar_dense"
"""The operation behind `.item()`, `float(tensor)` and `if tensor`."""

_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


def profile(launch):
    """Profiles a step that has been warmed up.

    Args:
        launch: Function without arguments that starts a step. It need not wait for the
            device.

    Returns:
        Dictionary, see `counts`.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.gpu():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS):
            with torch.profiler.record_function(_RANGE):
                launch()
        device.synchronize()
    return counts(profiler.events(), STEPS)


def counts(events, steps):
    """What the events of a profile say of a step.

    Args:
        events: List of `torch.autograd.profiler_util.FunctionEvent`.
        steps: Integer, the number of steps in it.

    Returns:
        Dictionary of numbers for each step: `kernels` and `copies` on the GPU,
        `busy_seconds` in which at least one of them runs, `launches` by the host,
        `waits` for the GPU, and `fetches` of a number from a tensor. Waits that the
        benchmark itself adds after a step are not counted.
    """
    # Named ranges are shown on the GPU as well.
    on_device = [
        event
        for event in events
        if _is_cuda(event) and event.name != _RANGE and not event.is_user_annotation
    ]
    copies = [
        event for event in on_device if event.name.startswith(("Memcpy", "Memset"))
    ]
    ranges = [
        _interval(event)
        for event in events
        if event.name == _RANGE and not _is_cuda(event)
    ]
    on_host = [event for event in events if not _is_cuda(event)]
    names = [event.name for event in on_host if _is_inside(event, ranges)]
    return {
        "kernels": (len(on_device) - len(copies)) / steps,
        "copies": len(copies) / steps,
        "busy_seconds": _covered(map(_interval, on_device)) * 1e-6 / steps,
        "launches": sum(name.startswith(_LAUNCHES) for name in names) / steps,
        "waits": sum(map(names.count, WAITS)) / steps,
        "fetches": names.count(FETCH) / steps,
    }


def _is_inside(event, ranges):
    begins = event.time_range.start
    return any(begin <= begins <= end for begin, end in ranges)


def _is_cuda(event):
    return event.device_type == torch.autograd.DeviceType.CUDA


def _interval(event):
    return event.time_range.start, event.time_range.end


def _covered(intervals):
    """The length of the union of intervals."""
    total, last = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, last))
        last = max(last, end)
    return total

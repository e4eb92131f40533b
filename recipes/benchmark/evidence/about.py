"""Stage: what was measured with: versions, device, flags."""

import datetime
import importlib.metadata
import os
import pathlib
import subprocess

from recipes import device
from recipes.benchmark.evidence import flags

PACKAGES = (
    "triton",
    "jax",
    "jaxlib",
    "spikingjelly",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "tensorflow",
    "optree",
)


def run(write, evidence):
    """Writes one row.

    Args:
        write: Function that takes a row, a dictionary.
        evidence: Boolean, whether the run is evidence or only shows that the kit works.
    """
    import torch

    flags.fix(tf32=True)
    row = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": device.name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": device.versions(filter(_is_installed, PACKAGES)),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
    if device.gpu():
        properties = torch.cuda.get_device_properties(0)
        row |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        row |= {
            "gpu_memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
        }
    write({"kind": "about", "evidence": evidence, **row})


def _is_installed(package):
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _commit():
    """The commit of this checkout, or `None` if that is not known."""
    command, folder = (
        ["git", "describe", "--always", "--dirty"],
        pathlib.Path(__file__).parent,
    )
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

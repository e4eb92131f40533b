"""Which test runs where, by two rules.

Time: what takes minutes is marked `slow`, and runs on request.

Place: a test runs on as many backends as its mark says, `backends(3)`, `backends(2)` or
`backends(1)`; without a mark on as many as `PLACES` says of its file, else of its
folder, else on all three. A name instead, as in `backends("torch")`, is a backend
without which there is nothing to test.
"""

import zlib

import pytest

PLACES = {
    "analysis": 2,
    "analysis/test_breakdown.py": 1,
    "analysis/test_temporal_probe.py": 1,
    "backend/test_cpu_memory.py": "torch",
    "backend/test_cuda_graphs.py": "torch",
    "backend/test_graph_passes.py": "torch",
    "backend/test_tensorflow_kernels.py": "tensorflow",
    "backend/test_time_loops.py": "torch",
    "backend/test_xla.py": "tensorflow",
    "benchmark/test_gpu.py": 1,
    "benchmark/test_translated.py": 1,
    "callbacks": 2,
    "conversion": 2,
    "conversion/test_fold.py": 1,
    "conversion/test_inside_layers.py": 1,
    "conversion/test_keras_hub.py": 3,
    "conversion/test_spikify.py": 1,
    "core/test_errors.py": 2,
    "core/test_later_arguments.py": 1,
    "core/test_mutations.py": 1,
    "core/test_names.py": 1,
    "core/test_package.py": 1,
    "core/test_places.py": 1,
    "core/test_rooms.py": 1,
    "core/test_typing.py": 1,
    "docs/test_addresses.py": 1,
    "docs/test_api_tables.py": 1,
    "docs/test_docstrings.py": 1,
    "docs/test_migration_tables.py": 1,
    "docs/test_pages.py": 1,
    "events": 1,
    "gradients": 2,
    "gradients/test_costs_of_steps.py": 3,
    "gradients/test_rate.py": 3,
    "gradients/test_reference.py": 3,
    "graph": 2,
    "integers": 1,
    "integers/test_integer.py": 2,
    "integers/test_trained_integers.py": 2,
    "integers/test_until_sure.py": 2,
    "layers": 2,
    "layers/test_cells.py": 3,
    "losses": 2,
    "model": 2,
    "model/test_call_graphs.py": "torch",
    "model/test_cycles.py": "torch",
    "model/test_persistence.py": 3,
    "model/test_recorded_settings.py": "torch",
    "model/test_replicas.py": 3,
    "model/test_torch_transforms.py": "torch",
    "model/test_training_step.py": "torch",
    "models": 1,
    "models/test_attention.py": 2,
    "models/test_border.py": 2,
    "nir": 1,
    "recipes": 1,
    "recipes/test_devices.py": 2,
    "steps": 2,
    "steps/test_calibration.py": 1,
    "testing": 2,
}
"""Number or name for a folder or file. What has no code of a backend, which
tests/core/test_rooms.py guards, needs no proof on each."""


def _place(path):
    room = path.parent.name
    return PLACES.get(f"{room}/{path.name}", PLACES.get(room, 3))


def backends_of(place, case):
    """The names of the backends that run a case: of several PyTorch, where tests take
    the least time, then JAX or TensorFlow in turn, then the other one."""
    if isinstance(place, str):
        return (place,)
    others = "jax", "tensorflow"
    # Unlike Python's hash the same in each process.
    is_odd = zlib.crc32(case.encode()) % 2
    return ("torch", *(reversed(others) if is_odd else others))[:place]


def _this_backend():
    # Not at the top: the process that hands out the tests to others has no need of it.
    import keras

    return keras.backend.backend()


def pytest_ignore_collect(collection_path):
    """Files of another backend are not imported."""
    place = _place(collection_path)
    return True if isinstance(place, str) and place != _this_backend() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leaves out what cannot run here, and marks what need not, `elsewhere`."""
    here, impossible = _this_backend(), []
    for item in items:
        mark = item.get_closest_marker("backends")
        places = mark.args if mark else (_place(item.path),)
        if any(here in backends_of(place, item.nodeid) for place in places):
            continue
        if isinstance(places[0], str):
            impossible.append(item)
        else:
            item.add_marker("elsewhere")
    config.hook.pytest_deselected(items=impossible)
    items[:] = [item for item in items if item not in impossible]

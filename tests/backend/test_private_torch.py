"""A PyTorch that lacks what graphs read of it: a warning, and eager mode."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import compiled, data, only_on, spiking

pytestmark = only_on("torch", "other backends record no calls")

PROGRAM = """
import torch

del torch._C._WeakTensorRef, torch.Tag.needs_exact_strides
import keras, keras_ratesnn
from keras import layers

network = keras.Sequential([
    keras.Input((2,)), layers.Dense(3), keras_ratesnn.layers.LIF(), layers.Dense(1),
])
model = keras_ratesnn.SpikingModel(network, timesteps=2)
model.compile("sgd", "mse", jit_compile=True)
model.fit(torch.ones(4, 2), torch.ones(4, 1), verbose=0)
print(model.execution)
"""


def test_what_is_lacking_at_import_is_one_warning_and_models_train_in_eager_mode():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout == "keras\n"
    (warning,) = re.findall(r"PyTorch \S+ lacks what .*", done.stderr)
    assert "torch.Tag.needs_exact_strides, torch._C._WeakTensorRef." in warning


def test_what_is_lacking_where_calls_are_recorded_is_one_warning_and_eager_mode(
    monkeypatch,
):
    from torch._dynamo import convert_frame

    x, y = data()
    expected = compiled(spiking(), jit_compile=False)
    weights = expected.get_weights()
    expected.fit(x, y, epochs=4, shuffle=False, verbose=0)
    monkeypatch.delattr(convert_frame, "compile_lock")
    model = compiled(spiking(), jit_compile=True)
    model.set_weights(weights)
    with pytest.warns(UserWarning, match="eager mode.*compile_lock"):
        model.fit(x, y, epochs=4, shuffle=False, verbose=0)
    assert model.execution == "eager"
    for trained, wanted in zip(
        model.get_weights(), expected.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(trained, wanted)


def test_the_list_has_all_that_graphs_read_at_import_and_in_calls():
    from keras_ratesnn._core.backend.torch import private_torch

    listed = {f"{module}.{name}" for module, name in private_torch.PARTS}
    folder = pathlib.Path(private_torch.__file__).parent / "graphs"
    code = "\n".join(path.read_text() for path in sorted(folder.rglob("*.py")))
    imported = {
        f"{module}.{name}"
        for module, names in re.findall(
            r"^from (torch\._[\w.]+|torch\.fx\.experimental[\w.]+) import (.+)",
            code,
            re.M,
        )
        for name in names.split(", ")
    }
    read = set(re.findall(r"\btorch\.(?:Tag\.|_(?!dynamo|inductor))[\w.]*\w", code))
    # PyTorch's compiler is imported where it compiles.
    assert len(imported) > 5
    assert len(read) > 5
    read -= {module for module in read if f"from {module} import" in code}
    assert imported | read == listed

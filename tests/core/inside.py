"""What tests read and change inside of the library, where nothing has a public name:
limits that are too large for tests, what one test would leave to the next, numbers that
users have no need of."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _nothing_is_compiled_before():
    """Else what one test compiles for large layers would be compiled for the small
    layers of all later ones, too."""
    if fusion := sys.modules.get("keras_ratesnn._core.backend.torch.graphs.fusion"):
        fusion._kinds.clear()


@pytest.fixture
def look_for_silence(monkeypatch):
    """A function that says whether `fit` looks for silent layers, as it does in tests
    that ask for this."""
    from keras_ratesnn._model import silent_layers

    enough = silent_layers.ENOUGH

    def switch(is_on):
        monkeypatch.setattr(silent_layers, "ENOUGH", enough if is_on else 0)

    return switch


@pytest.fixture(autouse=True)
def _silence_is_no_matter(request, monkeypatch):
    """In other tests `fit` does not look for them, which would take a forward pass in
    each of hundreds of tests."""
    silent_layers = sys.modules.get("keras_ratesnn._model.silent_layers")
    if silent_layers and "look_for_silence" not in request.fixturenames:
        monkeypatch.setattr(silent_layers, "ENOUGH", 0)


@pytest.fixture
def keeps_two_functions(monkeypatch):
    """A model keeps the compiled functions of two settings only."""
    monkeypatch.setattr("keras_ratesnn._model.compiled_functions.FUNCTIONS_KEPT", 2)


@pytest.fixture
def in_two_alike_replicas(monkeypatch):
    """A function that calls another one as if another process did the same with the
    same data."""
    from keras import ops

    from keras_ratesnn._core.backend import engine

    alike = {
        "count": lambda self: 2,
        "index": lambda self: 0,
        "gather": lambda self, tensor: ops.stack([tensor, tensor]),
        "average_gradients": lambda self, outputs, weights: None,
        "share_first": lambda self, model: None,
    }

    def call(function):
        with monkeypatch.context() as patch:
            for name, method in alike.items():
                patch.setattr(type(engine.replicas), name, method)
            return function()

    return call


def last_membranes(chip, x):
    """The membranes of a network of integers after the last step of a batch, a dict:
    `layer_outputs`, which runs the same steps, leaves them out."""
    from keras import ops

    batch = chip._batch(ops.convert_to_tensor(x.astype("int32")))
    for t in range(chip.timesteps):
        batch.advance(t)
    return {name: state["membrane"] for name, state in batch.state.items()}

"""PyTorch's accelerator: graphs in the place of Python code, with the same results.

PyTorch runs operation by operation, for which `torch/__init__.py` is enough: it knows
nothing of this folder. Where the folder is, `_core/backend/__init__.py` takes the class
below, which overrides what is accelerated. It has three parts:

* `recorder/`: `call_graphs`, `record_calls`. The first calls of a model run in eager
  mode: 32 of the same kind, or one with `jit_compile=True`. Then the operations of a
  call and of its derivative are recorded, and replayed from now on, which skips the
  Python code of layers. With `jit_compile=True` PyTorch's compiler makes programs of
  both graphs. On a GPU, kernels that ran eight times in a row become a CUDA graph.
* `fusion.py`: `elementwise`. The time steps of a neuron layer become one pass over
  memory, by PyTorch's compiler, if its tensors have a million elements (on a GPU 4096).
* `time_loops/`: `time_loop`. On CPUs all steps of a neuron layer become one program in
  C++, for any T: of such a large layer in its first call, else in the 16th.

A graph contains all that is no tensor, as constants. It serves calls of the same kind:
with the same shapes, dtypes and arguments (`recorder/signature.py`), and attributes of
layers (`recorder/layer_attributes.py`). Others run in eager mode, until they are
recorded.

Is it slow? `model.execution` says whether there are graphs. Warnings say what cannot be
recorded or compiled, and why; `logging.getLogger("keras_ratesnn")`, at level DEBUG,
what changed where calls are counted anew, and which loops are not written in C++.
`engine_settings` changes the numbers above.

Is it wrong? `jit_compile=False` in `compile` turns all of this off. If results then
differ, `recorder/graph.py` shows what is done to a graph, one pass after the other.
Tests: `tests/backend`, `tests/model/test_call_graphs.py` and `test_recorded_*.py`.
"""

from keras_ratesnn._core.backend import base, torch
from keras_ratesnn._core.backend.torch.graphs import fusion
from keras_ratesnn._core.backend.torch.graphs.recorder import (
    call_graphs,
    choices,
    compiler,
    cuda_graphs,
    graph,
)


class Backend(torch.Backend):
    """PyTorch, whose calls are recorded and whose loops over time are compiled."""

    SETTINGS = (
        ("eager_calls", call_graphs, "EAGER_CALLS"),
        ("calls_in_a_row", cuda_graphs, "CALLS_IN_A_ROW"),
        ("compiler", compiler, "COMPILER"),
        ("least_elements", fusion, "LEAST_ELEMENTS"),
    )

    elementwise = staticmethod(fusion.elementwise)
    fusing = staticmethod(fusion.fusing)
    steps_in_a_pass = staticmethod(fusion.steps_in_a_pass)
    time_loop = staticmethod(fusion.time_loop)
    record_calls = staticmethod(call_graphs.record_calls)

    def call_graphs(self):
        return call_graphs.CallGraphs()

    def cond(self, chosen, function, otherwise):
        if graph.is_recording():
            return choices.choose(chosen, function(), otherwise)
        return super().cond(chosen, function, otherwise)

    def filter_in_time(self, inputs, kernel):
        # Compilers know PyTorch's own operations.
        if graph.is_recording_for_compiler():
            return base.Backend.filter_in_time(self, inputs, kernel)
        return super().filter_in_time(inputs, kernel)

    @staticmethod
    def noise_state():
        """Empty in a recording: a replay draws other numbers."""
        return [] if graph.is_recording() else torch.Backend.noise_state()

    @staticmethod
    def set_noise_state(state):
        if not graph.is_recording():
            torch.Backend.set_noise_state(state)

    def repeated_noise(self, state):
        if graph.is_recording():
            return graph.noticing_repeated_draws()
        return super().repeated_noise(state)

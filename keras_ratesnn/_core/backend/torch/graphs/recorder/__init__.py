"""Records what the calls of any Keras model compute, as graphs of PyTorch operations,
and replays these.

    call_graphs.py        which calls of a model are recorded, and when
    signature.py          what a graph depends on in tensors, and in how PyTorch runs
    layer_attributes.py   what a graph depends on besides tensors, watched for changes
    graph.py              one function of tensors as a graph, with its derivative
    graph_passes.py small_operations.py padding.py random.py
            what makes a graph right, and fast
    compiler.py cuda_graphs.py cpu_memory.py
            what runs it, and in which memory

A call is eager, silently, if it has no signature (`call_graphs.py`, `signature.py`);
after a warning, if `layer_attributes.py`, `graph_passes.check` or Keras' scopes
(`keras_internals/scopes.py`) refuse it.

It knows nothing of spikes, time steps or gradient methods.
"""

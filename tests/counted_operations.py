"""The operations that PyTorch runs, counted, and the memory of their results. Only to
be imported on PyTorch."""

import gc
import weakref

import keras
from keras import ops
from torch.utils._python_dispatch import TorchDispatchMode


class Counter(TorchDispatchMode):
    """A context that counts the operations that run in it.

    Attributes:
        operations: Integer.
        most_bytes: Integer, the most bytes of results of these operations that are
            alive at a time.
    """

    def __init__(self):
        super().__init__()
        self.operations = self.most_bytes = self._bytes = 0
        self._alive = set()

    def __enter__(self):
        # What a collection frees in the midst of them would depend on what ran before.
        gc.disable()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        gc.enable()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        results = operation(*args, **(kwargs or {}))
        self.operations += 1
        for result in keras.tree.flatten(results):
            if ops.is_tensor(result) and not result.is_meta:
                self._watch(result.untyped_storage())
        self.most_bytes = max(self.most_bytes, self._bytes)
        return results

    def _watch(self, storage):
        if storage._cdata not in self._alive:
            self._alive.add(storage._cdata)
            self._bytes += storage.nbytes()
            weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())

    def _freed(self, place, size):
        self._alive.remove(place)
        self._bytes -= size

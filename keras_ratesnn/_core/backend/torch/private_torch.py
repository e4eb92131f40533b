"""The private parts of PyTorch, and those of some versions alone, that `graphs` reads
at import or in calls that it does not record.

A part that it reads while it records or compiles, such as those of PyTorch's compiler,
is not in the list: whatever fails there is a warning, and the call runs in eager mode.
"""

import operator
import warnings
from importlib import import_module

import torch

PARTS = (
    ("torch", "Tag.needs_exact_strides"),
    ("torch", "Tag.nondeterministic_seeded"),
    ("torch", "_C._WeakTensorRef"),
    ("torch", "_C._autograd._top_saved_tensors_default_hooks"),
    ("torch", "_C._functorch.peek_interpreter_stack"),
    ("torch", "_foreach_copy_"),
    ("torch", "_guards.tracing"),
    ("torch._C._dynamo.guards", "TensorGuards"),
    ("torch._guards", "TracingContext"),
    ("torch._subclasses.fake_tensor", "FakeTensor"),
    ("torch._subclasses.fake_tensor", "FakeTensorMode"),
    ("torch.fx.experimental.proxy_tensor", "get_proxy_mode"),
    ("torch.fx.experimental.proxy_tensor", "make_fx"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv"),
)


def are_there():
    """Whether this PyTorch has all parts; warns of those that it lacks."""
    lacking = [f"{module}.{name}" for module, name in PARTS if not _has(module, name)]
    if lacking:
        warnings.warn(
            f"PyTorch {torch.__version__} lacks what keras_ratesnn reads of it to "
            f"record and compile calls: {', '.join(lacking)}. Models run in eager "
            "mode, which is slower and gives the same results.",
            stacklevel=2,
        )
    return not lacking


def _has(module, name):
    try:
        operator.attrgetter(name)(import_module(module))
    except (ImportError, AttributeError):
        return False
    return True

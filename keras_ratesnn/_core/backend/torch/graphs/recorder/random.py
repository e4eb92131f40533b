"""Random numbers inside recorded graphs: each draw as one operation, with a seed of
Keras or from PyTorch's own generator."""

import contextlib
import functools
import operator

import torch
from torch import fx

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.graphs import private_keras
from keras_ratesnn._core.backend.torch.graphs.recorder import graph_passes

_draws: list = []
_numbers: dict = {}
"""The place of each kind of draw in the list: equal graphs have equal numbers, so that
PyTorch finds them compiled on disk."""

_library = torch.library.Library("keras_ratesnn", "FRAGMENT")
_library.define("draw(int number, Tensor seeds, int place, Tensor[] tensors) -> Tensor")
_library.define("seeds_on_host(Tensor[] seeds) -> Tensor")
# What draws from PyTorch's own generator may not be left out, merged with its like, or
# given tensors in another layout.
_own = {"tags": (torch.Tag.nondeterministic_seeded, torch.Tag.needs_exact_strides)}
_library.define(
    "draw_own(int number, Tensor[] tensors, Tensor[] before) -> Tensor", **_own
)
_library.define(
    "draw_own_tensors(int number, Tensor[] tensors, Tensor[] before) -> Tensor[]",
    **_own,
)


@contextlib.contextmanager
def seeded_draws():
    """A context in which a draw of `keras.random` from a seed is one operation of
    PyTorch, in this thread.

    Otherwise Keras would read the seed, and a graph would contain its value.
    """
    seeds = {}

    def stand_in(seed):
        generator = torch.Generator()
        seeds[id(generator)] = generator, seed
        return generator

    def run(function, args, kwargs):
        if id(kwargs.get("generator")) not in seeds:
            return function(*args, **kwargs)
        _, seed = seeds[id(kwargs["generator"])]
        kwargs = {name: kwargs[name] for name in kwargs if name != "generator"}
        number = _number(function, args, kwargs)
        tensors = [leaf for leaf in tree.flatten(list(args)) if torch.is_tensor(leaf)]
        return torch.ops.keras_ratesnn.draw.default(number, seed.reshape(1), 0, tensors)

    with private_keras.torch_generators_from(stand_in, run):
        yield


def _number(function, args, kwargs):
    """The place of a draw in the list `_draws`."""
    draw = _Draw(function, args, kwargs)
    number = _numbers.setdefault((function, repr(draw)), len(_draws))
    if number == len(_draws):
        _draws.append(draw)
    return number


class _Draw:
    """A call of a function of PyTorch, with other tensors, or nodes of a graph, and
    another generator each time."""

    def __init__(self, function, args, kwargs):
        self._function = function
        self._args = tree.map_leaves(
            lambda leaf: _HOLE if isinstance(leaf, (torch.Tensor, fx.Node)) else leaf,
            list(args),
        )
        self._kwargs = kwargs

    def __repr__(self):
        return repr((self._args, self._kwargs))

    def device(self, tensors):
        """Where it draws: on the device that it is given, or on that of its tensors."""
        return self._kwargs.get("device") or tensors[0].device

    def __call__(self, tensors, **generator):
        args = tree.filled(self._args, tensors, lambda leaf: leaf is _HOLE)
        return self._function(*args, **self._kwargs, **generator)


_HOLE = object()


@torch.library.impl(_library, "draw", "CompositeExplicitAutograd")
def _draw(number, seeds, place, tensors):
    draw = _draws[number]
    generator = torch.Generator(device=draw.device(tensors))
    # As Keras does.
    generator.manual_seed(int(seeds[place]) & 0xFFFFFFFF)
    return draw(tensors, generator=generator)


@torch.library.register_fake("keras_ratesnn::draw", lib=_library)
def _shape_of_draw(number, seeds, place, tensors):
    return _draws[number](tensors, generator=None)


def _draw_own(number, tensors, before):
    return _draws[number](tensors)


for _name in ("draw_own", "draw_own_tensors"):
    torch.library.impl(_library, _name, "CompositeExplicitAutograd")(_draw_own)
    torch.library.register_fake(f"keras_ratesnn::{_name}", _draw_own, lib=_library)


def leave_own_draws_alone(graph):
    """Makes each draw from PyTorch's own generator an operation that a compiler does
    not know, after the draw before it.

    Compiled, it would draw other numbers.

    Returns:
        Whether this could be done for all of them: not where a part of a tensor is
        drawn, or nothing reads the last one, which would be left out.
    """
    before: list[fx.Node] = []
    draws = [node for node in graph.nodes if graph_passes.draws(node)]
    if draws and not draws[-1].users:
        return False
    for node in draws:
        function = node.target
        overwritten = graph_passes.written(node)
        if overwritten:
            memory = node.args[0]
            if overwritten != [memory] or not _is_new(memory) or len(memory.users) > 1:
                return False
            function = _into_new_memory(function)
        tensors = [
            leaf for leaf in tree.flatten(list(node.args)) if isinstance(leaf, fx.Node)
        ]
        number = _number(function, node.args, node.kwargs)
        is_one = torch.is_tensor(node.meta["val"])
        if is_one:
            operation = torch.ops.keras_ratesnn.draw_own.default
        else:
            operation = torch.ops.keras_ratesnn.draw_own_tensors.default
        with graph.inserting_before(node):
            drawn = graph.call_function(operation, (number, tensors, before))
            first = drawn
            if not is_one:
                first = graph.call_function(operator.getitem, (drawn, 0))
        before = [first]
        drawn.meta = node.meta
        node.replace_all_uses_with(drawn)
        graph.erase_node(node)
    return True


def _is_new(node):
    """Whether an operation allocates memory without values."""
    return str(node.target).startswith("aten.empty")


@functools.cache
def _into_new_memory(operation):
    """An operation that overwrites its first argument, which here writes to new memory
    like it."""
    return lambda memory, *args, **kwargs: operation(
        torch.empty_like(memory), *args, **kwargs
    )


@torch.library.impl(_library, "seeds_on_host", "CompositeExplicitAutograd")
def _seeds_on_host(seeds):
    return torch.cat(seeds).cpu()


@torch.library.register_fake("keras_ratesnn::seeds_on_host", lib=_library)
def _shape_of_seeds_on_host(seeds):
    return torch.empty(len(seeds), dtype=seeds[0].dtype, device="cpu")


def read_seeds_once(graph):
    """Reads the seeds of all draws of a graph at once, before the first of them: on a
    GPU the host waits for each read."""
    draws = graph.find_nodes(
        op="call_function", target=torch.ops.keras_ratesnn.draw.default
    )
    seeds = list(dict.fromkeys(node.args[1] for node in draws))
    needed = set(seeds)
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    if len(seeds) < 2 or not needed.isdisjoint(draws):
        return
    last = graph.find_nodes(op="placeholder")[-1]
    moved = [
        node for node in graph.nodes if node in needed and node.op != "placeholder"
    ]
    for node in moved:
        last.append(node)
        last = node
    with graph.inserting_after(last):
        on_host = graph.call_function(
            torch.ops.keras_ratesnn.seeds_on_host.default, (seeds,)
        )
    on_host.meta["val"] = _shape_of_seeds_on_host([seed.meta["val"] for seed in seeds])
    for node in draws:
        number, seed, _, tensors = node.args
        node.args = number, on_host, seeds.index(seed), tensors

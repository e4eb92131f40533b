"""Random numbers inside recorded graphs: Keras' draws from a seed, each as one operation whose argument is the seed."""

import contextlib

import torch

from keras_ratesnn._core import keras_internals, tree

_draws: list = []
_numbers: dict = {}
"""The place of each kind of draw in the list: equal graphs have equal numbers, so that PyTorch finds them compiled on disk."""

_library = torch.library.Library("keras_ratesnn", "FRAGMENT")
_library.define("draw(int number, Tensor seeds, int place, Tensor[] tensors) -> Tensor")
_library.define("seeds_on_host(Tensor[] seeds) -> Tensor")


@contextlib.contextmanager
def seeded_draws():
    """A context in which a draw of `keras.random` from a seed is one operation of PyTorch, in this thread.

    Otherwise Keras would read the seed, and a graph would contain its value.
    """
    seeds = {}

    def stand_in(seed):
        generator = torch.Generator()
        seeds[id(generator)] = generator, seed
        return generator

    def run(function, args, kwargs):
        found = seeds.get(id(kwargs.get("generator")))
        if found is None:
            return function(*args, **kwargs)
        draw = _Draw(function, args, {name: value for name, value in kwargs.items() if name != "generator"})
        number = _numbers.setdefault((function, repr(draw)), len(_draws))
        if number == len(_draws):
            _draws.append(draw)
        tensors = [leaf for leaf in tree.flatten(list(args)) if torch.is_tensor(leaf)]
        return torch.ops.keras_ratesnn.draw.default(number, found[1].reshape(1), 0, tensors)

    with keras_internals.torch_generators_from(stand_in, run):
        yield


class _Draw:
    """A call of a function of PyTorch, with another generator each time."""

    def __init__(self, function, args, kwargs):
        self._function = function
        self._args = tree.map_leaves(lambda leaf: _HOLE if torch.is_tensor(leaf) else leaf, list(args))
        self._kwargs = kwargs

    def __repr__(self):
        return repr((self._args, self._kwargs))

    def device(self, tensors):
        """Where it draws: on the device that it is given, or on that of its tensors."""
        return self._kwargs.get("device") or tensors[0].device

    def __call__(self, generator, tensors):
        args = tree.filled(self._args, tensors, lambda leaf: leaf is _HOLE)
        return self._function(*args, **self._kwargs, generator=generator)


_HOLE = object()


@torch.library.impl(_library, "draw", "CompositeExplicitAutograd")
def _draw(number, seeds, place, tensors):
    draw = _draws[number]
    generator = torch.Generator(device=draw.device(tensors))
    # As Keras does.
    generator.manual_seed(int(seeds[place]) & 0xFFFFFFFF)
    return draw(generator, tensors)


@torch.library.register_fake("keras_ratesnn::draw", lib=_library)
def _shape_of_draw(number, seeds, place, tensors):
    return _draws[number](None, tensors)


@torch.library.impl(_library, "seeds_on_host", "CompositeExplicitAutograd")
def _seeds_on_host(seeds):
    return torch.cat(seeds).cpu()


@torch.library.register_fake("keras_ratesnn::seeds_on_host", lib=_library)
def _shape_of_seeds_on_host(seeds):
    return torch.empty(len(seeds), dtype=seeds[0].dtype, device="cpu")


def read_seeds_once(graph):
    """Reads the seeds of all draws of a graph at once, before the first of them: on a GPU the host waits for each read."""
    draws = graph.find_nodes(op="call_function", target=torch.ops.keras_ratesnn.draw.default)
    seeds = list(dict.fromkeys(node.args[1] for node in draws))
    needed = set(seeds)
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    if len(seeds) < 2 or not needed.isdisjoint(draws):
        return
    last = graph.find_nodes(op="placeholder")[-1]
    for node in [node for node in graph.nodes if node in needed and node.op != "placeholder"]:
        last.append(node)
        last = node
    with graph.inserting_after(last):
        on_host = graph.call_function(torch.ops.keras_ratesnn.seeds_on_host.default, (seeds,))
    on_host.meta["val"] = _shape_of_seeds_on_host([seed.meta["val"] for seed in seeds])
    for node in draws:
        number, seed, _, tensors = node.args
        node.args = number, on_host, seeds.index(seed), tensors

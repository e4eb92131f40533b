"""Random numbers inside recorded graphs: Keras' draws from a seed, each as one operation whose argument is the seed."""

import contextlib

import torch

from keras_ratesnn._core import keras_internals, tree

_draws: list = []
_numbers: dict = {}
"""The place of each kind of draw in the list: equal graphs have equal numbers, so that PyTorch finds them compiled on disk."""

_library = torch.library.Library("keras_ratesnn", "FRAGMENT")
_library.define("draw(int number, Tensor seed, Tensor[] tensors) -> Tensor")


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
        return torch.ops.keras_ratesnn.draw.default(number, found[1], tensors)

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

    def __call__(self, generator, tensors):
        remaining = iter(tensors)
        args = tree.map_leaves(lambda leaf: next(remaining) if leaf is _HOLE else leaf, self._args)
        return self._function(*args, **self._kwargs, generator=generator)


_HOLE = object()


@torch.library.impl(_library, "draw", "CompositeExplicitAutograd")
def _draw(number, seed, tensors):
    generator = torch.Generator(device=seed.device)
    # As Keras does.
    generator.manual_seed(int(seed) & 0xFFFFFFFF)
    return _draws[number](generator, tensors)


@torch.library.register_fake("keras_ratesnn::draw", lib=_library)
def _shape_of_draw(number, seed, tensors):
    return _draws[number](None, tensors)

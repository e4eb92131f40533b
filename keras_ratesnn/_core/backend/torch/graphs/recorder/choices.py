"""Choices inside recorded graphs: what serves only tensors that may not be wanted is
computed only where they are wanted.

While a graph is recorded, what may be wanted is recorded like everything else, and then
chosen. Afterwards the operations whose results a choice alone needs move into a graph
of its own.
"""

import itertools
import operator
import weakref

import torch
from torch import fx

from keras_ratesnn._core.backend.torch.graphs.recorder import graph_passes
from keras_ratesnn._core.backend.torch.graphs.recorder.compiler import several

_library = torch.library.Library("keras_ratesnn", "FRAGMENT")
_library.define(
    "choose(Tensor chosen, Tensor[] wanted, Tensor[] otherwise) -> Tensor[]"
)
# What `choose` becomes in a graph that will be compiled.
_library.define(
    "run_if(int number, Tensor chosen, Tensor[] tensors, Tensor[] otherwise) -> "
    "Tensor[]"
)

_choices: weakref.WeakValueDictionary[int, "Choice"] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def choose(chosen, wanted, otherwise):
    """The tensors `wanted` if a boolean scalar tensor is true, else `otherwise`, lists;
    during a recording."""
    return torch.ops.keras_ratesnn.choose.default(chosen, wanted, otherwise)


def is_choice(node):
    """Whether a node chooses."""
    return node.target is torch.ops.keras_ratesnn.choose.default


@torch.library.register_fake("keras_ratesnn::choose", lib=_library)
def _shapes_of_choose(chosen, wanted, otherwise):
    return [torch.empty_like(tensor) for tensor in otherwise]


class Choice:
    """A computation that runs only if its results are wanted.

    Args:
        run: Function of tensors that returns a sequence of tensors.
    """

    __name__ = "choice"

    def __init__(self, run):
        self._run = run

    def __call__(self, chosen, tensors, otherwise):
        return self._run(*tensors) if chosen else otherwise


def with_graphs_of_their_own(graph, finished, compiled):
    """Moves what only a choice needs into a graph of its own, for each choice.

    Args:
        graph: An `fx.Graph`, which is changed.
        finished: Function that makes a graph a function of its arguments.
        compiled: Boolean, whether the graph will be compiled.

    Returns:
        The list of the `Choice`s, which must live as long as the graph.
    """
    changed = graph_passes.changing(graph)
    made = []
    for node in graph.find_nodes(
        op="call_function", target=torch.ops.keras_ratesnn.choose.default
    ):
        chosen, wanted, otherwise = node.args
        inside = _needed_only_by(node, changed)
        part, arguments = _graph_of_its_own(inside, wanted)
        choice = Choice(finished(part))
        made.append(choice)
        arguments = chosen, arguments, list(otherwise)
        with graph.inserting_before(node):
            if compiled:
                number = next(_numbers)
                _choices[number] = choice
                run_if = torch.ops.keras_ratesnn.run_if.default
                run = graph.call_function(run_if, (number, *arguments))
            else:
                run = graph.call_function(choice, arguments)
        run.meta = node.meta
        node.replace_all_uses_with(run)
        graph.erase_node(node)
        for needed in reversed(inside):
            graph.erase_node(needed)
    return made


def _graph_of_its_own(inside, results):
    """`(graph, arguments)`: some nodes as a graph that returns results, and the nodes
    whose results it takes."""
    needed = [argument for node in inside for argument in node.all_input_nodes]
    outside = [
        argument
        for argument in dict.fromkeys([*needed, *results])
        if argument not in inside
    ]
    constants = [argument for argument in outside if argument.op == "get_attr"]
    arguments = [argument for argument in outside if argument.op != "get_attr"]
    part = graph_passes.part_of(arguments, [*constants, *inside], results)
    return part, arguments


def _needed_only_by(choice, changed):
    """The nodes, in order, whose results only the `wanted` tensors of a choice need: a
    dict, for look-ups."""
    chosen, _, otherwise = choice.args
    outside = {chosen, *otherwise}
    inside: dict[fx.Node, None] = {}
    node = choice.prev
    while node.op != "root":
        # Others would see what it changes in place.
        is_pure = (
            node.op == "call_function"
            and not graph_passes.draws(node)
            and graph_passes.memory_of(node) not in changed
        )
        if (
            is_pure
            and node.users
            and node not in outside
            and all(user is choice or user in inside for user in node.users)
        ):
            inside[node] = None
        node = node.prev
    # One of several results is taken where they are: arguments are tensors.
    return {
        node: None
        for node in reversed(inside)
        if node.target is not operator.getitem or node.args[0] in inside
    }


@torch.library.impl(_library, "run_if", "CompositeExplicitAutograd")
def _run_if(number, chosen, tensors, otherwise):
    with torch.no_grad():
        outputs = _choices[number](chosen, tensors, otherwise)
    return several(outputs, (*tensors, *otherwise))


@torch.library.register_fake("keras_ratesnn::run_if", lib=_library)
def _shapes_of_run_if(number, chosen, tensors, otherwise):
    return several(list(map(torch.empty_like, otherwise)))

"""The order of the nodes of a file, and what each of them takes."""

import dataclasses
import graphlib

from keras_ratesnn.nir._hdf5 import NirGraph, NirNode
from keras_ratesnn.nir._neuron_nodes import NODES

_WEIGHTS = ("Affine", "Linear")


@dataclasses.dataclass(frozen=True)
class ConnectedNode:
    """A node in the graph of a file.

    Args:
        node: A `NirNode`.
        inputs: Tuple of strings, the names of the nodes whose outputs it takes the sum
            of.
        feedback: `NirNode` through which the outputs of neurons come back to them one
            step later. Defaults to `None`.
    """

    node: NirNode
    inputs: tuple[str, ...]
    feedback: NirNode | None = None


def in_order(graph):
    """The nodes of a graph and of the graphs in it, each after its inputs.

    Inputs and outputs of inner graphs stay, as nodes that hand on what they take.

    Args:
        graph: A `NirGraph`.

    Returns:
        List of `ConnectedNode`: the first is the input and the last the output of the
        network.

    Raises:
        ValueError: If the network has not one input and one output, or a node is part
            of a loop, or is not connected.
    """
    nodes, edges = _flat(graph)
    feedback = _feedback(nodes, edges)
    apart = {node.name for node in feedback.values()}
    nodes = {name: node for name, node in nodes.items() if name not in apart}
    edges = [edge for edge in edges if apart.isdisjoint(edge)]
    inputs: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        inputs[target].append(source)
    begin, end = _ends(graph)
    if inputs[begin]:
        raise ValueError(
            f"the input of the network, {begin!r}, is also the output of node "
            f"{inputs[begin][0]!r}."
        )
    taken = {source for source, _ in edges}
    for name in nodes:
        if (name != begin and not inputs[name]) or (name != end and name not in taken):
            raise ValueError(
                f"node {name!r} is not connected with the input and the output of the "
                "network."
            )
    if end in taken:
        raise ValueError(
            f"the output of the network, {end!r}, is also the input of another node."
        )
    try:
        order = list(graphlib.TopologicalSorter(inputs).static_order())
    except graphlib.CycleError as error:
        loop = " -> ".join(map(repr, reversed(error.args[1])))
        raise ValueError(
            f"its nodes form a loop, {loop}: keras_ratesnn has recurrent connections "
            "only from neurons back to the same neurons through one Affine or Linear "
            "node."
        ) from error
    return [
        ConnectedNode(nodes[name], tuple(inputs[name]), feedback.get(name))
        for name in order
    ]


def _feedback(nodes, edges):
    """The nodes that take the outputs of neurons, and only give them back: a dict from
    the names of the neurons."""
    feedback = {}
    for name, node in nodes.items():
        sources = [source for source, target in edges if target == name]
        targets = [target for source, target in edges if source == name]
        if (
            node.type in _WEIGHTS
            and len(sources) == 1
            and sources == targets
            and nodes[sources[0]].type in NODES
        ):
            if sources[0] in feedback:
                raise ValueError(
                    f"the outputs of node {sources[0]!r} come back to it through two "
                    "nodes."
                )
            feedback[sources[0]] = node
    return feedback


def _flat(graph, path=""):
    """All nodes by name, and all edges, without inner graphs."""
    nodes: dict[str, NirNode] = {}
    edges, begins, ends = [], {}, {}
    for name, node in graph.nodes.items():
        where = f"{path}{name}"
        begins[name] = ends[name] = where
        inner, inner_edges = {where: node}, []
        if isinstance(node, NirGraph):
            inner, inner_edges = _flat(node, f"{where}.")
            begins[name], ends[name] = (f"{where}.{end}" for end in _ends(node, where))
        if not inner.keys().isdisjoint(nodes):
            raise ValueError(f"two nodes have the name {where!r}.")
        nodes |= inner
        edges += inner_edges
    edges += [(ends[source], begins[target]) for source, target in graph.edges]
    return nodes, edges


def _ends(graph, where=""):
    """The names of the input and the output of a graph."""
    ends = []
    for kind in ("Input", "Output"):
        names = [
            name
            for name, node in graph.nodes.items()
            if isinstance(node, NirNode) and node.type == kind
        ]
        if len(names) != 1:
            what = f"the graph {where!r}" if where else "the network"
            raise ValueError(
                f"{what} has {len(names)} nodes of type {kind}, and keras_ratesnn can "
                "run one with one of each."
            )
        ends += names
    return ends

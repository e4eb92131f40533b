"""The names of the inputs and outputs of an ONNX file."""

import os
from collections.abc import Sequence


def name_outputs(filepath: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Gives the outputs of the graph in a file, in order, the given names."""
    import onnx

    model = onnx.load(filepath)
    # By nodes of their own: an output may be used inside the graph, or be two outputs.
    for output, name in zip(model.graph.output, names, strict=True):
        model.graph.node.append(onnx.helper.make_node("Identity", [output.name], [name]))
        output.name = name
    onnx.save(model, filepath)

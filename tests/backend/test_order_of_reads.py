"""The backward pass sees the weights of the forward pass, in any TensorFlow
function."""

import keras
import pytest
from helpers import CROSSENTROPY, data, only_on, spiking
from keras import ops
from reference_networks import res

import keras_ratesnn as rsnn


def graphs_run(function, *arguments):
    """The graphs that TensorFlow runs, after its optimizers."""
    from tensorflow.python.eager import context

    # At the first call: later ones leave no graphs there.
    context.enable_run_metadata()
    function(*arguments)
    metadata = context.export_run_metadata()
    context.disable_run_metadata()
    return [graphs.post_optimization_graph for graphs in metadata.function_graphs]


def reads_out_of_order(graph):
    """`(found, ordered)`: pairs of a read and an assignment of one variable in either
    order, and the number of all others."""
    nodes = {node.name: node for node in graph.node}
    inputs = {
        name: [source.lstrip("^").split(":")[0] for source in node.input]
        for name, node in nodes.items()
    }

    def before(name):
        seen, todo = set(), [name]
        while todo:
            new = set(inputs[todo.pop()]) - seen
            seen |= new
            todo += new
        return seen

    def variable_of(name):
        source = inputs[name][0]
        return variable_of(source) if nodes[source].op == "Identity" else source

    reads = [name for name, node in nodes.items() if node.op == "ReadVariableOp"]
    found, ordered = [], 0
    for name, node in nodes.items():
        if node.op.startswith("Assign") and node.op.endswith("VariableOp"):
            for read in reads:
                if variable_of(read) == variable_of(name):
                    in_order = read in before(name) or name in before(read)
                    ordered += in_order
                    found += [] if in_order else [(read, name)]
    return found, ordered


@only_on("tensorflow", "the other backends keep the order")
@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("rate", "single"), ("sltt", "single")],
)
def test_weights_are_read_before_they_change_in_a_custom_training_loop(
    gradient, step_mode
):
    import tensorflow as tf

    model = spiking(res(8, rsnn.layers.LIF), 4, gradient, step_mode=step_mode)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = CROSSENTROPY(y, model(x, training=True))
        gradients = tape.gradient(
            value, [variable.value for variable in model.trainable_variables]
        )
        optimizer.apply(gradients, model.trainable_variables)
        return value

    x, y = data(16, (8, 8, 3), classes=5)
    graphs = graphs_run(step, ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    found, ordered = zip(*map(reads_out_of_order, graphs), strict=True)
    assert not any(found)
    assert sum(ordered) >= len(model.trainable_variables)

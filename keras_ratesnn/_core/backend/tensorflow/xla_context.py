"""Whether XLA compiles what is traced."""

import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def compiled_by_xla():
    """Whether the function that is traced now will be compiled by XLA."""
    # TensorFlow has no public function for this.
    return control_flow_util.GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )

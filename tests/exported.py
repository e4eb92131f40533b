"""Runs exported files in the runtimes of their formats."""

import numpy as np

SUFFIXES = {
    "tf_saved_model": "",
    "onnx": ".onnx",
    "litert": ".tflite",
    "openvino": ".xml",
    "torch": ".pt2",
}


def outputs_of(path, format, inputs):
    """The output of a file that has one input and one output."""
    (outputs,) = function_of(path, format)(inputs).values()
    return outputs


def function_of(path, format):
    """The function of a file, for batches of any size: from a dict of arrays to a dict
    of arrays, by the names of its tensors. One input may be an array."""
    names, run = _loaded(str(path), format)

    def function(inputs):
        by_name = inputs if isinstance(inputs, dict) else dict.fromkeys(names, inputs)
        return {name: np.copy(output) for name, output in run(by_name).items()}

    return function


def _loaded(path, format):
    """The names of the inputs of a file, and its function of a dict of arrays."""
    if format == "tf_saved_model":
        import tensorflow as tf

        model = tf.saved_model.load(path)
        function = model.signatures["serving_default"]
        _, specs = function.structured_input_signature

        # The function does not keep the file's variables.
        def run(inputs, model=model):
            tensors = {
                argument: tf.cast(inputs[spec.name], spec.dtype)
                for argument, spec in specs.items()
            }
            return function(**tensors)

        return [spec.name for spec in specs.values()], run
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        outputs = [place.name for place in session.get_outputs()]
        names = [place.name for place in session.get_inputs()]
        return names, lambda inputs: dict(
            zip(outputs, session.run(outputs, inputs), strict=True)
        )
    if format == "openvino":
        import openvino

        # On CPUs that can, it computes in bfloat16 unless told otherwise.
        model = openvino.Core().compile_model(
            path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )
        names = [place.any_name for place in model.inputs]
        return names, lambda inputs: {"output": model(inputs)[0]}
    if format == "torch":
        import torch

        module = torch.export.load(path).module()
        return ["input"], lambda inputs: {
            "output": module(*map(torch.tensor, inputs.values())).detach()
        }
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    names = interpreter.get_signature_list()["serving_default"]["inputs"]
    return names, lambda inputs: interpreter.get_signature_runner()(**inputs)

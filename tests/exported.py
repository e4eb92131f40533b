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
    return loaded(path, format)(inputs)


def loaded(path, format):
    """The function of a file that has one input and one output, for batches of any
    size."""
    path = str(path)
    if format == "tf_saved_model":
        import tensorflow as tf

        # The function does not keep the file's variables.
        model = tf.saved_model.load(path)
        return lambda inputs, model=model: model.serve(inputs).numpy()
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return lambda inputs: session.run(None, {session.get_inputs()[0].name: inputs})[
            0
        ]
    if format == "openvino":
        import openvino

        # On CPUs that can, it computes in bfloat16 unless told otherwise.
        model = openvino.Core().compile_model(
            path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )
        return lambda inputs: np.copy(model(inputs)[0])
    if format == "torch":
        import torch

        module = torch.export.load(path).module()
        return lambda inputs: module(torch.tensor(inputs)).detach().numpy()
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)

    def run(inputs):
        (place,) = interpreter.get_input_details()
        interpreter.resize_tensor_input(place["index"], inputs.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place["index"], inputs)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def function_of(path, format):
    """The function of a file, from a dict of arrays to a dict of arrays, by the names
    of its tensors."""
    path = str(path)
    if format == "tf_saved_model":
        import tensorflow as tf

        # The function does not keep the file's variables.
        loaded = tf.saved_model.load(path)
        return lambda inputs, loaded=loaded: {
            name: value.numpy() for name, value in loaded.serve(inputs).items()
        }
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    runner = interpreter.get_signature_runner()
    # What the runner returns is the memory that its next call writes to.
    return lambda inputs, interpreter=interpreter: {
        name: np.copy(value) for name, value in runner(**inputs).items()
    }

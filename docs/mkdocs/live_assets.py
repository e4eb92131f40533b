"""Writes the network of the live page of a built site: `live_assets.py site`.

`live/assets.js` has one time step of the pretrained digits network as an ONNX file,
whose outputs are the spikes of each layer, too, and ONNX Runtime's program for
browsers, from the npm registry. All are packed by gzip, as strings, because a page that
is opened from disk may load scripts and nothing else.
"""

import base64
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

import keras_ratesnn

RUNTIME = "onnxruntime-web@1.23.2"
FILES = {
    "runtime": "ort.wasm.min.js",
    "glue": "ort-wasm-simd-threaded.mjs",
    "wasm": "ort-wasm-simd-threaded.wasm",
}
CONFIDENCE = 0.9


def network(folder):
    """The assets of the pretrained network, by name; the file is `packed`."""
    model = keras_ratesnn.models.load_pretrained("digits")
    neurons = [
        layer
        for layer in model.network.layers
        if isinstance(layer, keras_ratesnn.layers.Neuron)
    ]
    outputs = {
        "logits": model.network.output,
        **{f"{layer.name}_spikes": layer.output for layer in neurons},
    }
    observed = keras_ratesnn.SpikingModel(
        keras.Model(model.network.inputs, outputs), model.timesteps
    )
    path = folder / "step.onnx"
    states = keras_ratesnn.export_step(
        observed, path, "onnx", batch_size=1, verbose=False
    )
    layers = [
        {"state": state, "spikes": f"{layer.name}_spikes", "shape": values.shape[1:]}
        for layer, (state, values) in zip(neurons, states.items(), strict=True)
    ]
    (pixels,) = model.network.inputs
    return {
        "network": packed(path.read_bytes()),
        "input": pixels.name,
        "layers": layers,
        "timesteps": model.timesteps,
        "confidence": CONFIDENCE,
    }


def runtime(folder):
    """The files of ONNX Runtime, `packed`, by name."""
    subprocess.run(
        ["npm", "pack", "--silent", RUNTIME],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        return {
            name: packed(files.extractfile(f"package/dist/{file}").read())
            for name, file in FILES.items()
        }


def packed(content):
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        assets = network(pathlib.Path(folder)) | runtime(pathlib.Path(folder))
    path = pathlib.Path(sys.argv[1]) / "live" / "assets.js"
    path.write_text(f"window.liveDigits = {json.dumps(assets)};\n")
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")

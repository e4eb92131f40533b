"""The network on the home page of a built site: `live.py site` writes what the page
loads, and checks that it answers as in Python.

`live/assets.js` has one time step of the pretrained digits network as an ONNX file,
whose outputs are the spikes of each layer, too, and ONNX Runtime's program for
browsers, from the npm registry. All are packed by gzip, as strings, because a page that
is opened from disk may load scripts and nothing else.

Then headless Chromium draws digits on the page. It must name the digit of the image
that it begins with, and each that is drawn. Its outputs and spikes after each time step
must be those of the network in Python, for the pixels that the page has made of the
lines.
"""

import base64
import gzip
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

import keras_ratesnn

RUNTIME = "onnxruntime-web@1.23.2"
FILES = {
    "runtime": "ort.wasm.min.js",
    "glue": "ort-wasm-simd-threaded.mjs",
    "wasm": "ort-wasm-simd-threaded.wasm",
}
CONFIDENCE = 0.9

DRAWN = {
    0: "50,10 25,40 30,80 60,90 75,50 50,10",
    3: "28,18 50,10 70,20 66,38 46,48 68,56 74,74 56,90 28,84",
    4: "56,8 34,34 22,62 48,62 78,60;62,38 60,64 56,92",
}
"""Lines of each digit: points in percent of the canvas."""

# Of a page that is opened from disk. Time that scripts wait for passes at once.
CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--dump-dom",
    "--virtual-time-budget=60000",
)


def write(site):
    with tempfile.TemporaryDirectory() as folder:
        assets = network(pathlib.Path(folder)) | runtime(pathlib.Path(folder))
    path = site / "live" / "assets.js"
    path.write_text(f"window.liveDigits = {json.dumps(assets)};\n")
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


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
    states = keras_ratesnn.deploy.export_step(
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


def result_of(chromium, page, lines):
    """What the page has found for lines drawn on it, or at its beginning."""
    address = page.resolve().as_uri() + (f"#stroke={lines}" if lines else "")
    command = [chromium, *CHROMIUM, address]
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300
    ).stdout
    result = re.search(r'data-result="([^"]*)"', text)
    assert result, re.search(r'class="live-headline"[^>]*>([^<]*)', text)
    return json.loads(html.unescape(result[1]))


def check(site):
    chromium = shutil.which("chromium")
    if chromium is None:
        print("There is no Chromium: the live page is not checked.")
        return
    model = keras_ratesnn.models.load_pretrained("digits")
    model.return_sequences = True
    neurons = [
        layer.name
        for layer in model.network.layers
        if isinstance(layer, keras_ratesnn.layers.Neuron)
    ]
    observed = keras_ratesnn.analysis.observed(model, spikes=neurons)
    for digit, lines in ((3, ""), *DRAWN.items()):
        found = result_of(chromium, site / "index.html", lines)
        expected = observed.predict(np.reshape(found["image"], (1, 8, 8, 1)), verbose=0)
        steps = np.arange(1, model.timesteps + 1)[:, None]
        np.testing.assert_allclose(
            found["logits"], np.cumsum(expected["output"][0], axis=0) / steps, atol=1e-4
        )
        spikes = [
            expected["spikes"][name][0].reshape(model.timesteps, -1).sum(axis=1)
            for name in neurons
        ]
        np.testing.assert_array_equal(found["spikes"], np.transpose(spikes))
        assert found["digit"] == digit, found
        print(
            f"{digit}: named at step {found['sure']}, every spike and output as in "
            f"Python, on {keras.backend.backend()}"
        )


if __name__ == "__main__":
    site = pathlib.Path(sys.argv[1])
    write(site)
    check(site)

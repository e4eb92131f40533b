"""Checks the package that is installed, as a user gets it: `.ci/release` runs it.

Pretrained networks load and predict, the README's code runs, and a model that version
0.1.0 has saved gives the same outputs. This file's folder has no package, so that
none of the checkout is imported.
"""

import pathlib
import re

import keras
import numpy as np

import keras_ratesnn as rsnn
from keras_ratesnn import about

ROOT = pathlib.Path(__file__).parents[1]


def check_pretrained():
    names = list(rsnn.models.list_pretrained())
    for name in names:
        model = rsnn.models.load_pretrained(name)
        inputs = [
            np.zeros((2, *tensor.shape[1:]), tensor.dtype)
            for tensor in model.network.inputs
        ]
        outputs = model.predict_on_batch(inputs[0] if len(inputs) == 1 else inputs)
        for output in keras.tree.flatten(outputs):
            assert np.isfinite(output).all(), name
    print(f"{len(names)} pretrained networks load and predict")


def check_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    print(f"{len(blocks)} blocks of the README run")


def check_saved():
    paths = sorted((ROOT / "tests" / "saved").glob("*.keras"))
    assert paths
    for path in paths:
        with np.load(path.with_suffix(".npz")) as file:
            inputs, expected = file["x"], file["outputs"]
        outputs = keras.saving.load_model(path).predict(inputs, verbose=0)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)
        print(f"{path.name} gives the same outputs")


if __name__ == "__main__":
    assert "site-packages" in rsnn.__file__, rsnn.__file__
    print(about.text())
    check_pretrained()
    check_readme()
    check_saved()

"""`recipes.evaluate_checkpoint` tests the network of a file of the authors' program on
images of a recipe."""

import keras
import numpy as np
import pytest

import keras_ratesnn as rsnn
from recipes import publish
from recipes.data import fashion_mnist
from recipes.evaluate_checkpoint import main
from tests.recipes.made_clothes import made_clothes, write_clothes

pytestmark = pytest.mark.runs_once

ARGUMENTS = [
    "--data",
    "fashion_mnist",
    "--arguments",
    '{"heads": 2}',
    "--batch-size",
    "32",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint of a small Max-Former, and a folder of images."""
    folder = tmp_path_factory.mktemp("made")
    keras.utils.set_random_seed(0)
    model = rsnn.models.MaxFormer((28, 28, 1), timesteps=2, dims=16, blocks=3, heads=2)
    rsnn.models.to_checkpoint(model, folder / "maxformer.pth")
    return model, folder / "maxformer.pth", write_clothes(folder)


def test_the_accuracy_is_that_on_normalised_images_and_the_card_says_its_source(
    made, tmp_path, capsys
):
    model, file, folder = made
    output = [
        "--output",
        str(tmp_path / "run"),
        "--origin",
        "https://example.org/maxformer",
    ]
    assert (
        main(
            [
                str(file),
                *ARGUMENTS,
                *output,
                "--data-dir",
                str(folder),
                "--network",
                "maxformer",
                "--timesteps",
                "2",
            ]
        )
        == 0
    )
    pixels, labels = made_clothes(80, seed=80)
    images = (
        pixels[..., None] - fashion_mnist.MEAN_PIXEL
    ) / fashion_mnist.PIXEL_DEVIATION
    accuracy = np.mean(model.predict(images, verbose=0).argmax(axis=1) == labels)
    report, scores = capsys.readouterr().out.split(
        "T = 2, 80 test images of fashion_mnist\n"
    )
    assert report.startswith(f"{file}: maxformer, a MaxFormer")
    assert f"test accuracy: {accuracy:.4f}\n" in scores
    texts = ["--data-set", "Clothes", "--preprocessing", "Bytes", "--licence", "MIT"]
    assert (
        publish.main(
            [
                str(tmp_path / "run"),
                "--name",
                "clothes",
                *texts,
                "--to",
                str(tmp_path / "hub"),
            ]
        )
        == 0
    )
    loaded = rsnn.models.load_pretrained(tmp_path / "hub")
    np.testing.assert_allclose(
        loaded.predict(pixels[..., None], verbose=0),
        model.predict(images, verbose=0),
        atol=1e-4,
    )
    page = (tmp_path / "hub" / "README.md").read_text()
    assert "| origin | https://example.org/maxformer: maxformer.pth, SHA-256 " in page
    assert "| licence | MIT |" in page
    assert "training" not in page
    assert "bibtex" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "qkformer"], "`network` must be maxformer"),
        (
            ["--arguments", '{"classes": 3, "heads": 2}'],
            "--data must have 3 classes, as the network",
        ),
        (["--arguments", '{"pooling": 1}'], "pooling"),
        (["--data-dir", "absent"], "absent"),
        (["--output", "run"], "--output and --origin must be given together"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(arguments, message, made, capsys):
    _, file, folder = made
    assert main([str(file), *ARGUMENTS, "--data-dir", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err

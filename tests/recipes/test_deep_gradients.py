"""The gradients of deep networks by depth and epoch: what is compared, kept and
shown."""

import pathlib

import numpy as np

from recipes import deep_gradients
from recipes.temporal_map import Results
from tests.recipes.made_clothes import write_clothes

DOCS = pathlib.Path(deep_gradients.__file__).parents[1] / "docs"


def test_what_was_compared_is_kept_shown_and_not_trained_again(
    tmp_path, monkeypatch, capsys
):
    small = {"WIDTH": 0.125, "IMAGES": 32, "COMPARED": 8, "SEEDS": 1}
    for name, value in {**small, "TIMESTEPS": (2,), "EPOCHS": (0, 1)}.items():
        monkeypatch.setattr(deep_gradients, name, value)
    monkeypatch.delitem(deep_gradients.NETWORKS, "ResNet-18")
    path = tmp_path / "kernels.jsonl"
    command = ["--output", str(path), "--data-dir", str(write_clothes(tmp_path))]
    assert deep_gradients.main(command) == 0
    kept = path.read_text()
    before, after = Results(path).find(network="VGG-11", timesteps=2, seed=0)
    assert (before["epochs"], after["epochs"]) == (0, 1)
    assert before["cosine"] != after["cosine"]
    for record in (before, after):
        one, two, halves, sltt = record["cosine"]
        # Two windows of two steps have BPTT's gradient, and so has a last kernel.
        np.testing.assert_allclose([two, halves], 1.0, atol=1e-3)
        assert min(*one, *sltt) < 0.99
        assert (one[-1], sltt[-1]) == (1.0, 1.0)
    assert "'seed': 0" in capsys.readouterr().out
    assert deep_gradients.main(command) == 0
    assert deep_gradients.main([*command, "--show"]) == 0
    printed = capsys.readouterr().out
    assert "'seed'" not in printed
    assert "| VGG-11 | 2 | 1 | 1 |" in printed
    assert (tmp_path / "deep_gradients.png").exists()
    assert path.read_text() == kept


def test_the_pages_say_what_was_found():
    results = Results(deep_gradients.RESULTS)
    assert deep_gradients.table(results) in (DOCS / "analysis.md").read_text()
    medians = {
        case: np.median(values[0], axis=(0, 2))
        for case, values in deep_gradients.by_case(results)
    }
    first, trained = (medians["ResNet-18", 4, epochs][0] for epochs in (0, 1))
    said = f"median {first:.2f} at T = 4 before training and {trained:.2f} after an"
    limits = " ".join((DOCS / "limits.md").read_text().split())
    assert said in limits

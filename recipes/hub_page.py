"""The README.md of a pretrained network on a hub: what the hub's search reads of it, and what people read."""

import json

CITATION = """@inproceedings{yu2024rate,
  title     = {Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based Backpropagation},
  author    = {Yu, Chengting and Liu, Lei and Wang, Gaoang and Li, Erping and Wang, Aili},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {37},
  year      = {2024},
  eprint    = {2410.11488},
  archiveprefix = {arXiv}
}"""
"""That of docs/citing.md."""


def page(card, address):
    """The text of the file.

    Args:
        card: The `Card`.
        address: String, the address for `load_pretrained`.
    """
    accuracies = "".join(f"| {timesteps} | {accuracy:.2%} |\n" for timesteps, accuracy in card.accuracies.items())
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    return f"""---
{_front_matter(card)}---

# {card.name}

A spiking neural network for Keras 3, made with keras_ratesnn: `{card.network}`, {card.parameters:,} parameters.

```python
import keras_ratesnn as rsnn

model = rsnn.models.load_pretrained({address!r})
```

It runs on TensorFlow, JAX and PyTorch. `card.json` has the hash of `{card.file}`, which is checked before it is loaded.

| | |
|---|---|
| input | {card.preprocessing} |
| data set | {card.data_set} |
| training | gradient {card.gradient}, T = {card.timesteps}, {card.epochs} epochs, seed {card.seed}, on {card.backend} |
| versions | {versions} |
| licence | {card.licence} |

## Metrics

Accuracy on {card.test_images:,} test images, by the number of time steps T:

| T | accuracy |
|---|---|
{accuracies}
## Citation

The authors of the method:

```bibtex
{CITATION}
```
"""


def _front_matter(card):
    """YAML, of which JSON is a part: no text of a card can be taken for something else."""
    dataset = {"name": card.data_set, "type": card.architecture}
    metric = {"type": "accuracy", "value": card.test_accuracy, "name": f"test accuracy, T = {card.timesteps}"}
    results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": [metric]}]
    fields = {
        "license": card.licence.lower(),
        "library_name": "keras",
        "tags": ["keras_ratesnn", "spiking-neural-network"],
        "metrics": ["accuracy"],
        "model-index": [{"name": card.name, "results": results}],
    }
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items())

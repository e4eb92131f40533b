"""The README.md of a pretrained network on a hub: what the hub's search reads of it, and what people read."""

import json
import pathlib

TEMPLATE = pathlib.Path(__file__).with_suffix(".txt")
"""The citation in it is that of docs/citing.md."""


def page(card, address):
    """The text of the file.

    Args:
        card: The `Card`.
        address: String, the address for `load_pretrained`.
    """
    accuracies = "".join(f"| {timesteps} | {accuracy:.2%} |\n" for timesteps, accuracy in card.accuracies.items())
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    trained = f"gradient {card.gradient}, T = {card.timesteps}, {card.epochs} epochs, seed {card.seed}, on {card.backend}"
    source = f"| origin | {card.origin}, T = {card.timesteps} |" if card.origin else f"| training | {trained} |"
    integers = ""
    if card.integers:
        row = (
            "| integers | accuracy {test_accuracy:.2%}; C program: {constants:,} bytes of constants and {memory:,} of memory, "
            "{memory_without_cache:,} with `cache_input=False` |\n"
        )
        integers = row.format(**card.integers)
    texts = {"source": source, "integers": integers, "accuracies": accuracies, "versions": versions}
    form = TEMPLATE.read_text(encoding="utf-8")
    text = form.format(card=card, address=address, front_matter=_front_matter(card), **texts)
    # Weights of others were trained with a method of theirs.
    return text.partition("\n## Citation")[0] if card.origin else text


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

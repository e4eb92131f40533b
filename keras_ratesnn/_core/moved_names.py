"""Public names that moved, or are public no longer: until 0.3 the error for one says
what to use."""

from typing import Any

NEW_NAMES = {
    **{
        f"keras_ratesnn.{name}": f"keras_ratesnn.deploy.{name}"
        for name in (
            "IntegerModel",
            "calibrate_confidence",
            "export_c",
            "export_nir",
            "export_step",
            "fold_batch_normalization",
            "import_nir",
            "load_integers",
            "predict_until_sure",
            "quantize_aware",
            "unroll",
        )
    },
    **{
        f"keras_ratesnn.gradients.{name}": f"keras_ratesnn.gradients.extend.{name}"
        for name in (
            "Context",
            "EligibilityHandler",
            "EncoderHandler",
            "Handler",
            "LoopedHandler",
            "MixingHandler",
            "Network",
            "NeuronHandler",
            "Node",
            "NormalizationHandler",
            "OperationHandler",
            "PlannedCall",
            "RandomHandler",
            "Run",
            "after_neurons",
            "graft",
            "in_time",
            "plain",
            "plain_nodes",
            "stopped",
            "with_neurons",
        )
    },
    "keras_ratesnn.LayerKind": "keras_ratesnn.layers.LayerKind",
    "keras_ratesnn.Normalization": "keras_ratesnn.layers.BatchStatistics",
    "keras_ratesnn.affine": "keras_ratesnn.layers.affine",
    "keras_ratesnn.analysis.AuditedNumber": "keras_ratesnn.analysis.Audit.numbers",
    "keras_ratesnn.analysis.Ledger": "keras_ratesnn.analysis.EnergyBreakdown",
    "keras_ratesnn.analysis.Rival": "keras_ratesnn.analysis.DenseNetwork",
    "keras_ratesnn.gradients.BY_NAME": "keras_ratesnn.gradients.get",
    "keras_ratesnn.gradients.MaskHandler": "keras_ratesnn.gradients.extend."
    "RandomMaskHandler",
    "keras_ratesnn.integer": "keras_ratesnn.deploy.to_integers",
    "keras_ratesnn.models.in_precision": "keras_ratesnn.models.load_pretrained, which "
    "has an argument `dtype`",
    "keras_ratesnn.models.place_to_publish": "python -m recipes.publish, which has an "
    "option --to",
    "keras_ratesnn.recorded": "keras_ratesnn.record_calls, which returns nothing",
}
"""New names, by the full old ones. They are written out, since what asks a module for a
name, such as an import of a submodule, must not import `deploy`."""


def error(module: str, name: str, advice: str = "") -> AttributeError:
    """The error for a name that a module does not have.

    Args:
        module: String, the name of the module.
        name: String.
        advice: String, what else is said of the name. Defaults to `""`.
    """
    new_name = NEW_NAMES.get(f"{module}.{name}")
    advice = f" Use {new_name}." if new_name else advice
    return AttributeError(f"module {module!r} has no attribute {name!r}.{advice}")


def refuse(names: dict[str, Any]) -> None:
    """Has a module raise that error.

    Args:
        names: Dict, the `globals()` of the module. Type checkers do not see that it
            gets a `__getattr__`, so they report names that it does not have.
    """

    def missing(name: str) -> Any:
        raise error(names["__name__"], name)

    names["__getattr__"] = missing

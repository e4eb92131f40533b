"""Public names that moved, or are public no longer: until 0.3 the error for one says
what to use."""

import types
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

NEW_HOOKS = {
    "GradientMethod": {"draws": "uses_random_numbers"},
    "Handler": {"again": "replayed_state", "end": "commit", "finish": "release"},
    "LoopedHandler": {"compiles": "fuses", "final": "summarize"},
    "NeuronCell": {
        "fed_back": "feedback",
        "feeds_back": "feedback",
        "moves_in_padding": "in_parallel",
    },
}
"""New names of what subclasses override, by the base class and the old name."""


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
    """Has a module raise `error` for names that it lacks; one of its modules may have
    them now.

    Args:
        names: Dict, the `globals()` of the module. Type checkers do not see that it
            gets a `__getattr__`, so they report names that it does not have.
    """

    def missing(name: str) -> Any:
        public = map(names.get, names["__all__"])
        modules = [each for each in public if isinstance(each, types.ModuleType)]
        places = [each.__name__ for each in modules if name in each.__all__]
        advice = f" Use {places[0]}.{name}." if places else ""
        raise error(names["__name__"], name, advice)

    names["__getattr__"] = missing


class RefusesOldHooks:
    """A base class that refuses subclasses which override something by its old name:
    nothing would call it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__:
            for name, new_name in NEW_HOOKS.get(base.__name__, {}).items():
                if name in vars(cls):
                    raise TypeError(
                        f"{cls.__name__} overrides `{name}` of {base.__name__}, which "
                        f"is `{new_name}` now. Rename it."
                    )

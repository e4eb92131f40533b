"""The settings of a recipe as they are typed after `--set` and written to the files of
a run: names and plain values.

A recipe has a part for each kind of training. These names are one list for all kinds,
so that the files of all runs have the same names: what a recipe has no part for has the
value in which nothing is set.
"""

import dataclasses

from recipes import checks, methods
from recipes.checks import both_set, mistake
from recipes.optimizers import SGD, Adam, AdamW
from recipes.stages import OrdinaryStage, SpikingStage
from recipes.teaching import Branches, Steps, Teacher

TEACHERS = {"teacher_weight": Teacher, "branches": Branches, "step_distillation": Steps}
"""Settings of which one at the most is not None, and what each makes."""

OF_STAGE = (
    "timesteps",
    "levels",
    "weights",
    "random_timesteps",
    "one_step_epochs",
    "start_from",
    "step_mode",
)
"""Settings that are fields of a `SpikingStage`, under the same name."""

OF_SPIKING = (
    *OF_STAGE,
    "gradient",
    *methods.COUNTED.values(),
    *TEACHERS,
    "temperature",
    "teachers",
)
"""Settings of the spiking network: the training of the ordinary one does not depend on
them."""

OF_TEACHING = (
    "ordinary",
    "ordinary_epochs",
    "ordinary_learning_rate",
    *TEACHERS,
    "temperature",
    "teachers",
)
"""Settings that train the spiking network with others: commands that train it alone do
not use them."""

ORDINARY = ("no", "only", "beside", "first")
"""Values of `ordinary`: the spiking network is trained; the ordinary one; first the
ordinary one, then the spiking one from scratch; or likewise, but the spiking network
starts from the weights of the ordinary one."""

OPTIMIZERS = {"sgd": SGD, "adamw": AdamW, "adam": Adam}

NEEDS_SGD = "with another optimizer than 'sgd'", "Set optimizer=sgd"
NEEDS_ORDINARY = (
    "if no ordinary network is trained",
    "Set ordinary=first or ordinary=beside",
)
NEEDS_TEACHER = (
    "if no ordinary network is trained and no teachers are set",
    "Set teachers, ordinary=first or ordinary=beside",
)
NEEDS = {
    **dict.fromkeys(("as_the_authors", "restart_at"), NEEDS_SGD),
    **dict.fromkeys(("ordinary_epochs", "ordinary_learning_rate"), NEEDS_ORDINARY),
    "teacher_weight": NEEDS_TEACHER,
    "teachers": ("without teacher_weight", "Set teacher_weight"),
    "temperature": (
        "without a teacher, branches and step_distillation",
        "Set teacher_weight, branches or step_distillation",
    ),
    "epochs": (
        "with ordinary=only: the recipe has others for its ordinary network",
        "Set ordinary_epochs",
    ),
    "learning_rate": (
        "with ordinary=only: the recipe has another for its ordinary network",
        "Set ordinary_learning_rate",
    ),
    "windows": ("with another gradient than 'rate'", "Set gradient=rate"),
    "random_steps": ("with another gradient than 'sltt'", "Set gradient=sltt"),
}
"""Settings without effect in some kinds of training: where, and what gives them one."""


NO_SETTINGS = (
    "description",
    "load_data",
    "build_network",
    "neuron",
    "task",
    "has_time",
    "mask_value",
    "optimizer",
    "spiking",
)
"""Fields of a `Recipe` that are no settings; all others are, under the same name."""


def of(recipe):
    """The settings of a `Recipe`, a dictionary of plain values."""
    return {
        **{name: getattr(recipe, name) for name in plain(recipe)},
        **of_training(recipe.optimizer, recipe.spiking),
    }


def of_training(optimizer, spiking):
    """The settings of an optimizer and of a `SpikingStage` or None, a dictionary."""
    # Without a spiking network nothing of it is set.
    found = spiking or SpikingStage(timesteps=1)
    stage, taught_by = found.after, found.taught_by
    sgd = optimizer if isinstance(optimizer, SGD) else SGD()
    return {
        "optimizer": next(
            name for name, kind in OPTIMIZERS.items() if type(optimizer) is kind
        ),
        "as_the_authors": sgd.paper_rates,
        "restart_at": sgd.restart_at,
        "ordinary": ordinary(spiking),
        "ordinary_epochs": stage.epochs if stage else None,
        "ordinary_learning_rate": stage.learning_rate if stage else None,
        **{name: getattr(found, name) for name in OF_STAGE},
        "gradient": methods.name_of(found.gradient),
        "windows": getattr(found.gradient, "windows", 1),
        "random_steps": getattr(found.gradient, "random_steps", None),
        **{
            name: taught_by.amount if isinstance(taught_by, kind) else None
            for name, kind in TEACHERS.items()
        },
        "temperature": taught_by.temperature if taught_by else None,
        "teachers": getattr(taught_by, "pretrained", None),
    }


def plain(recipe):
    """The names of the settings that are fields of a `Recipe`, or of its class, a
    list."""
    return [
        field.name
        for field in dataclasses.fields(recipe)
        if field.name not in NO_SETTINGS
    ]


def ordinary(spiking):
    """The value of `ordinary` for a `SpikingStage` or None."""
    if spiking is None:
        return "only"
    if spiking.after is None:
        return "no"
    return "first" if spiking.after.gives_weights else "beside"


def changed(recipe, given):
    """A recipe with other settings.

    Args:
        recipe: A `Recipe`.
        given: Dictionary from names to values.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is out of range, or has no effect together with the
            others.
    """
    values = {**of(recipe), **given}
    if "gradient" in given:
        # A class of one's own has the name of where it is defined.
        given = {**given, "gradient": methods.name_of(methods.gradient_method(values))}
    checks.one_of("ordinary", values["ordinary"], ORDINARY)
    checks.one_of("optimizer", values["optimizer"], OPTIMIZERS)
    stage = None
    if values["ordinary"] != "no":
        own = {
            "epochs": values["ordinary_epochs"],
            "learning_rate": values["ordinary_learning_rate"],
        }
        stage = OrdinaryStage(gives_weights=values["ordinary"] == "first", **own)
    if values["ordinary"] == "only":
        spiking = None
        values.update(stage.own(values["epochs"], values["learning_rate"]))
    else:
        gradient, taught_by = methods.gradient_method(values), _taught_by(values, stage)
        of_stage = {name: values[name] for name in OF_STAGE}
        spiking = SpikingStage(
            **of_stage, gradient=gradient, after=stage, taught_by=taught_by
        )
    sgd = SGD(restart_at=values["restart_at"], paper_rates=values["as_the_authors"])
    optimizer = (
        sgd if values["optimizer"] == "sgd" else OPTIMIZERS[values["optimizer"]]()
    )
    fields = {name: values[name] for name in plain(recipe)}
    made = dataclasses.replace(recipe, **fields, optimizer=optimizer, spiking=spiking)
    _check_effect(given, of(made))
    return made


def _taught_by(values, stage):
    given = {name: values[name] for name in TEACHERS if values[name] is not None}
    if len(given) > 1:
        raise both_set(**dict([*given.items()][:2]))
    for name, value in given.items():
        if name != "teacher_weight":
            return TEACHERS[name](value, values["temperature"])
        if stage is not None or values["teachers"] is not None:
            return Teacher(value, values["temperature"], values["teachers"])
    return None


def _check_effect(given, found):
    """Checks that the settings that are given are those of the recipe that was made,
    `found`."""
    lost = [name for name in given if given[name] != found[name]]
    if found["ordinary"] == "only":
        unused = [f"{name}={given[name]}" for name in lost if name in OF_SPIKING]
        if unused:
            raise ValueError(
                "With ordinary=only there is no spiking network, to which these "
                f"settings belong. Received: --set {' '.join(unused)}. Leave them out, "
                "or set ordinary=beside or ordinary=first to train both networks."
            )
        # They are its epochs and its learning rate; beside them, those of the spiking
        # network are for a later run.
        own = ("ordinary_epochs", "ordinary_learning_rate")
        lost = [
            name for name in lost if name not in own and f"ordinary_{name}" not in given
        ]
    for name in lost:
        where, remedy = NEEDS[name]
        raise mistake(
            name, f"{found[name]} {where}", given[name], f"{remedy}, or leave it out."
        )

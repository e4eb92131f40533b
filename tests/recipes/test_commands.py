"""What all commands of the recipes have in common."""

import argparse
import pathlib
import runpy

import pytest

import recipes
from recipes.command_line import INTERRUPTED

pytestmark = pytest.mark.runs_once

ROOT = pathlib.Path(recipes.__file__).parent.parent


WITHOUT_A_PARSER = ("recipes.benchmark.evidence.stage",)


def commands():
    """The modules that read a command line."""
    paths = [path for path in sorted((ROOT / "recipes").rglob("*.py")) if "\n    sys.exit(" in path.read_text()]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in paths]
    return [module for module in modules if module not in WITHOUT_A_PARSER]


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

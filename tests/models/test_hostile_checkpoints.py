"""Checkpoints that are damaged, foreign or made to do harm are refused in a line, and
run no code."""

import argparse
import io
import os
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest
import torch
from helpers import assert_close, in_threads
from published_cases import FOLDER

from keras_ratesnn.models import from_checkpoint

GOOD = FOLDER / "ratebp_resnet19.pth"
LEGACY = FOLDER / "sew_resnet18_legacy.pth"


class Runs:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def torch_saved(content, **kwargs):
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def zipped_anew(data, compression=zipfile.ZIP_STORED, pickled=None):
    """The members of an archive in another one, if wanted with another pickle."""
    file = io.BytesIO()
    old = zipfile.ZipFile(io.BytesIO(data))
    with zipfile.ZipFile(file, "w", compression) as new:
        for name in old.namelist():
            is_replaced = pickled is not None and name.endswith("data.pkl")
            new.writestr(name, pickled if is_replaced else old.read(name))
    return file.getvalue()


def named_twice(data):
    """An archive whose members are listed twice."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.filelist *= 2
        archive.writestr("last", "")
    return file.getvalue()


def files(marker):
    """Names of files to their contents: one for each reason to refuse a file."""
    code = Runs(os.system, f"touch {marker}")
    good, weights = GOOD.read_bytes(), {"fc.weight": torch.ones(2, 2)}
    legacy = {"_use_new_zipfile_serialization": False}
    tensors = {
        "repeated": torch.ones(1).expand(100_000, 100_000),
        "sparse": torch.eye(3).to_sparse(),
        "complex": torch.ones(3, dtype=torch.complex64),
        "empty": torch.ones(0, 3),
    }
    odd = {name: torch_saved({"fc.weight": odd}) for name, odd in tensors.items()}
    many_zeros = torch_saved({"fc.weight": torch.zeros(2_000_000)})
    return odd | {
        "nothing": b"",
        "pickle_that_runs": pickle.dumps(code, protocol=2),
        "runs": torch_saved({"model": weights, "args": code}),
        "runs_in_legacy": torch_saved({"model": weights, "args": code}, **legacy),
        "namespace": torch_saved(
            {"model": weights, "args": argparse.Namespace(a=code)}
        ),
        "whole_module": torch_saved(torch.nn.Linear(2, 2)),
        "truncated": good[: len(good) // 2],
        "legacy_truncated": LEGACY.read_bytes()[:-1000],
        "bomb": zipped_anew(many_zeros, zipfile.ZIP_DEFLATED),
        "overlapping": named_twice(good),
        "no_weights": torch_saved({"epoch": 1}),
        "broken_pickle": zipped_anew(good, pickled=b"\x80\x02}((((u."),
        "lines": torch_saved({"model": {"fc\nline.weight": torch.ones(3)}}),
        "foreign": torch_saved({"model": {"encoder.weight": torch.ones(3, 3)}}),
        "hollow": torch_saved({"conv0.0.weight": torch.tensor(1.0)}),
    }


def test_damaged_foreign_and_hostile_files_are_refused_in_a_line_and_run_no_code(
    tmp_path, capfd
):
    marker = tmp_path / "marker"
    for name, data in files(marker).items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"^`path` must ") as error:
            from_checkpoint(path)
        text = str(error.value)
        assert repr(str(path)) in text
        assert len(text) < 700 + len(str(path))
        # PyTorch advises to run what is in the file.
        assert not re.search(r"\n|weights_only=False|add_safe_globals", text)
        assert not marker.exists(), name
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="`path` must be"):
            from_checkpoint(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        from_checkpoint(tmp_path / "absent.pth")


def test_names_and_settings_that_take_much_memory_are_refused_before_they_do(tmp_path):
    many = pickle.dumps("a" * (5 * 2**20), 2)
    header = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}
    legacy = b"".join(pickle.dumps(part, 2) for part in header) + many
    path = tmp_path / "large.pth"
    for data in (zipped_anew(GOOD.read_bytes(), pickled=many), legacy):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="names and settings take more than"):
            from_checkpoint(path)


def test_a_small_file_for_a_network_larger_than_memory_is_refused(tmp_path):
    shapes = {}
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            shapes[f"layer{stage}.{block}.conv1.0"] = (1, 1, 1, 1)
    shapes |= {"conv1": (1, 1, 7, 7), "fc": (1_000_000, 1)}
    shapes["layer4.0.conv1.0"] = (1_000_000, 1, 1, 1)
    path = tmp_path / "large.pth"
    weights = {f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"it lacks .*bias of stem_bn"):
        from_checkpoint(path)
    # The names of many blocks.
    shapes = {
        "patch_embed.proj_conv": (8, 3, 1, 1),
        "patch_embed.rpe_conv": (8, 8, 1, 1),
        "patch_embed.proj_conv3": (8, 4, 1, 1),
        "block.0.mlp.fc1_conv": (8, 8, 1, 1),
        "head": (2, 8),
    }
    weights = {f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    for number in range(2000):
        weights[f"block.{number}.attn.q_bn.bias"] = torch.ones(1)
    torch.save(weights, path)
    with pytest.raises(ValueError, match="as spikformer it has 2000 blocks"):
        from_checkpoint(path)


def test_reading_leaves_what_pytorch_allows_as_it_was():
    allowed = torch.serialization.get_safe_globals
    before = set(allowed())
    in_threads(lambda: from_checkpoint(LEGACY, verbose=False), [()] * 2)
    assert set(allowed()) == before
    # What the user's program allows stays allowed.
    with torch.serialization.safe_globals([argparse.Namespace]):
        from_checkpoint(LEGACY, verbose=False)
        assert argparse.Namespace in allowed()


def test_without_pytorch_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="`from_checkpoint` needs the package torch"):
        from_checkpoint(GOOD)


def test_the_network_does_not_change_with_the_file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(GOOD.read_bytes())
    model = from_checkpoint(path, input_shape=(16, 16, 3), verbose=False)
    before = [np.array(weight) for weight in model.get_weights()]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_close(model.get_weights(), before, rtol=0)

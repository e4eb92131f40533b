"""Checkpoints that are damaged, foreign or made to do harm are refused in a line, and
run no code."""

import argparse
import collections
import io
import os
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
import torch
from helpers import in_threads
from published_cases import FOLDER

from keras_ratesnn.models import from_checkpoint

pytestmark = pytest.mark.runs_once

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


def members_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {member: archive.read(member) for member in archive.namelist()}


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def replaced(data, **endings):
    """An archive with other contents of the members whose names have these endings."""
    members = members_of(data)
    return zipped(
        {
            name: endings.get(name.rpartition("/")[2].replace(".", "_"), part)
            for name, part in members.items()
        }
    )


def without_numbers(shape, stride, numbers=4):
    """A tensor whose shape is larger than its storage."""

    content, file = torch_saved({"fc.weight": torch.ones(numbers)}), io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return (
                ("storage", torch.FloatStorage, "0", "cpu", numbers)
                if value is Ellipsis
                else None
            )

    tensor = Runs(
        torch._utils._rebuild_tensor_v2,
        ...,
        0,
        shape,
        stride,
        False,
        collections.OrderedDict(),
    )
    Pickler(file, protocol=2).dump({"model": {"fc.weight": tensor}})
    return replaced(content, data_pkl=file.getvalue())


def claimed(numbers):
    """A file whose pickle claims more numbers than are in it."""
    data = members_of(torch_saved({"fc.weight": torch.ones(4)}))
    name = next(name for name in data if name.endswith("data.pkl"))
    # The length of a storage and the size of the tensor are small integers of the
    # pickle.
    data[name] = data[name].replace(b"K\x04", b"J" + struct.pack("<i", numbers))
    return zipped(data)


def files(marker):
    """Names of files to their contents."""
    code = (os.system, f"touch {marker}")
    good, weights = GOOD.read_bytes(), {"fc.weight": torch.ones(2, 2)}
    legacy = {"_use_new_zipfile_serialization": False}
    bomb = members_of(torch_saved({"fc.weight": torch.zeros(2_000_000)}))
    return {
        "empty": b"",
        "text": b"These are no weights.\n" * 9,
        "noise": np.random.default_rng(0).bytes(4096),
        "pickle_of_weights": pickle.dumps({"fc.weight": np.ones(3)}),
        "pickle_that_runs": pickle.dumps(Runs(*code), protocol=2),
        "runs": torch_saved({"model": weights, "args": Runs(*code)}),
        "runs_as_weight": torch_saved({"fc.weight": Runs(*code)}),
        "runs_in_legacy": torch_saved(
            {"model": weights, "args": Runs(*code)}, **legacy
        ),
        "runs_eval": torch_saved(
            {"model": weights, "epoch": Runs(eval, f"open({str(marker)!r}, 'w')")}
        ),
        "opens": torch_saved({"model": weights, "epoch": Runs(open, str(marker), "w")}),
        "whole_module": torch_saved(torch.nn.Linear(2, 2)),
        "namespace_of_code": torch_saved(
            {"model": weights, "args": argparse.Namespace(a=Runs(*code))}
        ),
        "truncated": good[: len(good) // 2],
        "truncated_end": good[:-30],
        "without_start": good[100:],
        "legacy_truncated": LEGACY.read_bytes()[:-1000],
        "legacy_truncated_pickle": LEGACY.read_bytes()[:3000],
        "bomb": zipped(bomb, zipfile.ZIP_DEFLATED),
        "other_zip": zipped({"a/readme.txt": b"weights"}),
        "no_numbers": zipped(
            {
                name: data
                for name, data in members_of(good).items()
                if "/data/" not in name
            }
        ),
        "other_pickle": replaced(good, data_pkl=b"\x80\x02}q\x00."),
        "broken_pickle": replaced(good, data_pkl=b"\x80\x02}((((u."),
        "claims": claimed(1_000_000_000),
        "claims_little": claimed(1000),
        "larger_than_storage": without_numbers((1000, 1000), (1000, 1)),
        "repeated": without_numbers((100_000, 100_000), (0, 0)),
        "before_storage": without_numbers((2,), (-1,)),
        "nothing": torch_saved({}),
        "list": torch_saved([torch.ones(2)]),
        "numbers": torch_saved({"model": {"epoch": 3}, "state_dict": None}),
        "sparse": torch_saved({"model": {"fc.weight": torch.eye(3).to_sparse()}}),
        "complex": torch_saved(
            {"model": {"fc.weight": torch.ones(3, dtype=torch.complex64)}}
        ),
        "names": torch_saved({"model": {3: torch.ones(3)}}),
        "names_of_lines": torch_saved(
            {
                "model": {
                    "fc\nline.weight": torch.ones(3),
                    "fc\x1b[2J.weight": torch.ones(3),
                }
            }
        ),
        "long_name": torch_saved({"model": {"a" * 100_000: torch.ones(3)}}),
        "empty_weight": torch_saved({"model": {"fc.weight": torch.ones(0, 3)}}),
        "script": zipped(
            {**members_of(torch_saved(weights)), "archive/constants.pkl": b"."}
        ),
        "foreign": torch_saved({"model": {"encoder.weight": torch.ones(3, 3)}}),
        "hollow": torch_saved(
            {
                "model": {
                    "conv0.0.weight": torch.tensor(1.0),
                    "layer1.0.conv1.weight": torch.ones(1),
                }
            }
        ),
        "vgg_of_no_layers": torch_saved(
            {"feature.0.weight": torch.ones(3), "classifier.0.weight": torch.ones(3, 3)}
        ),
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
    with pytest.raises(TypeError, match="`path` must be a string or a path"):
        from_checkpoint(3)


@pytest.mark.parametrize("file", [GOOD, LEGACY], ids=["zip", "legacy"])
def test_a_file_that_ends_early_is_refused_in_a_line_wherever_it_ends(file, tmp_path):
    data = file.read_bytes()
    for part in range(12):
        path = tmp_path / f"{part}.pth"
        path.write_bytes(data[: len(data) * part // 12])
        with pytest.raises(ValueError, match=re.escape(repr(str(path)))) as error:
            from_checkpoint(path)
        assert "\n" not in str(error.value)


def test_names_and_settings_that_would_take_much_memory_are_refused(tmp_path):
    many = pickle.dumps("a" * (5 * 2**20), 2)
    legacy = (
        b"".join(
            pickle.dumps(part, 2)
            for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        )
        + many
    )
    for name, data in {
        "zip": replaced(GOOD.read_bytes(), data_pkl=many),
        "legacy": legacy,
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="names and settings take more than"):
            from_checkpoint(tmp_path / name)


def test_a_small_file_for_a_network_larger_than_memory_is_refused_before_it_is_built(
    tmp_path,
):
    weights = {
        f"layer{stage}.{block}.conv1.0.weight": torch.ones(1, 1, 1, 1)
        for stage in range(1, 5)
        for block in range(2)
    }
    weights |= {
        "conv1.weight": torch.ones(1, 1, 7, 7),
        "fc.weight": torch.ones(1_000_000, 1),
    }
    weights["layer4.0.conv1.0.weight"] = torch.ones(1_000_000, 1, 1, 1)
    path = tmp_path / "large.pth"
    torch.save(weights, path)
    with pytest.raises(ValueError, match=r"it lacks .*bias of stem_bn"):
        from_checkpoint(path)


def test_names_of_many_blocks_are_refused_before_they_are_built(tmp_path):
    channels = {
        "patch_embed.proj_conv": 3,
        "patch_embed.rpe_conv": 8,
        "patch_embed.proj_conv3": 4,
        "block.0.mlp.fc1_conv": 8,
    }
    weights = {
        f"{name}.weight": torch.ones(8, number, 1, 1)
        for name, number in channels.items()
    }
    weights |= {
        f"block.{number}.attn.q_bn.bias": torch.ones(1) for number in range(2000)
    }
    path = tmp_path / "long.pth"
    torch.save({"model": {**weights, "head.weight": torch.ones(2, 8)}}, path)
    with pytest.raises(ValueError, match="as spikformer it has 2000 blocks"):
        from_checkpoint(path)


def test_reading_leaves_what_pytorch_allows_as_it_was(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    in_threads(
        lambda: from_checkpoint(GOOD, verbose=False, input_shape=(16, 16, 3)), [()] * 3
    )
    assert set(torch.serialization.get_safe_globals()) == before
    # What the user's program allows stays allowed.
    with torch.serialization.safe_globals([argparse.Namespace]):
        from_checkpoint(LEGACY, verbose=False)
        assert argparse.Namespace in torch.serialization.get_safe_globals()


def test_without_pytorch_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match="`from_checkpoint` needs the package torch"):
        from_checkpoint(GOOD)


def test_the_network_does_not_change_with_the_file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(GOOD.read_bytes())
    model = from_checkpoint(path, input_shape=(16, 16, 3), verbose=False)
    before = [np.array(weight) for weight in model.get_weights()]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert all(
        np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True)
    )

"""NIR files that are damaged, contradict themselves, or are made to harm: a clear
error, and no memory for what is missing."""

import shutil
import tracemalloc

import h5py
import keras
import nir
import numpy as np
import pytest
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF

pytestmark = pytest.mark.runs_once

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file of a network with the nodes convolution, lif, flatten and dense."""
    inputs = keras.Input((4, 4, 2))
    x = LIF(reset="hard", name="lif")(layers.Conv2D(3, 3, name="convolution")(inputs))
    path = tmp_path_factory.mktemp("nir") / "sound.nir"
    rsnn.export_nir(
        keras.Model(
            inputs, layers.Dense(5, name="dense")(layers.Flatten(name="flatten")(x))
        ),
        path,
    )
    return path


@pytest.fixture
def file(sound, tmp_path):
    """A copy of it, to damage."""
    return shutil.copy(sound, tmp_path / "network.nir")


def replaced(group, name, **kwargs):
    del group[name]
    return group.create_dataset(name, **kwargs)


def edges(root, *pairs):
    """Adds edges."""
    found = [tuple(pair) for pair in root["edges"].asstr()[()]]
    replaced(root, "edges", data=[*found, *pairs], dtype=h5py.string_dtype())


def node(root, name, like="lif", **values):
    root["nodes"].copy(like, name)
    for key, value in values.items():
        replaced(root["nodes"][name], key, data=value)


def change(path, key, value):
    """A change of one value of a node."""

    def damage(root):
        group = root["nodes"]
        *parents, name = f"{path}/{key}".split("/")
        for parent in parents:
            group = group.require_group(parent)
        if name in group:
            del group[name]
        group[name] = value

    return damage


def delete(path):
    def damage(root):
        del root[path]

    return damage


def put(path, value):
    """A link, or what one can refer to, in the place of something."""

    def damage(root):
        del root[path]
        root[path] = value

    return damage


def virtual(root):
    layout = h5py.VirtualLayout((5, 12), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "weight", (5, 12))
    del root["nodes/dense/weight"]
    root["nodes/dense"].create_virtual_dataset("weight", layout)


def external(root):
    del root["nodes/dense/bias"]
    root["nodes/dense"].create_dataset(
        "bias", (5,), "float32", external=[("/etc/passwd", 0, 20)]
    )


def loop(root):
    root["nodes/again"] = root["nodes"]


def inner_loop(root):
    """A graph that is a node of itself."""
    root["nodes/again"] = root


def deep(root):
    graph = root["nodes"].create_group("deep")
    for _ in range(100):
        graph["type"] = "NIRGraph"
        graph.create_dataset(
            "edges", data=[("deep", "deep")], dtype=h5py.string_dtype()
        )
        graph = graph.create_group("nodes").create_group("deep")


DAMAGED = {
    "no node": (delete("nodes"), "'nodes' is missing"),
    "no edges": (delete("edges"), "'edges'.* is missing"),
    "no weights": (delete("nodes/dense/weight"), "'weight' of 'dense' is missing"),
    "no type": (delete("nodes/lif/type"), "'type' of 'lif' is missing"),
    "an array as a group": (put("nodes", np.zeros(3)), "'nodes' is not a group"),
    "a group as an array": (
        lambda root: (
            delete("nodes/dense/weight")(root),
            root.create_group("nodes/dense/weight"),
        ),
        "is not an array",
    ),
    "another type": (change("lif", "type", "Delay"), "node 'lif' is of type Delay"),
    "a type that is a number": (
        change("lif", "type", 3.0),
        "type of 'lif' is not a text",
    ),
    "a single node": (put("type", "LIF"), "single node instead of a graph"),
    "soft link": (
        put("nodes/dense/weight", h5py.SoftLink("/node/nodes/convolution/weight")),
        "link to another place",
    ),
    "external link": (
        put("nodes/dense", h5py.ExternalLink("/etc/passwd", "/")),
        "link to another place",
    ),
    "virtual": (virtual, "stored in another file"),
    "external": (external, "stored in another file"),
    "loop of groups": (
        loop,
        "'again' is in the file in two places|'type' of 'again' is missing",
    ),
    "graph in itself": (inner_loop, "'again' is in the file in two places"),
    "deep": (deep, "nested more than 32 deep"),
    "NaN": (
        change("dense", "weight", np.full((5, 12), np.nan)),
        "weight of node 'dense' has values that are NaN",
    ),
    "infinite": (
        change("lif", "tau", np.full((3, 2, 2), np.inf)),
        "tau of node 'lif' has values that are NaN or infinite",
    ),
    "too large": (
        change("dense", "weight", np.full((5, 12), 1e300)),
        "node 'dense' .*too large for float32",
    ),
    "complex": (
        change("dense", "bias", np.zeros(5, "complex64")),
        "bias of node 'dense' has the dtype complex64",
    ),
    "texts": (
        change("dense", "bias", ["a"] * 5),
        "bias of node 'dense' has the dtype object",
    ),
    "opaque": (
        change("dense", "bias", np.void(b"pickle")),
        "bias of node 'dense' has the dtype |V6",
    ),
    "shape of weights": (
        change("dense", "weight", np.zeros((5, 11))),
        "'dense' of type Affine: its weights have the shape",
    ),
    "axes of weights": (
        change("dense", "weight", np.zeros((2, 5, 12))),
        "'dense' of type Affine: its weights have the shape",
    ),
    "shape of bias": (
        change("dense", "bias", np.zeros(4)),
        "'dense' of type Affine: its bias has the shape",
    ),
    "channels": (
        change("convolution", "weight", np.zeros((3, 1, 3, 3))),
        "'convolution' of type Conv2d: its weights",
    ),
    "groups": (
        change("convolution", "groups", 0),
        "'convolution' of type Conv2d: its weights .*in 0 groups",
    ),
    "strides": (change("convolution", "stride", [0, 1]), "no convolution with strides"),
    "half strides": (change("convolution", "stride", 1.5), "must be whole numbers"),
    "many strides": (
        change("convolution", "stride", [1, 1, 1]),
        "its stride is .*must be 2 numbers",
    ),
    "padding": (change("convolution", "padding", [-1, 0]), "its padding is"),
    "padding of a text": (
        change("convolution", "padding", "full"),
        "its padding is 'full'",
    ),
    "much padding": (
        change("convolution", "padding", [2**30, 2**30]),
        "its output would have the shape",
    ),
    "large kernel": (
        change("convolution", "weight", np.zeros((3, 2, 5, 5))),
        "its output would have the shape",
    ),
    "neurons": (
        change("lif", "tau", np.full((3, 3, 2), 1e-3)),
        "'lif' of type LIF: its tau has the shape",
    ),
    "fast": (
        change("lif", "tau", np.full((3, 2, 2), 1e-5)),
        "its time constants are from 1e-05 .*Pass the time step",
    ),
    "negative time": (
        change("lif", "tau", np.full((3, 2, 2), -1e-3)),
        "its time constants are from -0.001",
    ),
    "thresholds": (
        change("lif", "v_threshold", np.arange(-1.0, 11.0).reshape(3, 2, 2)),
        "at rest above its threshold, by 0.9",
    ),
    "low threshold": (
        change("lif", "v_threshold", np.full((3, 2, 2), -1.0)),
        "at rest above its threshold",
    ),
    "reset": (change("lif", "metadata/reset", "never"), "reset='never'"),
    "time step": (
        change("lif", "metadata/dt", -1e-4),
        "its metadata has dt=-0.0001, which must be > 0",
    ),
    "surrogate": (
        change("lif", "metadata/surrogate", "ATan(alpha=-1)"),
        "surrogate ATan.*must be > 0",
    ),
    "argument": (
        change("lif", "metadata/surrogate", "ATan(beta=1.0)"),
        "surrogate ATan",
    ),
    "soft": (
        lambda root: (
            change("lif", "metadata/reset", "soft")(root),
            change("lif", "v_reset", np.ones((3, 2, 2)))(root),
        ),
        "a soft reset subtracts the threshold",
    ),
    "some axes": (
        change("flatten", "start_dim", 1),
        "'flatten' of type Flatten: it flattens the axes from 1",
    ),
    "input": (
        change("input", "shape", [2, -4, 4]),
        "'input' of type Input: its output would have the shape",
    ),
    "large input": (
        change("input", "shape", [2**30, 2**30, 2**30]),
        "'input' of type Input: its output would have the shape",
    ),
    "output": (
        change("output", "shape", [6]),
        "'output' of type Output: it declares the shape",
    ),
    "long list": (
        change("input", "shape", np.ones(100, "int64")),
        "shape of node 'input' has the shape",
    ),
    "long text": (change("lif", "type", "L" * 5000), "a text of 5000 bytes"),
    "no text": (change("lif", "type", b"\xff\xfe"), "can't decode|damaged"),
    "edge to nothing": (
        lambda root: edges(root, ("lif", "nothing")),
        "names 'nothing', which is not a node",
    ),
    "edge twice": (lambda root: edges(root, ("lif", "flatten")), "is there twice"),
    "a loop": (
        lambda root: edges(root, ("lif", "convolution")),
        "form a loop, .*recurrent connections only",
    ),
    "to itself": (
        lambda root: edges(root, ("lif", "lif")),
        "form a loop, 'lif' -> 'lif'",
    ),
    "into the input": (
        lambda root: edges(root, ("lif", "input")),
        "is also the output of node 'lif'",
    ),
    "from the output": (
        lambda root: edges(root, ("output", "lif")),
        "is also the input of another node",
    ),
    "no path": (lambda root: node(root, "alone"), "node 'alone' is not connected"),
    "dead end": (
        lambda root: (node(root, "end"), edges(root, ("convolution", "end"))),
        "node 'end' is not connected",
    ),
    "two inputs": (lambda root: node(root, "second", "input"), "2 nodes of type Input"),
    "sum of shapes": (
        lambda root: edges(root, ("convolution", "dense")),
        "'dense' of type Affine: its inputs have the shapes",
    ),
    "edges of numbers": (
        put("edges", np.zeros((3, 2))),
        "edges must be pairs of names",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_wrong_with_a_file_is_named(damage, file):
    function, message = DAMAGED[damage]
    with h5py.File(file, "r+") as opened:
        function(opened["node"])
    with pytest.raises(ValueError, match=message):
        rsnn.import_nir(file, 4)


def test_the_sound_file_is_read(sound):
    assert len(rsnn.import_nir(sound, 4).network.layers) == 5


def test_a_truncated_file_is_an_error(file):
    content = file.read_bytes()
    for length in range(0, len(content), len(content) // 16):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match="`path` must be a NIR file"):
            rsnn.import_nir(file, 4)


def test_a_heap_that_hdf5_would_read_forever_is_an_error(file):
    content = bytearray(file.read_bytes())
    heap = content.index(b"GCOL")
    assert int.from_bytes(content[heap + 16 : heap + 18], "little") == 1
    # Its first object becomes free space of no size.
    content[heap + 16 : heap + 32] = bytes(16)
    file.write_bytes(content)
    with pytest.raises(ValueError, match="an object of a heap has no size"):
        rsnn.import_nir(file, 4)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04\x95", b"\x89HDF\r\n\x1a\n" + bytes(100), bytes(range(256)) * 8],
)
def test_a_file_of_something_else_is_an_error(content, file):
    file.write_bytes(content)
    with pytest.raises(ValueError, match="`path` must be a NIR file"):
        rsnn.import_nir(file, 4)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.nir"):
        rsnn.import_nir(tmp_path / "nothing.nir", 4)


def peak_of(function):
    """The most memory that was taken meanwhile, in bytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def nothing_stored(root):
    replaced(
        root["nodes/dense"],
        "weight",
        shape=(2**20, 2**20),
        dtype="float32",
        chunks=(1024, 1024),
        compression="gzip",
    )


def nothing_stored_in_one_piece(root):
    replaced(root["nodes/dense"], "weight", shape=(2**20, 2**20), dtype="float32")


def zeros(root):
    replaced(
        root["nodes/dense"],
        "weight",
        data=np.zeros((2**13, 2**11), "float32"),
        compression="gzip",
    )


def packed_twice(root):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1024, 1024))
    creation.set_deflate(9)
    creation.set_deflate(9)
    group = root["nodes/lif"]
    del group["tau"]
    dataset = h5py.h5d.create(
        group.id,
        b"tau",
        h5py.h5t.IEEE_F32LE,
        h5py.h5s.create_simple((2**12, 2**12)),
        creation,
    )
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros((2**12, 2**12), "float32"))


def large_piece(root):
    replaced(
        root["nodes/lif"],
        "tau",
        data=np.zeros((2**12, 2**12), "float32"),
        chunks=(2**12, 2**12),
        compression="gzip",
    )


def unknown_filter(root):
    """HDF5 has a filter of this number, but NIR files do not."""
    replaced(root["nodes/lif"], "tau", data=np.full((3, 2, 2), 1000), scaleoffset=0)


def many_names(root):
    """A text that is stored once, and many references to it."""
    name = "n" * 2**20
    root["nodes"].copy("lif", name[:1000])
    replaced(
        root,
        "edges",
        data=np.array([[name, name]] * 50, object),
        dtype=h5py.string_dtype(),
    )


def graphs_of_graphs(root):
    """Each graph contains the next one twice: together 2⁴⁰."""
    group = root["nodes"].create_group("g0")
    for _ in range(40):
        group["type"] = "NIRGraph"
        group.create_dataset("edges", data=[("a", "b")], dtype=h5py.string_dtype())
        nodes = group.create_group("nodes")
        inner = nodes.create_group("a")
        nodes["b"] = inner
        group = inner
    group["type"] = "NIRGraph"


BOMBS = {
    nothing_stored: "more than the file contains",
    nothing_stored_in_one_piece: "more than the file contains",
    zeros: "more than the size of the file explains",
    packed_twice: "compress once",
    large_piece: "larger than the file explains",
    unknown_filter: "stored with the filters",
    many_names: "more than|a text of|damaged",
    graphs_of_graphs: "in two places|nested more than",
}


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_file_that_declares_more_than_it_contains_takes_no_memory(bomb, file):
    with h5py.File(file, "r+") as opened:
        bomb(opened["node"])

    def read():
        with pytest.raises(ValueError, match=BOMBS[bomb]):
            rsnn.import_nir(file, 4)

    assert peak_of(read) < 8 * MEBIBYTE + file.stat().st_size


def test_a_large_shape_takes_no_memory(tmp_path):
    """Of the features of a flattened image, the order is only found where weights of as
    many features are."""
    shape, file = (2**10, 2**10, 2**10), tmp_path / "network.nir"
    parts = {
        "input": nir.Input(np.array(shape)),
        "neurons": nir.IF(*(np.full((1,), value) for value in (1e4, 1.0, 0.0))),
    }
    parts |= {
        "flatten": nir.Flatten(np.array(shape), 0, -1),
        "output": nir.Output(np.array([2**30])),
    }
    edges = [("input", "neurons"), ("neurons", "flatten"), ("flatten", "output")]
    nir.write(file, nir.NIRGraph(parts, edges, type_check=False))

    def read():
        with pytest.raises(
            ValueError, match="`data_format` must be 'channels_first' for this file"
        ):
            rsnn.import_nir(file, 4, reset="hard")

    assert peak_of(read) < 8 * MEBIBYTE


def test_neurons_that_are_all_alike_take_little_memory(tmp_path):
    """Their parameters are compressed a thousand times; a network on large images is no
    bomb."""
    shape = (8, 512, 512)
    file = tmp_path / "network.nir"
    values = {
        name: np.full(shape, value)
        for name, value in (("r", 1e4), ("v_threshold", 1.0), ("v_reset", 0.0))
    }
    parts = {
        "input": nir.Input(np.array(shape)),
        "neurons": nir.IF(**values),
        "output": nir.Output(np.array(shape)),
    }
    nir.write(
        file,
        nir.NIRGraph(parts, [("input", "neurons"), ("neurons", "output")]),
        compression_opts=1,
    )
    assert file.stat().st_size < MEBIBYTE
    assert peak_of(lambda: rsnn.import_nir(file, 4, reset="hard")) < 16 * MEBIBYTE

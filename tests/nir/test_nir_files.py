"""NIR files that are damaged, contradict themselves, or are made to harm: a clear
error, and no memory for what is missing."""

import shutil
import tracemalloc

import h5py
import nir
import numpy as np
import pytest
from helpers import chain
from keras import layers

from keras_ratesnn import deploy
from keras_ratesnn.layers import LIF, LeakyReadout

pytestmark = pytest.mark.runs_once

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file of a network with the nodes convolution, lif, flatten, dense, readout."""
    network = chain(
        layers.Conv2D(3, 3, name="convolution"),
        LIF(reset="hard", name="lif"),
        layers.Flatten(name="flatten"),
        layers.Dense(5, name="dense"),
        LeakyReadout(0.5, name="readout"),
        shape=(4, 4, 2),
    )
    path = tmp_path_factory.mktemp("nir") / "sound.nir"
    deploy.export_nir(network, path)
    return path


@pytest.fixture
def file(sound, tmp_path):
    """A copy of it, to damage."""
    return shutil.copy(sound, tmp_path / "network.nir")


def replaced(root, path, **kwargs):
    del root[path]
    return root.create_dataset(path, **kwargs)


def neurons(value):
    return np.full((3, 2, 2), value)


def virtual(root):
    layout = h5py.VirtualLayout((5, 12), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "weight", (5, 12))
    del root["nodes/dense/weight"]
    root["nodes/dense"].create_virtual_dataset("weight", layout)


def inner_loop(root):
    """A graph that is a node of itself."""
    root["nodes/again"] = root


def deep(root, depth=100):
    graph = root["nodes"].create_group("deep")
    for _ in range(depth):
        graph["type"] = "NIRGraph"
        graph["edges"] = [["deep", "deep"]]
        graph = graph.create_group("nodes/deep")


EDGES = [
    ["input", "convolution"],
    ["convolution", "lif"],
    ["lif", "flatten"],
    ["flatten", "dense"],
    ["dense", "readout"],
    ["readout", "output"],
]


def pool(node, size):
    keys = "kernel_size", "stride", "padding"
    sizes = {f"nodes/{node}/{key}": size for key in keys}
    return {f"nodes/{node}/type": "AvgPool2d", **sizes}


def back(name):
    """A node by which the outputs of neurons come back."""
    return {f"nodes/{name}/type": "Linear", f"nodes/{name}/weight": np.eye(12)}


ALONE = {"nodes/alone/type": "Scale", "nodes/alone/scale": 1.0}
WEIGHT, BIAS = "nodes/dense/weight", "nodes/dense/bias"
KERNEL, STRIDE = "nodes/convolution/weight", "nodes/convolution/stride"
PADDING, TYPE = "nodes/convolution/padding", "nodes/lif/type"
TAU, METADATA = "nodes/lif/tau", "nodes/lif/metadata"
SURROGATE, INPUT = f"{METADATA}/surrogate", "nodes/input/shape"
RESET, THRESHOLD = "nodes/lif/v_reset", "nodes/lif/v_threshold"
MANY = np.arange(-1.0, 11.0).reshape(3, 2, 2)
CHANNELS = np.repeat([1e-4, 2e-4, 3e-4], 4).reshape(3, 2, 2)
BACK = ["lif", "back"], ["back", "lif"]
TWICE = ["lif", "twice"], ["twice", "lif"]
LINK = h5py.SoftLink("/node/nodes/convolution/weight")

# What takes the place of something, `None` if nothing, and a part of the error.
DAMAGED = [
    ({WEIGHT: None}, "'weight' of 'dense' is missing"),
    ({TYPE: "Delay"}, "node 'lif' is of type Delay"),
    ({TYPE: "L" * 5000}, "a text of 5000 bytes"),
    ({TYPE: b"\xff\xfe"}, "can't decode|damaged"),
    ({WEIGHT: LINK}, "link to another place"),
    ({"nodes/dense": h5py.ExternalLink("/etc/passwd", "/")}, "link to another place"),
    (virtual, "stored in another file"),
    (inner_loop, "'again' is in the file in two places"),
    (deep, "nested more than 32 deep"),
    ({WEIGHT: np.full((5, 12), np.nan)}, "weight of node 'dense' has values .* NaN"),
    ({WEIGHT: np.full((5, 12), 1e300)}, "node 'dense' .*too large for float32"),
    ({BIAS: np.void(b"pickle")}, "bias of node 'dense' has the dtype |V6"),
    ({WEIGHT: np.zeros((5, 11))}, "'dense' of type Affine: its weights have the shape"),
    ({"nodes/convolution/groups": 0}, "its weights .*in 0 groups"),
    ({STRIDE: [0, 1]}, "no convolution with strides"),
    ({PADDING: "full"}, "its padding is 'full'"),
    ({PADDING: [2**30, 2**30]}, "its output would have the shape"),
    ({TAU: np.full((3, 3, 2), 1e-3)}, "'lif' of type LIF: its tau has the shape"),
    ({TAU: neurons(1e-5)}, "its time constants are from 1e-05 .*Pass the time step"),
    ({THRESHOLD: MANY}, "at rest above its threshold, by 0.9"),
    ({THRESHOLD: neurons(1e-300)}, "its v_threshold is .* In float32 .* rounded to 0"),
    ({SURROGATE: "ATan(alpha=-1)"}, "surrogate ATan.*must be > 0"),
    (
        {f"{METADATA}/reset": "soft", RESET: neurons(1.0)},
        "a soft reset subtracts the threshold",
    ),
    ({"nodes/flatten/start_dim": 1}, "'flatten' of type Flatten: it flattens the axes"),
    ({INPUT: [2, -4, 4]}, "'input' of type Input: its output would have the shape"),
    ({"nodes/output/shape": [6]}, "'output' of type Output: it declares the shape"),
    ({"edges": [*EDGES, ["lif", "nothing"]]}, "names 'nothing', which is not a node"),
    ({"edges": [*EDGES, ["lif", "convolution"]]}, "a loop, .*recurrent connections"),
    ({"edges": [*EDGES, ["lif", "input"]]}, "is also the output of node 'lif'"),
    ({"edges": [*EDGES, ["convolution", "dense"]]}, "its inputs have the shapes"),
    (ALONE | {"edges": [*EDGES, ["lif", "alone"]]}, "node 'alone' is not connected"),
    (
        {"nodes/second/type": "Input", "nodes/second/shape": [4]},
        "2 nodes of type Input",
    ),
    ({"edges": np.zeros((3, 2))}, "edges must be pairs of names"),
    ({"edges": [*EDGES, EDGES[0]]}, r"edge \('input', 'convolution'\) is there twice"),
    ({"edges": [*EDGES, ["output", "flatten"]]}, "'output', is also the input of"),
    (back("back") | {"edges": [*EDGES, *BACK]}, "Neurons must be on one axis"),
    (
        back("back") | back("twice") | {"edges": [*EDGES, *BACK, *TWICE]},
        "outputs of node 'lif' come back to it through two nodes",
    ),
    ({"type": "LIF"}, "a single node instead of a graph"),
    ({"nodes/dense": 1.0}, "'dense' is not a group"),
    ({WEIGHT: None, f"{WEIGHT}/0": 1.0}, "weight of 'dense' is not an array"),
    ({TYPE: 1}, "type of 'lif' is not a text"),
    ({TYPE: "Scale", "nodes/lif/scale": 1.0}, "a network without any"),
    (
        {"nodes/flatten/type": "Scale", "nodes/flatten/scale": MANY},
        "the same for all features",
    ),
    ({STRIDE: np.ones((2, 2))}, r"stride of node 'convolution' has the shape \(2, 2\)"),
    ({STRIDE: [1.5, 1]}, "which must be whole numbers"),
    ({STRIDE: [1, 1, 1]}, r"its stride is \(1, 1, 1\), which must be 2 numbers"),
    ({STRIDE: [2, 2], PADDING: "same"}, r"padding 'same' with strides \(2, 2\)"),
    ({PADDING: [-1, 0]}, r"its padding is \(-1, 0\)"),
    (
        {KERNEL: np.ones((3, 2, 3))},
        r"weights have the shape \(3, 2, 3\), but its input",
    ),
    ({BIAS: np.ones(4)}, r"its bias has the shape \(4,\), but it has 5 outputs"),
    (pool("dense", 2), r"its input has the shape \(12,\), which is no image"),
    (pool("flatten", 0), r"it has a kernel of size \(0, 0\)"),
    ({f"{METADATA}/dt": 0.0}, "its metadata has dt=0.0"),
    ({f"{METADATA}/reset": "none"}, "neither 'soft' nor 'hard'"),
    ({f"{METADATA}/layer": "ParametricLIF", TAU: CHANNELS}, "has no decay of 0"),
    ({RESET: neurons(2.0)}, "its v_reset is above its threshold, by 1.0"),
    ({"nodes/lif/r": neurons(-1.0)}, "its input has the factor -"),
    ({"nodes/readout/r": np.arange(1.0, 6.0)}, "its membranes differ in r"),
    ({"nodes/readout/metadata/value": "least"}, "value='least', which is none of"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_what_is_wrong_with_a_file_is_named(damage, message, file):
    with h5py.File(file, "r+") as opened:
        change(opened["node"], damage)
    with pytest.raises(ValueError, match=message):
        deploy.import_nir(file, 4)


def change(root, damage):
    if callable(damage):
        damage(root)
        return
    for path, value in damage.items():
        if path in root:
            del root[path]
        if value is not None:
            root[path] = value


def test_a_file_that_is_truncated_or_of_something_else_is_an_error(file):
    content = file.read_bytes()
    wrong = [b"\x80\x04\x95", b"\x89HDF\r\n\x1a\n" + bytes(100)]
    for length in range(0, len(content), len(content) // 16):
        wrong.append(content[:length])
    for part in wrong:
        file.write_bytes(part)
        with pytest.raises(ValueError, match="`path` must be a NIR file"):
            deploy.import_nir(file, 4)


def test_a_heap_that_hdf5_would_read_forever_is_an_error(file):
    content = bytearray(file.read_bytes())
    heap = content.index(b"GCOL")
    assert int.from_bytes(content[heap + 16 : heap + 18], "little") == 1
    # Its first object becomes free space of no size.
    content[heap + 16 : heap + 32] = bytes(16)
    file.write_bytes(content)
    with pytest.raises(ValueError, match="an object of a heap has no size"):
        deploy.import_nir(file, 4)


def peak_of(function):
    """The most memory that was taken meanwhile, in bytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LARGE = np.zeros((2**12, 2**12), "float32")
ZIPPED = {"compression": "gzip"}


def nothing_stored(root):
    shape, chunks = (2**20, 2**20), (1024, 1024)
    replaced(root, WEIGHT, shape=shape, dtype="float32", chunks=chunks, **ZIPPED)


def zeros(root):
    replaced(root, WEIGHT, data=LARGE, **ZIPPED)


def large_piece(root):
    replaced(root, TAU, data=LARGE, chunks=LARGE.shape, **ZIPPED)


def unknown_filter(root):
    """HDF5 has a filter of this number, but NIR files do not."""
    replaced(root, TAU, data=np.full((3, 2, 2), 1000), scaleoffset=0)


def packed_twice(root):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1024, 1024))
    creation.set_deflate(9)
    creation.set_deflate(9)
    del root[TAU]
    space, kind = h5py.h5s.create_simple(LARGE.shape), h5py.h5t.IEEE_F32LE
    dataset = h5py.h5d.create(root["nodes/lif"].id, b"tau", kind, space, creation)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, LARGE)


def many_names(root):
    """A text that is stored once, and many references to it."""
    name = "n" * 2**20
    root["nodes"].copy("lif", name[:1000])
    names = np.array([[name, name]] * 50, object)
    replaced(root, "edges", data=names, dtype=h5py.string_dtype())


def graphs_of_graphs(root):
    """Each graph contains the next one twice: together 2⁴⁰."""
    group = root["nodes"].create_group("g0")
    for _ in range(40):
        group["type"] = "NIRGraph"
        group["edges"] = [["a", "b"]]
        inner = group.create_group("nodes/a")
        group["nodes/b"] = inner
        group = inner
    group["type"] = "NIRGraph"


BOMBS = {
    nothing_stored: "more than the file contains",
    zeros: "more than the size of the file explains",
    large_piece: "larger than the file explains",
    unknown_filter: "stored with the filters",
    packed_twice: "compress once",
    many_names: "more than|a text of|damaged",
    graphs_of_graphs: "in two places|nested more than",
}


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_file_that_declares_more_than_it_contains_takes_no_memory(bomb, file):
    with h5py.File(file, "r+") as opened:
        bomb(opened["node"])

    def read():
        with pytest.raises(ValueError, match=BOMBS[bomb]):
            deploy.import_nir(file, 4)

    assert peak_of(read) < 8 * MEBIBYTE + file.stat().st_size


def test_a_large_shape_takes_no_memory(tmp_path):
    """Of the features of a flattened image, the order is only found where weights of as
    many features are."""
    shape, file = np.full(3, 2**10), tmp_path / "network.nir"
    parts = [
        nir.Input(shape),
        nir.IF(*np.array([[1e4], [1.0], [0.0]])),
        nir.Flatten(shape, 0, -1),
        nir.Output(np.array([2**30])),
    ]
    nir.write(file, nir.NIRGraph.from_list(*parts, type_check=False))

    def read():
        with pytest.raises(ValueError, match="must be 'channels_first' for this file"):
            deploy.import_nir(file, 4, reset="hard")

    assert peak_of(read) < 8 * MEBIBYTE


def test_neurons_that_are_all_alike_take_little_memory(tmp_path):
    """Their parameters are compressed a thousand times; a network on large images is no
    bomb."""
    shape, file = (8, 512, 512), tmp_path / "network.nir"
    neurons = nir.IF(*(np.full(shape, value) for value in (1e4, 1.0, 0.0)))
    parts = [nir.Input(np.array(shape)), neurons, nir.Output(np.array(shape))]
    nir.write(file, nir.NIRGraph.from_list(*parts), compression_opts=1)
    assert file.stat().st_size < MEBIBYTE
    assert peak_of(lambda: deploy.import_nir(file, 4, reset="hard")) < 16 * MEBIBYTE

"""The settings of a benchmark."""

import dataclasses
import inspect

import keras

from keras_ratesnn import models
from recipes import checks, device, methods, packages

NETWORKS = tuple(name for name in models.__all__ if name[0].isupper())


@dataclasses.dataclass(frozen=True)
class Peer:
    """The BPTT of another library, which is measured on the same network for
    comparison.

    Attributes:
        package: Name of the package.
        networks: Names of the networks that `peers.py` has of it.
        memopt: Integer, the level of SpikingJelly's memory optimisation; 0 is without.
            See `peers.optimize_memory`.
    """

    package: str
    networks: tuple = ("ResNet18",)
    memopt: int = 0


PEERS = {
    "spikingjelly": Peer("spikingjelly", ("ResNet18", "MaxFormer")),
    "spikingjelly-memopt": Peer("spikingjelly", memopt=1),
    **{
        f"spikingjelly-memopt-{level}": Peer("spikingjelly", memopt=level)
        for level in (2, 3, 4)
    },
    "snntorch": Peer("snntorch"),
}

PEERS_SIZE_BELOW = 96
"""The networks of the peers are those for small images."""

PEERS_PRECISIONS = ("float32", "mixed_bfloat16")

ORDINARY = "ordinary"
"""The training step of the same network without time."""

FORWARD = "forward"
"""A forward pass of the same network without time."""

FLOOR = "floor"
"""T - 1 forward passes and one training step of the same network without time, i.e. T
forward passes and one backward pass."""

CLASSES = 10
CHANNELS = 3

ORDER = 4
"""Of `SlidingPSN`."""

TRANSFORMER_DIMS = 384
"""The channels of the transformers at width 1."""


COUNTS = {
    "batch": "number of images in a step",
    "size": "height and width of the images",
    "rounds": "number of times each method is timed",
}
CHOICES = {
    "precision": ("float32", "mixed_bfloat16", "mixed_float16", "float64"),
    "jit_compile": (True, False, "auto"),
    "data_format": ("channels_last", "channels_first"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The network, the batch and the measurement.

    Attributes:
        network: Name of a function of `keras_ratesnn.models`.
        width: Float > 0 that multiplies the number of channels of every layer.
        batch: Integer >= 1, the number of images in a step.
        size: Integer >= 1, height and width of the images.
        timesteps: Sequence of integers >= 1, the values of T.
        methods: Sequence of names of `recipes.methods` or `PEERS`.
        rounds: Integer >= 1, how often each method is timed.
        precision: Name of a Keras dtype policy.
        jit_compile: True, False or "auto", as in `keras.Model.compile`. The peers are
            never compiled.
        data_format: "channels_last" or "channels_first", the image data format.
        threads: Integer >= 1, the threads of a CPU, on PyTorch; `None` for its default.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, a name is unknown, or a method or the
            backend does not support the settings.
        ImportError: If the package of a peer is not installed.
    """

    network: str = "ResNet18"
    width: float = 0.25
    batch: int = 32
    size: int = 32
    timesteps: tuple = (1, 2, 4, 8, 16)
    methods: tuple = ("rate-multi", "rate-single", "bptt-multi")
    rounds: int = 20
    precision: str = "float32"
    jit_compile: bool | str = "auto"
    data_format: str = "channels_last"
    threads: int | None = None

    def __post_init__(self):
        checks.real(
            "width",
            self.width,
            above=0,
            advice="It multiplies the number of channels of every layer.",
        )
        for name, what in COUNTS.items():
            checks.positive_integer(
                name, getattr(self, name), advice=f"It is the {what}."
            )
        for name, choices in {"network": NETWORKS, **CHOICES}.items():
            checks.one_of(name, getattr(self, name), choices)
        if self.threads is not None:
            checks.positive_integer(
                "threads",
                self.threads,
                advice="It is the number of threads of the CPU.",
            )
            device.check_backend(
                "torch",
                "`threads` can only be set on PyTorch; elsewhere limit the cores with "
                "`taskset`.",
            )
        for timesteps in self.timesteps:
            checks.positive_integer(
                "timesteps", timesteps, advice="It is a number of time steps."
            )
        for method in self.methods:
            if method in PEERS:
                _check_peer(method, self)
            else:
                _check_method(method, self)
        if self.data_format == "channels_first":
            _check_channels_first(self.jit_compile)

    @property
    def subject(self):
        """What is measured, for people."""
        return (
            f"{self.network} of width {self.width}, batch {self.batch}, "
            f"{self.size}x{self.size}, {self.precision}"
        )

    @property
    def packages(self):
        """The names of the packages of the peers among the methods."""
        return tuple(
            dict.fromkeys(
                PEERS[method].package for method in self.methods if method in PEERS
            )
        )


def _check_method(method, settings):
    chosen = methods.settings_of(method, others=PEERS)
    normalization = chosen.get("normalization", "batch")
    if (
        normalization != "batch"
        and "normalization"
        not in inspect.signature(getattr(models, settings.network)).parameters
    ):
        raise ValueError(
            f"`methods` may name {method!r} for networks with "
            f"normalization={normalization!r} only. Received: "
            f"network={settings.network!r}. Choose another network, such as ResNet18, "
            f"or leave {method!r} out."
        )
    for timesteps in settings.timesteps:
        try:
            methods.gradient_method(chosen).check_timesteps(timesteps)
        except ValueError as error:
            raise ValueError(
                f"`methods` and `timesteps` must fit together. Received: {method!r} "
                f"and timesteps={timesteps}. {error}"
            ) from error


def _check_channels_first(jit_compile):
    if (
        keras.backend.backend() == "tensorflow"
        and jit_compile is not True
        and not device.gpu()
    ):
        raise ValueError(
            "`data_format` must be 'channels_last' on TensorFlow without a GPU, whose "
            "convolutions have no other there except in XLA. Received: "
            f"data_format='channels_first' with jit_compile={jit_compile!r}. Leave it "
            "out, or set jit_compile to true."
        )


def _check_peer(name, settings):
    peer, backend, methods_are = (
        PEERS[name],
        keras.backend.backend(),
        f"methods={list(settings.methods)!r}",
    )
    networks, sides = (
        " or ".join(map(repr, peer.networks)),
        f"{PEERS_SIZE_BELOW} x {PEERS_SIZE_BELOW}",
    )
    fits = (
        settings.network in peer.networks
        and settings.size < PEERS_SIZE_BELOW
        and settings.precision in PEERS_PRECISIONS
    )
    images = (
        f"for network={networks} with images smaller than {sides} in "
        f"{' or '.join(PEERS_PRECISIONS)}"
    )
    found = (
        f"network={settings.network!r}, size={settings.size}, "
        f"precision={settings.precision!r}"
    )
    first_level = (
        "Name 'spikingjelly-memopt', the first level: SpikingJelly measures "
        "what the others save"
    )
    for wrong, where, received, remedy in (
        (
            backend != "torch",
            "on PyTorch",
            f"{methods_are} with KERAS_BACKEND={backend!r}",
            "Set KERAS_BACKEND=torch",
        ),
        (not fits, images, found, "Change that"),
        (
            peer.memopt > 1 and not device.gpu(),
            "on a GPU",
            f"{methods_are} without a GPU",
            first_level,
        ),
    ):
        if wrong:
            raise ValueError(
                f"`methods` may name {name!r} {where} only. Received: {received}. "
                f"{remedy}, or leave it out."
            )
    packages.imported(peer.package, f"The method {name!r}", "bench")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        method: Name of `recipes.methods` or of a peer.
        settings: `Settings`, with the `jit_compile` of this variant.
        unrolled: The argument of `loops.unrolled`. Defaults to `None`.
    """

    method: str
    settings: Settings
    unrolled: bool | None = None


def variants(settings, jit_compile):
    """The methods of the settings with each value of `jit_compile`, a dictionary from
    names to `Variant`.

    Peers occur once, because they are never compiled.

    Args:
        settings: `Settings`.
        jit_compile: Sequence of values of `Settings.jit_compile`. With a single one, a
            name is that of the method.
    """
    found = {}
    for method in settings.methods:
        for value in jit_compile[:1] if method in PEERS else jit_compile:
            plain = len(jit_compile) == 1 or method in PEERS
            name = method if plain else f"{method}, jit_compile={value}"
            found[name] = Variant(
                method, dataclasses.replace(settings, jit_compile=value)
            )
    return found

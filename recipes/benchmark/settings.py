"""The settings of a benchmark, and the methods that it knows.

What takes seconds to import is imported where it is needed: `--help` is quick.
"""

import dataclasses
import inspect

from recipes import checks

FOR_IMAGES = ("ResNet18", "VGG11")
"""Networks for images that other libraries have as well."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another library, which trains the same network for comparison.

    Attributes:
        package: Name of the package.
        networks: Names of the networks that are measured in it.
        memopt: Integer, the level of SpikingJelly's memory optimisation; 0 is without.
            See `peers.optimize_memory`.
    """

    package: str
    networks: tuple = FOR_IMAGES
    memopt: int = 0


PEERS = {
    "spikingjelly": Peer(
        "spikingjelly", (*FOR_IMAGES, "MaxFormer", "LIF", "Recurrent", "SlidingPSN")
    ),
    "spikingjelly-memopt": Peer("spikingjelly", memopt=1),
    "spikingjelly-memopt-2": Peer("spikingjelly", memopt=2),
    "spikingjelly-memopt-3": Peer("spikingjelly", memopt=3),
    "spikingjelly-memopt-4": Peer("spikingjelly", memopt=4),
    "snntorch": Peer("snntorch", (*FOR_IMAGES, "LIF", "Recurrent")),
}
"""The BPTT of other libraries."""

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

SEQUENCES = ("LIF", "MaskedLIF", "Recurrent", "Delay", "SlidingPSN")
"""Networks of dense layers for sequences, by what follows a layer. They have no
floor."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64")


def packages_of_peers(methods):
    """The names of the packages of the peers among methods, a list."""
    return [PEERS[method].package for method in methods if method in PEERS]


def networks():
    """The names of all networks."""
    from keras_ratesnn import models

    builders = [name for name in models.__all__ if name[0].isupper()]
    return (*builders, *SEQUENCES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The network, the batch and the measurement: options of the command line, whose
    help explains them.

    Raises:
        ValueError: If a name is unknown, or a method or the backend does not support
            the settings.
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
    threads: int | None = None

    def __post_init__(self):
        checks.one_of("network", self.network, networks())
        checks.one_of("precision", self.precision, PRECISIONS)
        if self.threads is not None:
            from recipes import device

            device.check_backend(
                "torch",
                "`threads` can only be set on PyTorch; elsewhere limit the cores with "
                "`taskset`.",
            )
        for method in self.methods:
            if method in PEERS:
                _check_peer(method, self)
            else:
                _check_method(method, self)

    @property
    def subject(self):
        """The measurement in words, for people."""
        size = "" if self.network in SEQUENCES else f", {self.size}x{self.size}"
        return (
            f"{self.network} of width {self.width}, batch {self.batch}{size}, "
            f"{self.precision}"
        )


def _check_method(method, settings):
    from keras_ratesnn import models
    from recipes import methods

    chosen = methods.settings_of(method, further_names=PEERS)
    normalization = chosen.get("normalization", "batch")
    build = getattr(models, settings.network, None)
    choices = inspect.signature(build).parameters if build else ()
    if normalization != "batch" and "normalization" not in choices:
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


def _check_peer(name, settings):
    from recipes import device, packages

    peer = PEERS[name]
    device.check_backend("torch", f"`methods` may name {name!r} on PyTorch only.")
    fits = (
        settings.network in peer.networks
        and settings.size < PEERS_SIZE_BELOW
        and settings.precision in PEERS_PRECISIONS
    )
    if not fits:
        raise ValueError(
            f"`methods` may name {name!r} for network="
            f"{' or '.join(map(repr, peer.networks))} with images smaller than "
            f"{PEERS_SIZE_BELOW} x {PEERS_SIZE_BELOW} in "
            f"{' or '.join(PEERS_PRECISIONS)} only. Received: "
            f"network={settings.network!r}, size={settings.size}, "
            f"precision={settings.precision!r}. Change that, or leave it out."
        )
    if peer.memopt > 1 and not device.gpu():
        raise ValueError(
            f"`methods` may name {name!r} on a GPU only, and there is none. Name "
            "'spikingjelly-memopt', the first level: SpikingJelly measures what the "
            "others save."
        )
    packages.imported(peer.package, f"The method {name!r}", "bench")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        method: Name of `recipes.methods` or of a peer.
        settings: `Settings`, with the `jit_compile` of this variant.
        unrolled: Whether XLA unrolls the time loop of every neuron layer, or of none.
            Defaults to `None`, the choice of the library.
    """

    method: str
    settings: Settings
    unrolled: bool | None = None


def variants(settings, jit_compile, loops=False):
    """The methods of the settings with each value of `jit_compile`, a dictionary from
    names to `Variant`. What has no choice occurs once.

    Args:
        settings: `Settings`.
        jit_compile: Sequence of values of `Settings.jit_compile`. With a single one, a
            name is that of the method.
        loops: Boolean, whether methods in multi-step mode occur with unrolled time
            loops and with compiled ones. Defaults to `False`.
    """
    named = {}
    for method in settings.methods:
        is_ours = method not in PEERS
        for value in jit_compile if is_ours else jit_compile[:1]:
            chosen = dataclasses.replace(settings, jit_compile=value)
            name = method
            if is_ours and len(jit_compile) > 1:
                name = f"{method}, jit_compile={value}"
            if loops and is_ours and "-multi" in method:
                named[f"{name}, unrolled"] = Variant(method, chosen, unrolled=True)
                named[f"{name}, loop"] = Variant(method, chosen, unrolled=False)
            else:
                named[name] = Variant(method, chosen)
    return named

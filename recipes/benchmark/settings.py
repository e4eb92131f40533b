"""The settings of a benchmark, and the options of its command line.

What takes seconds to import is imported where it is needed: `--help` is quick.
"""

import dataclasses
import inspect

from recipes import checks


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
    networks: tuple = ("ResNet18",)
    memopt: int = 0


PEERS = {
    "spikingjelly": Peer(
        "spikingjelly", ("ResNet18", "MaxFormer", "LIF", "Recurrent", "SlidingPSN")
    ),
    "spikingjelly-memopt": Peer("spikingjelly", memopt=1),
    "spikingjelly-memopt-2": Peer("spikingjelly", memopt=2),
    "spikingjelly-memopt-3": Peer("spikingjelly", memopt=3),
    "spikingjelly-memopt-4": Peer("spikingjelly", memopt=4),
    "snntorch": Peer("snntorch", ("ResNet18", "LIF", "Recurrent")),
}
"""The BPTT of other libraries."""

PYTORCH = "pytorch"
"""A loop of plain PyTorch over the layers of the network without time."""

RECORDED = "recorded"
"""`keras_ratesnn.recorded` of the network without time."""

ELSEWHERE = {**PEERS, PYTORCH: Peer("torch", ("ResNet18", "MLP"))}
"""What runs without this library."""

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

COUNTS = {
    "batch": "number of samples in a step",
    "size": "height and width of the images",
    "rounds": "number of times each method is timed",
}
CHOICES = {
    "precision": ("float32", "mixed_bfloat16", "mixed_float16", "float64"),
    "jit_compile": (True, False, "auto"),
    "data_format": ("channels_last", "channels_first"),
}
JIT_COMPILE = {"auto": "auto", "true": True, "false": False}
"""The values of `Settings.jit_compile` on command lines."""


def networks():
    """The names of all networks."""
    from keras_ratesnn import models

    builders = [name for name in models.__all__ if name[0].isupper()]
    return (*builders, "MLP", *SEQUENCES)


def _option(default, what, **further):
    """A field with the help of its option, and further arguments of `add_argument`."""
    return dataclasses.field(default=default, metadata={"help": what, **further})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The network, the batch and the measurement: the options of the command line,
    whose help explains them.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, a name is unknown, or a method or the
            backend does not support the settings.
        ImportError: If the package of a peer is not installed.
    """

    network: str = _option(
        "ResNet18",
        "a network of keras_ratesnn.models, MLP, or, of sequences, "
        f"{', '.join(SEQUENCES)}",
        metavar="NAME",
    )
    width: float = _option(0.25, "multiplies all channels")
    batch: int = _option(32, "samples in the step")
    size: int = _option(32, "height and width of the images")
    timesteps: tuple = _option((1, 2, 4, 8, 16), "values of T", type=int, metavar="T")
    methods: tuple = _option(
        ("rate-multi", "rate-single", "bptt-multi"),
        "as in recipes.compare, recorded (an ordinary Keras model), or of "
        f"{', '.join(ELSEWHERE)}",
        type=str,
        metavar="NAME",
    )
    rounds: int = _option(20, "number of times each case is timed")
    precision: str = _option("float32", "a Keras dtype policy", metavar="POLICY")
    jit_compile: bool | str = _option(
        "auto",
        "auto, true or false, as in SpikingModel.compile; with several, each method "
        "is measured with each, and the floor with the first",
        type=lambda text: JIT_COMPILE.get(text, text),
        choices=tuple(JIT_COMPILE.values()),
        metavar="VALUE",
        nargs="+",
    )
    data_format: str = _option("channels_last", "channels_last or channels_first")
    threads: int | None = _option(
        None, "threads of the CPU, on PyTorch", type=int, metavar="N"
    )

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
        for name, choices in {"network": networks(), **CHOICES}.items():
            checks.one_of(name, getattr(self, name), choices)
        for timesteps in self.timesteps:
            checks.positive_integer(
                "timesteps", timesteps, advice="It is a number of time steps."
            )
        if self.threads is not None:
            self._check_threads()
        for method in self.methods:
            if method in ELSEWHERE:
                _check_peer(method, self)
            elif method == RECORDED:
                _check_recorded(self)
            else:
                _check_method(method, self)
        if self.data_format == "channels_first":
            _check_channels_first(self.jit_compile)

    def _check_threads(self):
        from recipes import device

        checks.positive_integer(
            "threads", self.threads, advice="It is the number of threads of the CPU."
        )
        device.check_backend(
            "torch",
            "`threads` can only be set on PyTorch; elsewhere limit the cores with "
            "`taskset`.",
        )

    @property
    def subject(self):
        """What is measured, for people."""
        size = "" if self.network in SEQUENCES else f", {self.size}x{self.size}"
        return (
            f"{self.network} of width {self.width}, batch {self.batch}{size}, "
            f"{self.precision}"
        )

    @property
    def packages(self):
        """The names of the packages of the peers among the methods."""
        packages = [
            ELSEWHERE[method].package for method in self.methods if method in ELSEWHERE
        ]
        return tuple(dict.fromkeys(packages))


def add_options(parser):
    """Adds an option for each field of `Settings`."""
    for field in dataclasses.fields(Settings):
        options = {"type": field.type, **field.metadata}
        if isinstance(field.default, tuple):
            options["nargs"] = "+"
        default = [field.default] if field.name == "jit_compile" else field.default
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, default=default, **options)


def _check_method(method, settings):
    from keras_ratesnn import models
    from recipes import methods

    chosen = methods.settings_of(method, others=(RECORDED, *ELSEWHERE))
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


def _check_recorded(settings):
    from recipes import device

    device.check_backend(
        "torch",
        "The other backends compile whole steps, so that `recorded` returns the model "
        "as it is.",
    )
    if settings.network in SEQUENCES:
        raise checks.mistake(
            "network",
            "without time for 'recorded'",
            settings.network,
            "Choose another.",
        )


def _check_channels_first(jit_compile):
    import keras

    from recipes import device

    is_tensorflow = keras.backend.backend() == "tensorflow"
    if is_tensorflow and jit_compile is not True and not device.gpu():
        raise ValueError(
            "`data_format` must be 'channels_last' on TensorFlow without a GPU, whose "
            "convolutions have no other there except in XLA. Received: "
            f"data_format='channels_first' with jit_compile={jit_compile!r}. Leave it "
            "out, or set jit_compile to true."
        )


def _check_peer(name, settings):
    import keras

    from recipes import device, packages

    peer, backend = ELSEWHERE[name], keras.backend.backend()
    named = f"methods={list(settings.methods)!r}"

    def check(fits, where, received, remedy):
        if not fits:
            raise ValueError(
                f"`methods` may name {name!r} {where} only. Received: {received}. "
                f"{remedy}, or leave it out."
            )

    check(
        backend == "torch",
        "on PyTorch",
        f"{named} with KERAS_BACKEND={backend!r}",
        "Set KERAS_BACKEND=torch",
    )
    check(
        settings.network in peer.networks
        and settings.size < PEERS_SIZE_BELOW
        and settings.precision in PEERS_PRECISIONS,
        f"for network={' or '.join(map(repr, peer.networks))} with images smaller "
        f"than {PEERS_SIZE_BELOW} x {PEERS_SIZE_BELOW} in "
        f"{' or '.join(PEERS_PRECISIONS)}",
        f"network={settings.network!r}, size={settings.size}, "
        f"precision={settings.precision!r}",
        "Change that",
    )
    check(
        peer.memopt < 2 or device.gpu(),
        "on a GPU",
        f"{named} without a GPU",
        "Name 'spikingjelly-memopt', the first level: SpikingJelly measures what the "
        "others save",
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
        is_ours = method not in (*ELSEWHERE, RECORDED)
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

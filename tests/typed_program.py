"""A user's typed program: `.ci/run` has mypy check it, strictly, against the installed
package. It is not run.

Where a line is wrong on purpose, mypy must find the error that is named there, and
would complain of a name without an error.
"""

import keras  # type: ignore[import-untyped]
from keras import ops

import keras_ratesnn as rsnn


class Cell(rsnn.layers.NeuronCell):
    def step(self, inputs: object, state: object) -> tuple[object, object, object]:
        membrane = ops.add(state, inputs)
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - self.threshold * spikes


class Window(rsnn.surrogates.Surrogate):
    def derivative(self, distance: object) -> object:
        return ops.cast(ops.abs(distance) < 0.5, "float32")


class Method(rsnn.gradients.GradientMethod):
    def call(self, run: rsnn.gradients.extend.Run) -> object:
        network = rsnn.gradients.extend.Network(run)
        states, outputs = network.run_steps(network.once())
        return network.commit(states, outputs)


def build() -> rsnn.SpikingModel:
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF(decay=0.5, surrogate=Window())(keras.layers.Dense(8)(inputs))
    x = rsnn.layers.Neuron(Cell(threshold=0.5))(keras.layers.Dense(8)(x))
    return rsnn.SpikingModel(
        keras.Model(inputs, keras.layers.Dense(3)(x)),
        timesteps=4,
        gradient="rate",
        step_mode="single",
    )


def train(model: rsnn.SpikingModel) -> float:
    model.gradient = Method()
    model.gradient = "bptt"
    model.timesteps += 1
    model.compile(
        "sgd",
        rsnn.losses.TET("mse"),
        metrics=[rsnn.metrics.AnytimeAccuracy(timesteps=5)],
    )
    model.fit(ops.ones((4, 6)), ops.ones((4, 3)))
    model.step_mode = "sideways"  # type: ignore[assignment]
    measured: list[keras.callbacks.Callback] = [
        rsnn.callbacks.FiringRate(ops.ones((4, 6)), log_dir="logs")
    ]
    measured.append(
        rsnn.callbacks.GradientAgreement(
            ops.ones((4, 6)), ops.ones((4, 3)), every=2, other="sltt"
        )
    )
    model.fit(ops.ones((4, 6)), ops.ones((4, 3)), callbacks=measured)
    found = rsnn.describe(model, ops.ones((4, 6)), verbose=False)
    return found.layers[0].firing_rate


def ready_made() -> list[rsnn.SpikingModel]:
    card = rsnn.models.list_pretrained()["digits"]
    return [
        rsnn.models.ResNet18(
            (32, 32, 3),
            classes=10,
            neuron=lambda: rsnn.layers.LIF(decay=0.5),
            normalization="batch",
        ),
        rsnn.models.VGG11(timesteps="four"),  # type: ignore[arg-type]
        rsnn.models.VGG11(stem="cifar"),  # type: ignore[call-arg]
        rsnn.models.ResNet18((32, 32, 3), 10),  # type: ignore[call-arg]
        rsnn.models.load_pretrained("digits", timesteps=card.timesteps * 2),
        rsnn.deploy.fold_batch_normalization(
            rsnn.models.load_pretrained("digits"), verbose=False
        ),
        rsnn.spikify(
            keras.applications.MobileNetV2(weights=None),
            4,
            neuron=rsnn.layers.IF,
            calibrate=ops.ones((2, 8)),
        ),
    ]


def look_inside(model: rsnn.SpikingModel) -> dict[str, float]:
    x, y = ops.ones((4, 6)), ops.ones((4, 3))
    agreement: rsnn.analysis.GradientAgreement = rsnn.analysis.gradient_agreement(
        model, x, y, rsnn.gradients.Rate(windows=2)
    )
    cosines: list[float] = agreement.cosine.tolist()
    spikes = rsnn.analysis.raster(model, x, "lif", neurons=[0, 3]).spikes.sum()
    joules: float = rsnn.analysis.energy(
        model, x, rsnn.analysis.Costs(accumulate=0.1e-12)
    ).total
    rate: float = rsnn.analysis.energy(
        model, x, rsnn.analysis.Costs.int8()
    ).quantized.crossover
    rsnn.analysis.energy(model, x, costs=0.9e-12)  # type: ignore[arg-type]
    rsnn.analysis.membranes(model, x, layer=2)  # type: ignore[arg-type]
    agreement.layers = ()  # type: ignore[misc]
    shuffled = rsnn.analysis.shuffle_in_time(model, x, y, seed=1)
    return {
        **shuffled.per_layer,
        "first": cosines[0],
        "spikes": float(spikes),
        "joules": joules,
        "rate": rate,
    }


@rsnn.layers.affine
class Scale(keras.layers.Layer):  # type: ignore[misc]
    """Keras has no types."""


rsnn.layers.LIF(reset="softly")  # type: ignore[arg-type]
rsnn.layers.LIF(0.5, 1.0, "soft")  # type: ignore[arg-type, call-arg]
rsnn.layers.ALIFCell(learn_threshold="yes")  # type: ignore[arg-type]
rsnn.layers.LayerKind(affine="yes")  # type: ignore[arg-type]
rsnn.deploy.fold_batch_normalization(keras.Sequential(), verbose="no")  # type: ignore[arg-type]
rsnn.gradients.Rate(windows=2.5)  # type: ignore[arg-type]
rsnn.testing.check_cell("LIF")  # type: ignore[arg-type]
steepness: float = rsnn.surrogates.ATan(alpha=2.0).alpha
name: str = rsnn.surrogates.get("atan")  # type: ignore[assignment]

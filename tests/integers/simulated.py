"""A slow simulator of networks of integers in int64 of NumPy: one sample, one step and
one place after the other."""

import math

import numpy as np


def simulate(plan, x):
    """Runs a network for samples with channels last.

    Returns:
        `(spikes, membranes, logits)`: dicts of the spikes of all steps, `(batch, T,
        ...)`, and of the membranes after the last step, by layer; and the integer
        logits of all steps, `(batch, T, classes)`.
    """
    runs = [_Sample(plan).run(sample) for sample in np.asarray(x, "int64")]
    neurons = [layer.name for layer in plan.layers if layer.kind == "neurons"]
    spikes = {
        name: np.array([[step[name] for step in steps] for steps, _ in runs])
        for name in neurons
    }
    membranes = {name: np.array([state[name] for _, state in runs]) for name in neurons}
    return (
        spikes,
        membranes,
        np.array([[step[plan.layers[-1].name] for step in steps] for steps, _ in runs]),
    )


class _Sample:
    def __init__(self, plan):
        self.plan = plan
        self.state = {}
        self.spiked = {}

    def run(self, x):
        steps = []
        for t in range(self.plan.timesteps):
            values = {"input": x[t] if x.ndim > len(self.plan.input_shape) else x}
            for layer in self.plan.layers:
                values[layer.name] = getattr(self, layer.kind)(
                    layer, *(values[name] for name in layer.sources)
                )
            steps.append(values)
        return steps, self.state

    def constant(self, key, layer):
        return self.plan.constants[f"{key}/{layer.name}"].astype("int64")

    def windows(self, layer, z, size, value):
        """The places of the output, and the window of each; outside of the image is
        `value`."""
        (top, bottom), (left, right) = layer.facts["pad"]
        z = np.pad(z, ((top, bottom), (left, right), (0, 0)), constant_values=value)
        down, across = layer.facts["stride"]
        for row in range((z.shape[0] - size[0]) // down + 1):
            for column in range((z.shape[1] - size[1]) // across + 1):
                y, x = row * down, column * across
                yield row, column, z[y : y + size[0], x : x + size[1]]

    def conv(self, layer, z):
        kernel = self.constant("w", layer)
        out = np.zeros(layer.shape, "int64")
        for row, column, window in self.windows(
            layer, z, kernel.shape[:2], layer.facts.get("pad_value", 0)
        ):
            for channel in range(kernel.shape[3]):
                out[row, column, channel] = (window * kernel[..., channel]).sum()
        return out

    def depthwise(self, layer, z):
        kernel = self.constant("w", layer)
        out, each = np.zeros(layer.shape, "int64"), kernel.shape[3]
        for row, column, window in self.windows(
            layer, z, kernel.shape[:2], layer.facts.get("pad_value", 0)
        ):
            for channel in range(layer.shape[2]):
                out[row, column, channel] = (
                    window[..., channel // each]
                    * kernel[..., channel // each, channel % each]
                ).sum()
        return out

    def dense(self, layer, z):
        return np.array([(z * column).sum() for column in self.constant("w", layer).T])

    def flatten(self, layer, z):
        return z.ravel()

    def add(self, layer, *inputs):
        factors = layer.facts.get("factors", [1] * len(inputs))
        return sum(z * factor for z, factor in zip(inputs, factors, strict=True))

    def global_sum(self, layer, z):
        return z.sum((0, 1))

    def sum_pool(self, layer, z):
        outside, size = -(2**40), layer.facts["size"]
        counts = {
            (row, y): int((w[..., 0] != outside).sum())
            for row, y, w in self.windows(layer, z, size, outside)
        }
        out, common = np.zeros(layer.shape, "int64"), math.lcm(*counts.values())
        for row, column, window in self.windows(layer, z, size, 0):
            out[row, column] = window.sum((0, 1)) * (common // counts[row, column])
        return out

    def max_pool(self, layer, z):
        out = np.zeros(layer.shape, "int64")
        for row, column, window in self.windows(
            layer, z, layer.facts["size"], -(2**40)
        ):
            out[row, column] = window.max((0, 1))
        return out

    def readout(self, layer, z):
        return z * 2 ** layer.facts["f"] + self.constant("bias", layer)

    def neurons(self, layer, *inputs):
        facts, theta = layer.facts, self.constant("theta", layer)
        if "shift" in facts:
            n = max(facts["shift"])
            factors = [
                self.plan.constants[f"multiplier/{layer.name}/{name}"].astype("int64")
                for name in layer.sources
            ]
            total = sum(
                z * m * 2 ** (n - shift)
                for z, m, shift in zip(inputs, factors, facts["shift"], strict=True)
            )
            current = total if n == 0 else (total + 2 ** (n - 1)) // 2**n
        else:
            f = facts["f"]
            current = (
                inputs[0] * 2**f if f >= 0 else (inputs[0] + 2 ** (-f - 1)) // 2**-f
            )
        v = self.state.get(
            layer.name, np.broadcast_to(self.constant("v0", layer), layer.shape)
        )
        v = (
            (v * np.asarray(facts["decay_m"])) // 2 ** facts["decay_k"]
            + current
            + self.constant("bias", layer)
        )
        if facts.get("reset_delay"):
            v = self.reset(
                facts, v, self.spiked.get(layer.name, np.zeros_like(v)), theta
            )
        bits = facts["membrane_bits"]
        v = np.clip(v, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if facts["levels"]:
            places = zip(
                v.ravel(), np.broadcast_to(theta, v.shape).ravel(), strict=True
            )
            s = np.array(
                [
                    _rounded(int(of_v), int(of_theta), facts["levels"])
                    for of_v, of_theta in places
                ]
            ).reshape(v.shape)
        else:
            s = (v >= theta).astype("int64")
        self.spiked[layer.name] = s
        self.state[layer.name] = (
            v if facts.get("reset_delay") else self.reset(facts, v, s, theta)
        )
        return s

    def reset(self, facts, v, s, theta):
        return (
            np.where(s > 0, np.asarray(facts["v_reset"]), v)
            if facts["hard"]
            else v - s * theta
        )


def _rounded(v, theta, levels):
    """round(clip(v / theta, 0, levels)) of integers, halves to even."""
    whole, rest = divmod(min(max(v, 0), levels * theta), theta)
    return whole + (2 * rest > theta or (2 * rest == theta and whole % 2 == 1))

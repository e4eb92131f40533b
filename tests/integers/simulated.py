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

    def conv(self, layer, z, summed=(0, 1, 2)):
        kernel, out = self.constant("w", layer), np.zeros(layer.shape, "int64")
        outside = layer.facts.get("pad_value", 0)
        for row, column, window in self.windows(layer, z, kernel.shape[:2], outside):
            out[row, column] = (window[..., None] * kernel).sum(summed).ravel()
        return out

    def depthwise(self, layer, z):
        return self.conv(layer, z, summed=(0, 1))

    def dense(self, layer, z):
        return z @ self.constant("w", layer)

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
        out, size = np.zeros(layer.shape, "int64"), layer.facts["size"]
        for row, column, window in self.windows(layer, z, size, -(2**40)):
            out[row, column] = window.max((0, 1))
        return out

    def readout(self, layer, z):
        return z * 2 ** layer.facts["f"] + self.constant("bias", layer)

    def neurons(self, layer, *inputs):
        facts, theta = layer.facts, self.constant("theta", layer)
        if "shift" in facts:
            most, total = max(facts["shift"]), 0
            for name, z, shift in zip(
                layer.sources, inputs, facts["shift"], strict=True
            ):
                multiplier = self.plan.constants[f"multiplier/{layer.name}/{name}"]
                total = total + z * multiplier.astype("int64") * 2 ** (most - shift)
            current = _shifted(total, most)
        else:
            current = _shifted(inputs[0], -facts["f"])
        start = np.broadcast_to(self.constant("v0", layer), layer.shape)
        v = self.state.get(layer.name, start) * np.asarray(facts["decay_m"])
        v = v // 2 ** facts["decay_k"] + current + self.constant("bias", layer)
        is_delayed = facts.get("reset_delay")
        if is_delayed:
            v = self.reset(facts, v, self.spiked.get(layer.name, 0 * v), theta)
        most = 2 ** (facts["membrane_bits"] - 1)
        v = np.clip(v, -most, most - 1)
        levels = facts["levels"]
        s = _rounded(v, theta, levels) if levels else (v >= theta).astype("int64")
        self.spiked[layer.name] = s
        self.state[layer.name] = v if is_delayed else self.reset(facts, v, s, theta)
        return s

    def reset(self, facts, v, s, theta):
        return (
            np.where(s > 0, np.asarray(facts["v_reset"]), v)
            if facts["hard"]
            else v - s * theta
        )


def _shifted(values, bits):
    """round(values / 2^bits) of integers, halves up."""
    if bits <= 0:
        return values * 2**-bits
    return (values + 2 ** (bits - 1)) // 2**bits


def _rounded(v, theta, levels):
    """round(clip(v / theta, 0, levels)) of integers, halves to even."""
    whole, rest = np.divmod(np.clip(v, 0, levels * theta), theta)
    return whole + ((2 * rest > theta) | ((2 * rest == theta) & (whole % 2 == 1)))

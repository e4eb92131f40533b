"""Logits that learn from the labels, and from the mean of those of them that are right,
in NumPy."""

import numpy as np


def softmax(logits):
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def naive_loss(labels, logits, alpha, beta, temperature):
    """The loss of each sample, by loops in float64."""
    losses = []
    for label, of_sample in zip(labels, np.asarray(logits, "float64"), strict=True):
        right = [one for one in of_sample if one.argmax() == label]
        loss = sum(-alpha * np.log(softmax(one)[label]) for one in of_sample)
        if right:
            teacher = softmax(np.mean(right, axis=0) / temperature)
            for one in of_sample:
                student = softmax(one / temperature)
                loss += (
                    beta
                    * temperature**2
                    * sum(
                        p * np.log(p / q) for p, q in zip(teacher, student, strict=True)
                    )
                )
        losses.append(loss)
    return np.array(losses)

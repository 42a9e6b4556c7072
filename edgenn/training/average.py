"""The moving average of a network's weights, statistics of batch normalisation included.

Keras's optimizers average the trainable weights only, and a network with averaged weights and un-averaged statistics is
measured wrongly; so all weights are averaged alike, inside the training step and on every replica.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgenn.extras import require


class Average:
    """Averages of `model.weights`; with decay 0 nothing is averaged and nothing costs.

    Attributes:
      variables: the averages and the count of updates.
    """

    def __init__(self, model: Any, decay: float, strategy: Any) -> None:
        tf = require("tensorflow")
        self.decay, self.strategy = decay, strategy
        self.variables: list[Any] = []
        self._pairs: list[tuple[Any, Any]] = []
        if decay:
            moving = model.weights
            self._updates = tf.Variable(0.0, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
            self._pairs = [(tf.Variable(w.value, trainable=False), w.value) for w in moving]
            self.variables = [self._updates, *[average for average, _ in self._pairs]]

    def update(self) -> None:
        """Move the averages towards the weights; in a graph, outside of replicas.

        The decay is min(decay, (1 + t) / (10 + t)) at update t, so that the first steps are forgotten soon: the rule
        of tf.train.ExponentialMovingAverage with num_updates.
        """
        if not self.decay:
            return
        tf = require("tensorflow")
        t = self._updates.read_value()
        keep = tf.minimum(self.decay, (1.0 + t) / (10.0 + t))

        def move(average: Any, weight: Any, keep: Any) -> None:
            average.assign_sub((average - weight) * (1.0 - keep))

        for average, weight in self._pairs:
            self.strategy.extended.update(average, move, args=(weight, keep), group=False)
        self._updates.assign_add(1.0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """For the length of the block the network has the averaged weights."""
        current = [weight.numpy() for _, weight in self._pairs]
        for average, weight in self._pairs:
            weight.assign(average.numpy())
        try:
            yield
        finally:
            for (_, weight), value in zip(self._pairs, current, strict=True):
                weight.assign(value)

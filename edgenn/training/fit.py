"""The fitting of one network to a feed of samples: schedule, loop, averaged weights, early stopping, the best kept.

Generic over what a sample is: a photo, or what a frozen backbone makes of one. Reads no files and writes none but the
checkpoint that it is given; what is shown and kept is the caller's business. The loop is our own and not `Model.fit`,
because Keras 3 does not support several machines there (keras#20585), and because averaged weights, the state of
every variable and exact resumption have to be in hand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgenn.extras import require
from edgenn_device.errors import EdgennError

from . import distribute
from .average import Average
from .checkpoint import Checkpoint
from .feed import Feed
from .precision import computing_copy
from .recipe import Recipe

# Gradients longer than this are shortened (Pascanu et al. 2013, arXiv:1211.5063, section 3.2): far above what a healthy
# step has, so that only an outlier meets it.
LONGEST_GRADIENT = 5.0
# Figures are fetched from the processor at most this often, seconds: each time it has to finish what it does.
_LOOK = 0.1

OnStep = Callable[[int, int, int, float, float], None]


@dataclass(frozen=True)
class Epoch:
    """One line of history.csv. Accuracies and losses are means over the epoch; `seconds` is its wall time.

    The training figures are of varied photos, smoothed or mixed labels and the weights as they changed; the validation
    figures (val_) of photos and labels as they are and the weights that are kept (averaged, if the recipe says so).
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float

    @property
    def score(self) -> tuple[float, float]:
        """The better epoch has the greater one: by validation accuracy, and of equal ones by validation loss."""
        return self.val_accuracy, -self.val_loss


def fit(
    model: Any,
    train: Feed,
    validation: Feed,
    recipe: Recipe,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Epoch]:
    """Train `model` in place and leave it with the weights of its best epoch on validation (see `Epoch.score`).

    Runs under the tf.distribute strategy in whose scope `model` was made. Layers that are not trainable stay as they
    are, batch normalisation's statistics included.

    Args:
      model: uncompiled keras.Model: what the feeds give -> probabilities (batch, classes).
      recipe: resolved.
      on_epoch: called after every epoch; for those before a resumption at once.
      on_step: called now and then, and at the end of every epoch, with (epoch, step, steps, loss, accuracy).
      checkpoint: where to keep the state after every epoch; if it holds one, training goes on from there, and if that
        was finished, only its weights are taken.

    Returns:
      The epochs, in order, those before a resumption included.

    Raises:
      EdgennError: the loss is not a number any more; the model keeps its best epoch so far.
    """
    keras = require("keras")
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if recipe.batch % replicas:
        raise EdgennError(f"a batch of {recipe.batch} cannot be shared by {replicas} processors: give a multiple")
    with strategy.scope(), _shared_statistics(keras, model, replicas):
        worker, take_back = computing_copy(model, recipe.precision)
        loop = _Loop(keras, worker, train, validation, recipe, strategy)
        try:
            return loop.run(on_epoch, on_step, checkpoint)
        finally:
            loop.keep_best()
            take_back()


def predict(model: Any, feed: Feed, batch: int = 32) -> NDArray[np.float32]:
    """The scores of every sample of a feed, in order and unvaried: float32 (count, classes)."""
    tf = require("tensorflow")
    answer = tf.function(lambda x: model(x, training=False), autograph=False)
    scores = [answer(element[0]).numpy() for element in feed.batches(batch, training=False)]
    return np.concatenate(scores)[: feed.count].astype(np.float32)


class _Loop:
    """The state of a fit, and its epochs."""

    def __init__(self, keras: Any, model: Any, train: Feed, validation: Feed, recipe: Recipe, strategy: Any) -> None:
        self.keras, self.model, self.train, self.validation = keras, model, train, validation
        self.recipe, self.strategy = recipe, strategy
        self.batch = int(recipe.batch or 0)
        self.steps = train.steps(self.batch)
        self.replicas = strategy.num_replicas_in_sync
        self.optimizer = self._optimizer()
        self.average = Average(model, float(recipe.ema or 0.0), strategy)
        self.epochs: list[Epoch] = []
        self.best: list[Any] | None = None
        self.best_epoch: Epoch | None = None
        self._train_step = self._stepper(training=True)
        self._test_step = self._stepper(training=False)

    def run(self, on_epoch: Any, on_step: Any, checkpoint: Checkpoint | None) -> list[Epoch]:
        finished = checkpoint is not None and self._restore(checkpoint)
        for epoch in self.epochs if on_epoch else ():
            on_epoch(epoch)
        while not finished:
            done = self._epoch(on_step)
            self.epochs.append(done)
            finished = self._finished()
            if checkpoint is not None and distribute.is_chief(self.strategy):
                self._save(checkpoint, finished)
            if on_epoch:
                on_epoch(done)
        return list(self.epochs)

    def keep_best(self) -> None:
        """Give the model the weights of its best epoch, if there is one."""
        if self.best is not None:
            self.model.set_weights(self.best)

    def _finished(self) -> bool:
        assert self.best_epoch is not None
        waited = len(self.epochs) - self.best_epoch.epoch
        return len(self.epochs) >= (self.recipe.epochs or 0) or waited >= (self.recipe.patience or 0)

    def _epoch(self, on_step: Any) -> Epoch:
        number, started = len(self.epochs) + 1, time.perf_counter()
        rate = self._learning_rate()
        # A seed of its own for each epoch, which depends on nothing that happened before: resuming needs no more.
        seed = int(np.random.SeedSequence([self.recipe.seed, number]).generate_state(1)[0] >> 1)
        loss, accuracy = self._pass(self._train_step, self.train, True, seed, number, on_step)
        with self.average.in_place():
            val_loss, val_accuracy = self._pass(self._test_step, self.validation, False, 0, number, None)
            seconds = time.perf_counter() - started
            epoch = Epoch(number, loss, accuracy, val_loss, val_accuracy, rate, seconds)
            if self.best_epoch is None or epoch.score > self.best_epoch.score:
                self.best, self.best_epoch = self.model.get_weights(), epoch
        return epoch

    def _pass(
        self, step: Any, feed: Feed, training: bool, seed: int, epoch: int, on_step: OnStep | None
    ) -> tuple[float, float]:
        """All batches once: mean loss and accuracy.

        Raises:
          EdgennError: the loss is not a number.
        """
        tf = require("tensorflow")
        data = distribute.dataset(
            self.strategy, lambda part: feed.batches(self.batch, training=training, seed=seed, part=part)
        )
        several_machines = distribute.machines(self.strategy) > 1
        steps, looked = feed.steps(self.batch), time.perf_counter()
        totals = tf.zeros(4)
        for done, element in enumerate(_told_why(data, feed), 1):
            totals += step(element)
            now = time.perf_counter()
            if done < steps and (now - looked < _LOOK or several_machines):  # all machines must stop at the same step
                continue
            looked = now
            losses, weights, hits, samples = totals.numpy().tolist()
            loss, accuracy = losses / max(weights, 1e-12), hits / max(samples, 1.0)
            if not math.isfinite(loss):
                raise EdgennError(
                    f"the loss is not a number after epoch {epoch - 1}: lower --learning-rate "
                    f"(it was {self.recipe.learning_rate:g}) or raise --batch"
                )
            if on_step:
                on_step(epoch, done, steps, loss, accuracy)
        return loss, accuracy

    def _stepper(self, training: bool) -> Any:
        """A graph: a batch -> (sum of weighted losses, sum of weights, right answers, samples) over all replicas."""
        tf, model, optimizer = require("tensorflow"), self.model, self.optimizer
        share, temperature = self.recipe.distill_weight, self.recipe.distill_temperature

        def answer(element: Any) -> Any:
            x, y, weight, *soft = element
            scores = tf.cast(model(x, training=training), tf.float32)
            losses = self.keras.losses.categorical_crossentropy(y, scores)
            if soft:
                losses = (1 - share) * losses + share * _divergence(tf, soft[0], scores, temperature)
            right = tf.cast(tf.argmax(y, 1) == tf.argmax(scores, 1), tf.float32) * tf.sign(weight)
            sums = [tf.reduce_sum(t) for t in (losses * weight, weight, right, tf.sign(weight))]
            return sums[0], tf.stack(sums)

        def learn(element: Any) -> Any:
            with tf.GradientTape() as tape:
                loss, figures = answer(element)
                loss = loss / self.batch
                if model.losses:
                    loss += tf.add_n(model.losses) / self.replicas
                scaled = optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, model.trainable_variables)
            if self.replicas > 1:
                # Summed here already, so that it is the whole batch's gradient that is shortened; the optimizer sums
                # once more, hence the division, and `_optimizer` divides the longest gradient as well.
                total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
                gradients = [gradient / self.replicas for gradient in total]
            optimizer.apply(gradients, model.trainable_variables)
            return figures

        replica_step = learn if training else lambda element: answer(element)[1]

        def step(element: Any) -> Any:
            figures = self.strategy.run(replica_step, args=(element,))
            if training:
                self.average.update()
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, figures, axis=None)

        return tf.function(step, autograph=False)

    def _optimizer(self) -> Any:
        keras, recipe = self.keras, self.recipe
        rate = float(recipe.learning_rate or 0.0)
        total = int(recipe.epochs or 0) * self.steps
        warm = min(int((recipe.warmup or 0.0) * self.steps), total // 2)
        schedule = (
            keras.optimizers.schedules.CosineDecay(rate / 100, total - warm, warmup_target=rate, warmup_steps=warm)
            if warm
            else keras.optimizers.schedules.CosineDecay(rate, total)
        )
        optimizer = keras.optimizers.AdamW(
            schedule, weight_decay=recipe.weight_decay, global_clipnorm=LONGEST_GRADIENT / self.replicas
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        if self.model.compute_dtype == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(self.model.trainable_variables)
        return optimizer

    def _learning_rate(self) -> float:
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        return float(self.keras.ops.convert_to_numpy(inner.learning_rate))

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.optimizer.variables, *self.average.variables]

    def _save(self, checkpoint: Checkpoint, finished: bool) -> None:
        checkpoint.save(
            {
                "state": [np.asarray(self.keras.ops.convert_to_numpy(v)) for v in self._variables()],
                "best": self.best or [],
            },
            {"epochs": [asdict(epoch) for epoch in self.epochs], "finished": finished},
        )

    def _restore(self, checkpoint: Checkpoint) -> bool:
        """Take up what a checkpoint holds, if anything; True if that fit was finished."""
        kept = checkpoint.load()
        if kept is None:
            return False
        arrays, facts = kept
        variables = self._variables()
        if [tuple(v.shape) for v in variables] != [array.shape for array in arrays["state"]]:
            raise EdgennError(f"{checkpoint.path} belongs to another network: give --overwrite to start anew")
        for variable, array in zip(variables, arrays["state"], strict=True):
            variable.assign(array)
        self.best = arrays["best"]
        self.epochs = [Epoch(**values) for values in facts["epochs"]]
        self.best_epoch = max(self.epochs, key=lambda epoch: epoch.score)
        return bool(facts["finished"])


def _told_why(data: Any, feed: Feed) -> Iterator[Any]:
    """The elements of a dataset; if one cannot be made, the feed's own error is raised and not TensorFlow's."""
    tf = require("tensorflow")
    try:
        yield from data
    except tf.errors.OpError:
        if feed.failure is not None:
            raise feed.failure from None
        raise


def _divergence(tf: Any, teacher: Any, student: Any, temperature: float) -> Any:
    """Kullback-Leibler divergence of tempered probabilities times temperature², (batch,) (Hinton et al. 2015, sec. 2).

    Softmax of log(p) / T is softmax of the logits over T: a logarithm of probabilities differs from logits by a
    constant.
    """

    def tempered(p: Any) -> Any:
        return tf.nn.log_softmax(tf.math.log(tf.clip_by_value(p, 1e-7, 1.0)) / temperature)

    goal = tempered(teacher)
    return temperature**2 * tf.reduce_sum(tf.exp(goal) * (goal - tempered(student)), -1)


@contextmanager
def _shared_statistics(keras: Any, model: Any, replicas: int) -> Iterator[None]:
    """While it lasts, batch normalisation takes its statistics over the batch of all replicas, not of each alone."""
    normalisations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    alone = [layer for layer in normalisations if replicas > 1 and not layer.synchronized]
    for layer in alone:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in alone:
            layer.synchronized = False

"""More than one processor or machine: which tf.distribute strategy, and what follows from it.

All GPUs of this machine (MirroredStrategy), or several machines when the environment variable TF_CONFIG names them
(MultiWorkerMirroredStrategy: https://www.tensorflow.org/guide/distributed_training#TF_CONFIG). Nothing here moves
gradients itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from edgenn.extras import require
from edgenn_device.errors import EdgennError


def strategy() -> Any:
    """The strategy for this machine and environment; to be asked for before TensorFlow computes anything.

    Raises:
      EdgennError: TF_CONFIG does not say who works together.
    """
    tf = require("tensorflow")
    if "TF_CONFIG" in os.environ:
        try:
            values = json.loads(os.environ["TF_CONFIG"])
            workers, task = values["cluster"]["worker"], values["task"]
            if not (task["type"] == "worker" and 0 <= task["index"] < len(workers)):
                raise ValueError(f"task {task} is none of the {len(workers)} workers")
        except (ValueError, KeyError, TypeError) as error:
            raise EdgennError(
                f'TF_CONFIG is wrong ({error}): it looks like {{"cluster": {{"worker": ["host1:12345", '
                '"host2:12345"]}, "task": {"type": "worker", "index": 0}}'
            ) from None
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def machines(strategy: Any) -> int:
    """How many machines work together."""
    resolver = strategy.cluster_resolver
    return max(1, len(resolver.cluster_spec().as_dict().get("worker", ()))) if resolver else 1


def is_chief(strategy: Any) -> bool:
    """Whether it is this machine that writes; worker 0 does."""
    return machines(strategy) == 1 or strategy.cluster_resolver.task_id == 0


def dataset(strategy: Any, batches: Callable[[tuple[int, int]], Any]) -> Any:
    """One epoch for every replica.

    Args:
      batches: (index, of how many) -> the dataset of that share of every batch, as `Feed.batches` makes it.
    """
    if strategy.num_replicas_in_sync == 1:
        return batches((0, 1))
    tf = require("tensorflow")
    here = strategy.num_replicas_in_sync // machines(strategy)

    def share(context: Any) -> Any:
        whole = batches((context.input_pipeline_id, context.num_input_pipelines))
        # One batch of this machine becomes one for each of its replicas.
        return whole.unbatch().batch(_rows(whole) // here, drop_remainder=True) if here > 1 else whole

    return strategy.distribute_datasets_from_function(share, tf.distribute.InputOptions())


def _rows(batches: Any) -> int:
    return int(batches.element_spec[1].shape[0])

"""The whole of `edgenn search`: trials until there are enough, then the finalists timed in turns, and the best chosen.

After every trial all that DIR holds is up to date (see `kept`), so that a process that is killed loses no more than the
trial it was at, and the same command goes on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenn import data
from edgenn.extras import require
from edgenn.training import Recipe
from edgenn_device.errors import AnswerIsNo, EdgennError

from . import facts, kept, outcome, space, study
from .kept import Search
from .limits import Limits
from .trial import Task, outcomes, work
from .watcher import Watcher

# So many networks in a row that need not be trained: there is no other that fits.
_MOST_UNFIT = 60
# So many trials that end in an error before their first epoch, with none that had one: it is not the settings.
_MOST_FAILED = 3


def search(
    photos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    trials: int = 30,
    timeout: float | None = None,
    networks: Sequence[str] = (),
    storage: str | None = None,
    recipe: Recipe | None = None,
    weights: Sequence[str] = (),
    watcher: Watcher | None = None,
    **changes: Any,
) -> Search:
    """Find the most accurate int8 model within limits.

    Args:
      photos: as for `edgenn.train`.
      out: folder for everything that comes of it; goes on with the search that is there.
      limits: what the model may cost.
      trials: how many are trained in all, those of earlier calls and other processes included.
      timeout: seconds after which no further trial is begun.
      networks: names or paths of those to choose from; all if none.
      storage: address of the database, the same for all who join; a file in `out` if None.
      recipe: settings that are not searched. A size, a learning rate, epochs and network options that it gives stay
        as they are; its augmentation is what is varied in strength.
      weights: what a network may start from (see `Recipe.weights`), of which the first that fits is taken; a network
        that none fits is left out. The recipe's if none.
      watcher: is told what goes on.
      changes: single settings of the recipe, by name.

    Raises:
      EdgennError: photos, settings, `out` or the database cannot be used; or every trial fails.
    """
    began, watcher, limits = time.monotonic(), watcher or Watcher(), limits or Limits()
    if trials < 1:
        raise EdgennError(f"--trials {trials} searches nothing: give 1 or more")
    for module in ("tensorflow", "matplotlib", "jinja2", "optuna"):
        require(module)
    data.check_apart(photos, out)
    base, target = (recipe or Recipe()).replace(**changes), _usable(Path(out))
    start = _there(weights or (base.weights,))
    base = replace(base, weights="none")
    chosen = {_content(name): name for name in space.checked(networks, base)}
    dataset = data.scan(photos, base.classes or None)
    watcher.photos(dataset)
    facts.fetch(list(chosen.values()), base, len(dataset.labels), start)
    task = Task(Path(photos), dataset, chosen, base, start, limits, target / kept.TRIALS, watcher)
    url = storage or kept.address(target)
    identity = {
        "photos": dataset.fingerprint,
        "classes": list(dataset.labels),
        "networks": list(chosen),
        "weights": [_content(name) for name in start],
        "limits": limits.to_dict(),
        "recipe": base.to_dict(),
    }
    target.mkdir(parents=True, exist_ok=True)
    first = [space.defaults(called, name, base) for called, name in chosen.items()]
    with study.opened(url, target / kept.WORKERS, identity, first) as memory:
        _begin(memory, task)
        result = Search(target, Path(photos), dataset, limits, url, kept.known(memory.study, target), base.epochs)
        while _goes_on(memory, task, trials) and (timeout is None or time.monotonic() - began < timeout):
            result = _one(memory, task, result)
        result = replace(result, outcomes=kept.known(memory.study, target))
    return kept.decided(result, watcher)


def check_found(result: Search) -> None:
    """Raise AnswerIsNo if no model keeps the limits and passes."""
    if result.best is not None:
        return
    if outcome.done(result.outcomes):
        raise AnswerIsNo(outcome.why_none(result.outcomes, result.limits))
    reasons = [one.reason for one in result.outcomes if one.reason]
    raise AnswerIsNo(f"no trial was finished{f' ({reasons[-1]})' if reasons else ''}: give --trials or --timeout more")


def _content(name: str) -> str:
    """What weights or a network are called where several machines compare them: of a file, whose path differs from
    one to another, its name and what is in it.

    Raises:
      EdgennError: the file cannot be read.
    """
    path = Path(name)
    if not path.is_absolute():
        return name
    try:
        with path.open("rb") as file:
            return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    except OSError as error:
        raise EdgennError(f"{path} cannot be read: {error.strerror or error}") from None


def _there(weights: Sequence[str]) -> tuple[str, ...]:
    """The weights as they can be found from any folder.

    Raises:
      EdgennError: a file is missing.
    """
    found = []
    for name in dict.fromkeys(weights):
        if name not in ("none", "imagenet"):
            if not Path(name).is_file():
                raise EdgennError(f"there are no weights at {name}: check the path")
            name = str(Path(name).resolve())
        found.append(name)
    return tuple(found)


def _usable(out: Path) -> Path:
    """`out`, if a search may be kept there.

    Raises:
      EdgennError: something else stands there.
    """
    if out.exists() and not out.is_dir():
        raise EdgennError(f"{out} is a file: choose another --out")
    ours = (out / kept.STUDY).is_file() or (out / kept.WORKERS).is_dir()
    if out.is_dir() and not ours and any(out.iterdir()):
        raise EdgennError(f"{out} holds files that are not a search's: choose another --out")
    return out


def _begin(memory: study.Memory, task: Task) -> None:
    released = memory.release()
    for number in released:
        shutil.rmtree(task.folder(number), ignore_errors=True)
    ended = sum(one.state in ("done", "stopped") for one in outcomes(memory.study))
    task.watcher.joined(ended, len(released))


def _goes_on(memory: study.Memory, task: Task, trials: int) -> bool:
    """Whether another trial is wanted: fewer than asked for are trained or at it, and there may be one that fits."""
    for number in memory.release():
        shutil.rmtree(task.folder(number), ignore_errors=True)
    known = [one for one in outcomes(memory.study) if one.state != "lost"]
    if sum(one.state != "unfit" for one in known) >= trials:
        return False
    last = known[-_MOST_UNFIT:]
    if len(last) == _MOST_UNFIT and all(one.state == "unfit" for one in last):
        return False
    failed = [one for one in known if one.state == "stopped" and not one.epochs]
    if len(failed) >= _MOST_FAILED and not any(one.epochs for one in known):
        raise EdgennError(failed[-1].reason)
    return True


def _one(memory: study.Memory, task: Task, result: Search) -> Search:
    """One trial, and everything up to date after it."""
    optuna = require("optuna")

    def objective(trial: Any) -> float:
        memory.begin(trial)
        return work(trial, task)

    before = result.best
    try:
        memory.study.optimize(objective, n_trials=1)
    except KeyboardInterrupt:
        mine = [trial for trial in memory.trials() if trial.user_attrs.get("worker") == memory.worker]
        if mine and mine[-1].state == optuna.trial.TrialState.FAIL:
            memory.retry(mine[-1])
            shutil.rmtree(task.folder(mine[-1].number), ignore_errors=True)
        raise
    finally:
        require("keras").utils.clear_session()
    result = replace(result, outcomes=kept.known(memory.study, result.out))
    mine = [trial for trial in memory.trials() if trial.user_attrs.get("worker") == memory.worker]
    ended = next(one for one in result.outcomes if one.number == mine[-1].number)
    best = result.best
    if best is not None and best.number == ended.number and best != before:
        remark = "best so far"
    else:
        remark = ", ".join(ended.misses(result.limits)) if ended.state == "done" else ""
    task.watcher.end(ended, remark)
    if ended.state != "unfit":
        kept.write(result)
    return result

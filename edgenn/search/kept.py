"""What a search leaves in DIR, and the choice at its end.

DIR holds study.db (its memory), trials/ (a run for each finalist, of the others what came of them), best/ (the run that
was chosen, with model.tflite and trial.json, which says which trial's it is), recipe.toml, latency.json, pareto.png and
search.html. Several processes may search in one DIR: one at a time writes.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenn import data
from edgenn.evaluation import Evaluation, evaluate
from edgenn.training.run import MODEL as KERAS_MODEL
from edgenn_device.errors import EdgennError
from edgenn_device.files import folder_written_aside, write_atomically

from . import outcome, timing
from .limits import Limits
from .outcome import Latency, Outcome
from .recipe_file import to_toml
from .trial import MODEL, outcomes
from .watcher import Watcher

if TYPE_CHECKING:
    import optuna

STUDY, WORKERS, TRIALS, BEST = "study.db", "workers", "trials", "best"
RECIPE, TIMES, FIGURE, PAGE = "recipe.toml", "latency.json", "pareto.png", "search.html"
_WRITING = "writing.lock"
_MARK = "trial.json"


@dataclass(frozen=True)
class Search:
    """What a search came to.

    Attributes:
      out: DIR.
      photos: the folder of photos.
      dataset: what is in it.
      limits: that were asked for.
      storage: address of the database.
      outcomes: of all trials, those of other processes included.
      epochs: that the recipe gave to all trials; None if each had a share of its network's own.
      test: of the best model on test photos; None where there are none, or it is not here.
    """

    out: Path
    photos: Path
    dataset: data.Dataset
    limits: Limits
    storage: str
    outcomes: tuple[Outcome, ...]
    epochs: int | None = None
    test: Evaluation | None = None

    @property
    def best(self) -> Outcome | None:
        return outcome.best(self.outcomes, self.limits)

    @property
    def front(self) -> list[Outcome]:
        return outcome.front(self.outcomes, self.limits)

    @property
    def kept(self) -> bool:
        """The best run was trained here, and so it is in DIR/best, also when it is gone from DIR/trials."""
        return self.best is not None and _model(self, self.best).is_file()

    @property
    def full_epochs(self) -> int:
        """Epochs that the best one's network would have by itself, but no fewer than the trial had."""
        assert self.best is not None
        recipe = self.best.to_recipe()
        own = replace(recipe, epochs=None).resolved(len(self.dataset.splits["train"]))
        return max(int(recipe.epochs or 0), int(own.epochs or 0))

    def count(self, *states: str) -> int:
        return sum(one.state in states for one in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """What `edgenn search --json` prints."""
        return {
            "out": str(self.out),
            "photos": str(self.photos),
            "limits": self.limits.to_dict(),
            "storage": self.storage,
            "trials": {state: self.count(state) for state in ("done", "stopped", "unfit", "lost", "running")},
            "best": self.best.to_dict() if self.best else None,
            "front": [one.number for one in self.front],
            "model": str(self.out / BEST / MODEL) if self.kept else None,
            "recipe": str(self.out / RECIPE) if self.best else None,
            "test": {
                "accuracy": self.test.accuracy,
                "interval": list(self.test.interval),
                "pictures": self.test.pictures,
            }
            if self.test
            else None,
            "outcomes": [one.to_dict() for one in self.outcomes],
        }


def address(out: Path) -> str:
    """Address of the database in DIR.

    Raises:
      EdgennError: its path has a letter that such an address cannot hold.
    """
    path = (out / STUDY).resolve()
    odd = next((letter for letter in "?{}%" if letter in str(path)), None)
    if odd is not None:
        raise EdgennError(f"no database can be kept in {out}, whose path has a {odd}: choose another --out")
    return f"sqlite:///{path}"


def known(study: optuna.Study, out: Path) -> tuple[Outcome, ...]:
    """All trials, with the latencies that were measured last."""
    try:
        times = json.loads((out / TIMES).read_text("utf-8"))
        again = {int(number): Latency.from_dict(values) for number, values in times.items()}
    except FileNotFoundError:
        again = {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EdgennError(f"{out / TIMES} is damaged ({error}): delete it and give the same command again") from None
    return tuple(
        replace(one, latency=again[one.number]) if one.state == "done" and one.number in again else one
        for one in outcomes(study)
    )


def decided(result: Search, watcher: Watcher) -> Search:
    """Time the finalists once more, in turns, choose the best by that, measure it on test photos, and write all."""
    paths = {one.number: _model(result, one) for one in outcome.finalists(result.outcomes, result.limits)}
    here = {number: path for number, path in paths.items() if path.is_file()}
    if here:
        watcher.timing(len(here))
        again = timing.timed(here)
        result = replace(
            result,
            outcomes=tuple(
                replace(one, latency=again[one.number]) if one.number in again else one for one in result.outcomes
            ),
        )
        times = {one.number: asdict(one.latency) for one in result.outcomes if one.number in again and one.latency}
        with _writing(result.out):
            write_atomically(result.out / TIMES, json.dumps(times, indent=1) + "\n")
    write(result)
    if result.kept and result.dataset.splits.get("test"):
        names = list(result.dataset.labels)
        model = result.out / BEST / MODEL
        result = replace(result, test=evaluate(model, result.photos, split="test", classes=names))
        write(result)
    return result


def write(result: Search) -> None:
    """Bring DIR up to date."""
    from .page import page
    from .plot import pareto

    with _writing(result.out):
        _thin(result)
        _place_best(result)
        if outcome.done(result.outcomes):
            write_atomically(result.out / FIGURE, pareto(result.outcomes, result.limits))
        write_atomically(result.out / PAGE, page(result))


def _place_best(result: Search) -> None:
    best, place = result.best, result.out / BEST
    if best is None:
        (result.out / RECIPE).unlink(missing_ok=True)
        # The last timing may find the best too slow. What is not in trials/ any more is nobody's to remove.
        if any(_same(_run(result, one), place) for one in outcome.done(result.outcomes)):
            shutil.rmtree(place, ignore_errors=True)
        return
    heading = f"edgenn search, trial {best.number}: {best.name}\nint8 accuracy {best.accuracy:.4f} on validation"
    write_atomically(result.out / RECIPE, to_toml(best.to_recipe(), heading))
    run, holds = _run(result, best), _mark(place)
    if (run / MODEL).is_file():
        if holds != _identity(best) or not _same(run, place):
            with folder_written_aside(place) as new:
                shutil.copytree(run, new, dirs_exist_ok=True)
                (new / _MARK).write_text(json.dumps(_identity(best)) + "\n", "utf-8")
    elif holds not in (None, _identity(best)):
        shutil.rmtree(place, ignore_errors=True)


def _model(result: Search, one: Outcome) -> Path:
    """Where a trial's int8 file is, if it is here: with its run, or in best/ if that is gone from trials/."""
    own, place = _run(result, one) / MODEL, result.out / BEST
    return place / MODEL if not own.is_file() and _mark(place) == _identity(one) else own


def _identity(one: Outcome) -> dict[str, Any]:
    """Tells a trial from every other, also from one of this number in another search that had the same folder."""
    return {"number": one.number, "host": one.host, "folder": one.folder, "seconds": one.seconds}


def _mark(place: Path) -> Any:
    """Which trial's run is in best/; None if it does not say."""
    try:
        return json.loads((place / _MARK).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _same(run: Path, place: Path) -> bool:
    one, other = run / MODEL, place / MODEL
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _thin(result: Search) -> None:
    """Of runs that cannot become the best keep the figures and the small file, not the large one."""
    worth = {one.number for one in outcome.finalists(result.outcomes, result.limits)}
    for one in outcome.done(result.outcomes):
        if one.number not in worth:
            (_run(result, one) / KERAS_MODEL).unlink(missing_ok=True)


def _run(result: Search, one: Outcome) -> Path:
    return result.out / TRIALS / f"{one.number:04d}"


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    (out / WORKERS).mkdir(parents=True, exist_ok=True)
    with open(out / WORKERS / _WRITING, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

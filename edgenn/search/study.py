"""The search's memory: an Optuna study in a database, which outlives the process and may be shared by several.

Knows who works on a trial and whether that process is still there. What a trial is and what is good is not known here.

Of a process on this machine that is gone the lock file of its folder tells at once (the kernel takes a lock away with
the process); of one elsewhere its heartbeat, which Optuna writes into the database. What such a process had begun is
marked as failed and put back to be tried again.
"""

from __future__ import annotations

import fcntl
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from edgenn.extras import require
from edgenn_device.errors import EdgennError

if TYPE_CHECKING:
    import optuna

NAME = "edgenn search"
# Seconds between heartbeats of a running trial, and without one after which its process is taken for dead: a laptop
# that sleeps for a moment is not.
_HEARTBEAT, _GRACE = 60, 300
# A trial whose process died is tried again so often: one that ends its process each time has used up the memory.
_RETRIES = 2
# Trials chosen at random, those with default settings included, before the sampler draws conclusions: Optuna's own.
_RANDOM = 10
# Seconds that a process waits while another one writes into the same SQLite file.
_PATIENCE = 60
_IDENTITY, _WORKER = "search", "worker"


class Memory:
    """A study that is open.

    Attributes:
      study: Optuna's.
      worker: name of this process; it holds the lock of that name in `folder`.
    """

    def __init__(self, study: optuna.Study, folder: Path, worker: str) -> None:
        self.study, self.worker, self._folder = study, worker, folder

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All there are, in order."""
        found: list[optuna.trial.FrozenTrial] = self.study.get_trials(deepcopy=False)
        return found

    def begin(self, trial: optuna.Trial) -> None:
        """Say that it is this process that works on a trial."""
        trial.set_user_attr(_WORKER, self.worker)

    def release(self) -> list[int]:
        """Put back what dead processes had begun; numbers of those of this folder."""
        optuna = require("optuna")
        with _quiet(optuna):
            optuna.storages.fail_stale_trials(self.study)
        released = []
        for trial in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,), deepcopy=False):
            worker = trial.user_attrs.get(_WORKER, "")
            if self._is_dead(worker):
                # Another process may have done the same at this moment.
                with suppress(optuna.exceptions.UpdateFinishedTrialError, RuntimeError, ValueError):
                    self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                    self.retry(trial)
                    released.append(trial.number)
                # The trial that tries it again bears this name too, until somebody takes it up.
                self._lock(worker).unlink(missing_ok=True)
        return released

    def retry(self, trial: optuna.trial.FrozenTrial) -> None:
        """Put the settings of a trial back into the queue, unless that was done often enough."""
        optuna = require("optuna")
        with _quiet(optuna):
            optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)(self.study, trial)

    def _lock(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"

    def _is_dead(self, worker: str) -> bool:
        path = self._lock(worker)
        if not worker or worker == self.worker or not path.is_file():
            return False
        with open(path, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True


@contextmanager
def opened(url: str, folder: Path, identity: Mapping[str, Any], first: list[dict[str, Any]]) -> Iterator[Memory]:
    """Begin or join the search that a database holds.

    Args:
      url: as SQLAlchemy takes it: sqlite:///PATH, postgresql://…, mysql://….
      folder: for the locks of the processes that work here.
      identity: plain values that say what is searched; all who join must agree on them.
      first: parameters of the trials to begin with.

    Raises:
      EdgennError: the database cannot be used, or holds another search.
    """
    optuna = require("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    worker = uuid4().hex
    lock = folder / f"{worker}.lock"
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            with _explained(url):
                with _quiet(optuna), _alone(url):
                    study = _study(optuna, url, dict(identity), first)
                yield Memory(study, folder, worker)
        finally:
            lock.unlink(missing_ok=True)


def _study(optuna: Any, url: str, identity: dict[str, Any], first: list[dict[str, Any]]) -> Any:
    storage = optuna.storages.RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": _PATIENCE}} if url.startswith("sqlite") else None,
        heartbeat_interval=_HEARTBEAT,
        grace_period=_GRACE,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
    )
    # `group`: networks have different options, and each group of options is modelled jointly. No seed: of two
    # processes with one seed the second would only repeat the first.
    sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=_RANDOM)
    study = optuna.create_study(
        storage=storage,
        sampler=sampler,
        pruner=optuna.pruners.NopPruner(),  # `stopping` has the rule
        study_name=NAME,
        direction="maximize",
        load_if_exists=True,
    )
    kept = study.user_attrs.get(_IDENTITY)
    if kept is None:
        study.set_user_attr(_IDENTITY, identity)
        for parameters in first:
            study.enqueue_trial(parameters)
        return study
    for name, value in json.loads(json.dumps(identity)).items():
        if kept.get(name) != value:
            raise EdgennError(
                f"{_shown(url)} holds a search with other {name} ({_short(kept.get(name))}): give the same again, or "
                "another --out or --storage"
            )
    return study


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """One process at a time makes the tables of an SQLite file; servers see to that themselves."""
    path = require("sqlalchemy").make_url(url).database if url.startswith("sqlite") else None
    if not path or path == ":memory:":
        yield
        return
    if not Path(path).absolute().parent.is_dir():
        raise EdgennError(f"--storage {url}: there is no folder {Path(path).parent}: make it first")
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Errors of the database as one line."""
    errors, optuna = require("sqlalchemy.exc"), require("optuna")
    try:
        yield
    except errors.ArgumentError:
        raise EdgennError(
            f"--storage {_shown(url)} is no database that can be used: give sqlite:///PATH, or the address of a "
            "PostgreSQL or MySQL server (postgresql://USER:PASSWORD@HOST/DATABASE)"
        ) from None
    except ImportError as error:
        if error.name in (None, "optuna"):
            raise EdgennError(f"--storage {_shown(url)} needs a driver: {_first(error)}") from None
        raise EdgennError(f"--storage {_shown(url)} needs a driver: pip install {error.name}") from None
    except (errors.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise EdgennError(
            f"the database {_shown(url)} cannot be used ({_first(error.__cause__ or error)}): mend it and give the "
            "same command again"
        ) from None


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Heartbeats, retries and groups are called experimental by Optuna since version 2.9; the person need not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _shown(url: str) -> str:
    """The address without its password."""
    try:
        return str(require("sqlalchemy").make_url(url).render_as_string(hide_password=True))
    except Exception:  # not an address: it holds no password that could be found
        return url


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:119]}…"


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""What has to be done to one device: the difference between what is wanted there and what it says of itself.

Pure but for the reading of the files that are to be sent. A device that has all of it already gets an empty plan, and
one that lacks only a model is sent only that.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
import textwrap
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgenn_device.errors import EdgennError
from edgenn_device.option_notes import NOTES
from edgenn_device.options import Options
from edgenn_device.release_files import UNIT
from edgenn_device.release_install import MANIFEST, RECOVERY, SYSUSERS, TOOL
from edgenn_device.releases import WITHIN
from edgenn_device.standby import twin_of

from .. import __version__
from .hosts import Host
from .packages import Packages, Wheel
from .tool import INSTALLED, system_file, tool

CURRENT = "/opt/edgenn/current"
INCOMING = "/opt/edgenn/incoming"
OPTIONS, LABELS, SIGNATURE = "run.toml", "labels.txt", ".sig"
_HEAD = """\
# What the service edgenn does on this device: the options of `edgenn run`, those that are set and all others. Its
# SHA-256 belongs to the release, so it is changed from the workstation: copy it to run.toml there, and
# `edgenn deploy MODEL HOST --config run.toml`. How the service is: edgenn status HOST, edgenn logs HOST.
"""
# Loaded once as root, which leaves byte code for what every start loads; and a proof that the libraries load at all.
_WARM = """
import importlib, importlib.util
runtimes = [name for name in ("ai_edge_litert", "tflite_runtime") if importlib.util.find_spec(name)]
for name in (
    "numpy", "cv2", *(name + ".interpreter" for name in runtimes), "edgenn.cli.run", "edgenn_device.runner",
    "edgenn_device.service", "edgenn_device.standby", "edgenn_device.events", "edgenn_device.motion",
    "edgenn_device.cameras.synthetic", "edgenn_device.sinks.sqlite", "edgenn_device.release_proof",
):
    importlib.import_module(name)
"""


@dataclass(frozen=True)
class Wanted:
    """What a person asked for, the same for all devices.

    Attributes:
      model: the .tflite; an X_edgetpu.tflite takes its twin X.tflite with it.
      options: of run.toml; None leaves each device those that it has.
      source: holds against these; None takes what they say.
      signatures: by their names in the release, such as "model.tflite.sig".
      within: seconds in which a release has to prove itself.
      offline: the devices must not be made to reach out.
    """

    model: Path
    options: Mapping[str, Any] | None = None
    source: str | None = None
    signatures: Mapping[str, bytes] = field(default_factory=dict)
    within: float = WITHIN
    offline: bool = False

    @property
    def models(self) -> dict[str, Path]:
        """By their names in the release: always the same, so that a new model is a new content and nothing else."""
        twin = twin_of(self.model)
        if twin == self.model:
            return {"model.tflite": self.model}
        return {"model_edgetpu.tflite": self.model, **({"model.tflite": twin} if twin.exists() else {})}


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
      id: of the new release.
      changed: False when the device has all of it, as its current and proved release.
      files: (name, content) of what it lacks, to be put into `incoming`.
      bytes: of these.
      room: bytes that it takes there, at most.
      system_packages: to be installed by apt.
      tool: path there of the release tool, once the files are there.
      within: as in `Wanted`.
      options: of its run.toml.
      wheels: those that are sent.
    """

    id: str
    changed: bool
    files: tuple[tuple[str, bytes | Path], ...]
    bytes: int
    room: int
    system_packages: tuple[str, ...]
    tool: str
    within: float
    options: Mapping[str, Any]
    wheels: tuple[Wheel, ...]

    @property
    def incoming(self) -> str:
        return f"{INCOMING}/{self.id}"


def plan(host: Host, wanted: Wanted, facts: Mapping[str, Any], packages: Packages, now: float | None = None) -> Plan:
    """The plan for one device.

    Args:
      host: whose options hold against those of `wanted`.
      wanted: by the person.
      facts: of `edgenn_device.release_facts`.
      packages: for a device of its kind.
      now: time of the release; seconds since 1970.

    Raises:
      EdgennError: its options cannot be.
    """
    options, labels = options_for(host, wanted, facts)
    contents: dict[str, bytes | Path] = {**wanted.models, OPTIONS: toml(options), UNIT: system_file(UNIT)}
    contents.update(wanted.signatures)
    if labels is not None:
        contents[LABELS] = labels
    digests = {name: _digest(content) for name, content in contents.items()}
    current = facts.get("current") or {}
    if "labels" in options and labels is None:
        # The labels that the device was given earlier.
        digests[LABELS] = current["files"][LABELS]
    digest = _content(digests, packages.key)
    now = time.time() if now is None else now
    id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{digest[:8]}"

    # As on the device; the unit is a part of the release.
    system = {TOOL: tool(), RECOVERY: system_file(RECOVERY), SYSUSERS: system_file(SYSUSERS)}
    new_system = {name: content for name, content in system.items() if facts["system"].get(name) != _digest(content)}
    missing_packages = _missing_packages(options, facts, packages)
    changed = bool(
        digest != current.get("digest")
        or current.get("state") != "proved"
        or new_system
        or missing_packages
        or facts["interrupted"]
        or facts["system"].get(UNIT) != digests[UNIT]
    )
    new_environment = packages.key not in facts["environments"]
    wheels = tuple(w for w in packages.wheels if new_environment and w.sha256 not in facts["wheels"])
    new = {name: content for name, content in contents.items() if digests[name] not in facts["files"]}
    sent: dict[str, bytes | Path] = {**new_system, **new, **{f"wheels/{w.name}": w.path for w in wheels}}
    known = {f"wheels/{w.name}": w.sha256 for w in wheels}
    release = {
        "created": round(now, 3),
        "digest": digest,
        "environment": packages.key,
        "files": digests,
        "model": wanted.model.name,
        "model_sha256": digests[next(iter(wanted.models))],
        "edgenn": __version__,
        "by": f"{getpass.getuser()}@{socket.gethostname()}",
    }
    manifest = {
        "release": release,
        "sent": {name: known.get(name) or _digest(content) for name, content in sent.items()},
        "wheels": [[w.name, w.sha256] for w in packages.wheels],
        "warm": _WARM,
    }
    files = {**sent, MANIFEST: json.dumps(manifest).encode()} if changed else {}
    size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())
    unpacked = sum(w.unpacked for w in packages.wheels) if new_environment and changed else 0
    return Plan(
        id=id,
        changed=changed,
        files=tuple(files.items()),
        bytes=size,
        # What is sent is there twice for a moment; byte code adds a fifth.
        room=2 * size + unpacked * 6 // 5,
        system_packages=missing_packages,
        tool=f"{INCOMING}/{id}/{TOOL}" if TOOL in new_system else INSTALLED,
        within=wanted.within,
        options=options,
        wheels=wheels,
    )


def options_for(host: Host, wanted: Wanted, facts: Mapping[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """The device's run.toml, and the file of labels of this machine that it is to have.

    What holds: --source, the inventory, --config, and without that what the device has already. Without anything, its
    own camera.

    Raises:
      EdgennError: it has no camera and nobody named a source, or a value cannot be.
    """
    said = dict(wanted.options) if wanted.options is not None else _toml_of(facts.get("config"))
    # The labels that it has are its own file, not one of this machine.
    kept = wanted.options is None and said.get("labels") is not None
    options = {key.replace("_", "-"): value for key, value in said.items()}
    options.update(host.options)
    if wanted.source is not None:
        options["source"] = wanted.source
    if "source" not in options:
        options["source"] = _own_camera(host, facts)
    labels = None
    if options.get("labels") is not None and not (kept and "labels" not in host.options):
        labels = Path(str(options["labels"])).expanduser()
        if not labels.is_file():
            raise EdgennError(f"{host.name}: there is no file of labels {labels}")
    if "labels" in options:
        options["labels"] = f"{CURRENT}/{LABELS}"
    options["model"] = f"{CURRENT}/{next(iter(wanted.models))}"
    Options.of(options, host.name)
    return options, labels


def toml(options: Mapping[str, Any]) -> bytes:
    """run.toml of options: texts, numbers, truths and lists of these; with a remark beside each, set or not.

    It is what `systemctl status edgenn` names as the service's documentation: whoever has logged in sees what could be
    said here, and how it is said for good.
    """
    rest = dict(options)
    lines = [_HEAD]
    for name, (note, example) in NOTES.items():
        key = name.replace("_", "-")
        lines += textwrap.wrap(note, 118, initial_indent="# ", subsequent_indent="# ")
        lines += [f"{key} = {_toml_value(rest.pop(key))}" if key in rest else f"# {key} = {example}", ""]
    lines += [f"{key} = {_toml_value(rest[key])}" for key in sorted(rest)]
    return ("\n".join(lines).rstrip() + "\n").encode()


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str):
        # A basic string of TOML takes JSON's escapes, and wants DEL escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _toml_of(text: str | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text or "")
    except ValueError:
        return {}


def _own_camera(host: Host, facts: Mapping[str, Any]) -> str:
    if "picamera2" in facts["modules"]:
        return "picamera"
    if "video0" in facts["cameras"]:
        return "/dev/video0"
    raise EdgennError(
        f"{host.name}: no camera was found there: say which with --source (/dev/video0, rtsp://…), or install the Pi "
        "camera's library: sudo apt install -y --no-install-recommends python3-picamera2"
    )


def _missing_packages(options: Mapping[str, Any], facts: Mapping[str, Any], packages: Packages) -> tuple[str, ...]:
    modules = {"python3-numpy": "numpy", "python3-opencv": "cv2", "python3-picamera2": "picamera2"}
    needed = [*packages.system, *(["python3-picamera2"] if options["source"] == "picamera" else [])]
    return tuple(name for name in needed if modules[name] not in facts["modules"])


def _content(digests: Mapping[str, str], environment: str) -> str:
    # A signature has its time in it: signed anew, the same model is the same.
    files = {name: "" if name.endswith(SIGNATURE) else digest for name, digest in digests.items()}
    return hashlib.sha256(json.dumps([environment, files], sort_keys=True).encode()).hexdigest()


def _digest(content: bytes | Path) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()

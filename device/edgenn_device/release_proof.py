"""A release tried in a process of its own, before anything is switched: signature, options, model, golden vectors.

Run by `releases` with the release's own environment, as the service's user. A model that crashes the runtime, or hangs,
does it here and not in the service. It opens no camera, no delegate and no sink.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from .errors import EdgennError

# Public keys of those whose models this device accepts; without the file it accepts any.
ACCEPTED = Path("/etc/edgenn/accept.pub")


def prove(release: Path, accepted: Path = ACCEPTED) -> dict[str, Any]:
    """What the release's model computes here.

    Args:
      release: folder with run.toml and the model that it names.
      accepted: keys of which one must have signed the model, if the file exists.

    Returns:
      {"sha256": of the flatbuffer, as health shows it, or None where only the service can tell, "golden": True, or None
      where the card has no vectors, "runtime"}.

    Raises:
      EdgennError: its options cannot be, or its model is not signed by one of the keys, not usable here, or computes
        something else.
    """
    from . import model_file
    from .classifier import Classifier
    from .options import Options
    from .standby import twin_of

    options = Options.load(release / "run.toml")
    # run.toml names it by way of `current`, which is still the release before.
    path = release / Path(options.model).name
    labels = str(release / Path(options.labels).name) if options.labels else None
    twin = twin_of(path)
    if accepted.exists():
        from .signature import verify

        for file in {path, twin}:
            if file.exists():
                verify(file, file.with_name(file.name + ".sig"), accepted)
    sha256 = None
    try:
        sha256 = hashlib.sha256(model_file.load(path, labels).content).hexdigest()
    except EdgennError:
        # A compiled file may have lost its labels, which the service takes from its twin.
        if twin == path:
            raise
    if not twin.exists():
        return {"sha256": sha256, "golden": None, "runtime": f"delegate {options.delegate}"}
    classifier = Classifier(twin, labels=labels, runtime=options.runtime, threads=options.threads)
    golden = classifier.verify()
    if golden is False:
        raise EdgennError("golden vectors do not match: this device computes something else than the model's card says")
    return {"sha256": sha256, "golden": golden, "runtime": classifier.interpreter.description}


def main() -> int:
    """`python -m edgenn_device.release_proof RELEASE`: one JSON document; {"refused": why} and status 1 if it is no."""
    try:
        said = prove(Path(sys.argv[1]))
    except EdgennError as error:
        said = {"refused": str(error)}
    print(json.dumps(said))
    return 1 if "refused" in said else 0


if __name__ == "__main__":
    sys.exit(main())

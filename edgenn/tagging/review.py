"""A page to look the labels over: the least certain pictures, and a contact sheet of every label.

One HTML file with all pictures in it. Labels that are put right there are downloaded as corrections.json, of which
`corrections` makes folders for the next training. The page sends nothing anywhere and needs no network.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgenn_device.errors import EdgennError
from edgenn_device.files import write_atomically
from edgenn_device.model_file import ModelFile

from .optional import optional
from .reading import picture_bytes
from .records import Tagged

_TEMPLATES = Path(__file__).parent / "templates"
# One sitting of looking; 160 pixels are sharp at the width they are shown on a telephone, about 5 KB each.
MOST_UNCERTAIN = 60
_MOST_ON_A_SHEET = 24
_MOST_ON_ALL_SHEETS = 960
_MOST_ERRORS = 50
_SIDE = 160


@dataclass
class Chosen:
    """What the page shows, chosen in one pass over the records.

    Attributes:
      uncertain: the least certain pictures, least certain first.
      sheets: by label, a sample of its pictures in their order.
      counts: by label, how many there are.
      errors: the first that could not be read; `unreadable` is how many there are.
    """

    uncertain: list[Tagged] = field(default_factory=list)
    sheets: dict[str, list[Tagged]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    errors: list[Tagged] = field(default_factory=list)
    unreadable: int = 0


def choose(records: Iterable[Tagged]) -> Chosen:
    """Choose in bounded memory: a heap of the least certain, and of each label a sample in which every picture is
    equally likely (reservoir sampling: Vitter, "Random sampling with a reservoir", 1985, algorithm R). The same
    records give the same choice."""
    chosen, chance = Chosen(), random.Random(0)
    heap: list[tuple[float, int, Tagged]] = []
    sheets: dict[str, list[tuple[int, Tagged]]] = {}
    for number, record in enumerate(records):
        if record.error or record.confidence is None:
            chosen.unreadable += 1
            if len(chosen.errors) < _MOST_ERRORS:
                chosen.errors.append(record)
            continue
        entry = (-record.confidence, -number, record)
        if len(heap) < MOST_UNCERTAIN:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)
        seen = chosen.counts[record.label] = chosen.counts.get(record.label, 0) + 1
        sheet = sheets.setdefault(record.label, [])
        if seen <= _MOST_ON_A_SHEET:
            sheet.append((number, record))
        elif (place := chance.randrange(seen)) < _MOST_ON_A_SHEET:
            sheet[place] = (number, record)
    chosen.uncertain = [record for *_, record in sorted(heap, key=lambda entry: entry[:2], reverse=True)]
    # A model of a thousand classes gets shorter sheets rather than a page that no browser opens.
    each = max(1, min(_MOST_ON_A_SHEET, _MOST_ON_ALL_SHEETS // max(1, len(sheets))))
    for label in sorted(sheets):
        chosen.sheets[label] = [record for _, record in sorted(sheets[label][:each], key=lambda pair: pair[0])]
    return chosen


@dataclass(frozen=True)
class _Shown:
    record: Tagged
    path: str
    image: bytes


def write_page(page: Path, records: Iterable[Tagged], model: ModelFile) -> None:
    """Write the page.

    Args:
      page: the file; what is there is replaced.
      records: all of a catalogue's.
      model: whose labels are offered.

    Raises:
      EdgennError: Jinja is missing, or the file cannot be written.
    """
    optional("jinja2", "tag", "--review")
    from edgenn.evaluation import report

    chosen = choose(records)
    labels = model.labels or tuple(f"class {index}" for index in range(model.classes))
    total = sum(chosen.counts.values()) + chosen.unreadable
    sheets = [(label, chosen.counts[label], _shown(sheet)) for label, sheet in chosen.sheets.items()]
    html = (
        report.environment(_TEMPLATES)
        .get_template("review.html")
        .render(
            title=f"{total:,} pictures tagged",
            lead=f"{model.path.name} · look over what it was least sure of, put wrong labels right",
            footer="",
            version=_version(),
            model=model.path.name,
            labels=labels,
            uncertain=_shown(chosen.uncertain),
            sheets=sheets,
            errors=chosen.errors,
            unreadable=chosen.unreadable,
        )
    )
    # A file name that is not UTF-8 reaches us as lone surrogates, which no page can hold.
    write_atomically(page, str(html).encode("utf-8", "replace"))


def _shown(records: Iterable[Tagged]) -> list[_Shown]:
    from edgenn.evaluation import report

    shown = []
    for record in records:
        path = record.sorted_to or record.path
        try:
            shown.append(_Shown(record, path, report.thumbnail(picture_bytes(path), _SIDE)))
        except EdgennError:
            continue  # gone since it was tagged
    return shown


def _version() -> str:
    import edgenn

    return edgenn.__version__

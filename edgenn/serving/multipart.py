"""The picture in a multipart form (RFC 7578), as browsers, `curl -F` and requests' `files=` send it.

Works on a whole body, in memory, away from the event loop. A form holds one file; its other fields are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from .limits import Refusal


def is_form(content_type: str | None) -> bool:
    """Whether a Content-Type is that of a multipart form."""
    return (content_type or "").partition(";")[0].strip().lower() == "multipart/form-data"


def picture(body: bytes, content_type: str) -> bytes:
    """The content of the form's only file; of its only field if none is called a file.

    Raises:
      Refusal: 400, the form is malformed or does not hold exactly one picture.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refusal(400, "the form's Content-Type has no boundary: let the HTTP library write it")
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Refusal(400, f"the form is malformed ({' '.join(str(error).split())[:120]})") from None
    if not form.ended:
        raise Refusal(400, "the form ends before its last boundary: send it again")
    found = form.files or form.fields
    if len(found) != 1:
        raise Refusal(400, f"the form holds {len(found)} files: send one picture a request, curl -F image=@photo.jpg")
    return b"".join(found[0])


class _Form:
    """Collects the parts of a form while the parser walks through it."""

    def __init__(self) -> None:
        self.files: list[list[bytes]] = []
        self.fields: list[list[bytes]] = []
        self.ended = False
        self._chunks: list[bytes] = []
        self._name = self._value = b""
        self._is_file = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._last,
        }

    def _begin(self) -> None:
        self._chunks, self._is_file = [], False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(self._value)[1]
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        (self.files if self._is_file else self.fields).append(self._chunks)

    def _last(self) -> None:
        self.ended = True

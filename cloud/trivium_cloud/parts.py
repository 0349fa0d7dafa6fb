"""Which parts does a request hold, and which of a function's inputs are they for?"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from trivium.contract import JSON, Blob, Budget, Input, Schema
from trivium.errors import BadInput, TooLarge
from trivium.hosts import limits, tabular
from trivium.hosts.server import media, web
from trivium.kinds import KINDS
from trivium.nouns import Noun

FORM = "multipart/form-data"
MOST_PARTS = 64
MOST_DEPTH = 32
MOST_FIELD = 256 << 10
"""Bytes of a form's field that is no part, such as its options."""

MOST_PATIENCE_S = 600.0
LONG = 256 << 10
"""Bytes of a body from which on it is read in a thread: meanwhile others are answered."""

MOST_BYTES = {
    "text": 4 * limits.MOST_CHARACTERS,
    "image": media.MOST_BYTES,
    "audio": limits.AUDIO_BYTES,
    "video": limits.VIDEO_BYTES,
    "document": limits.MOST_DOCUMENT,
    **dict.fromkeys(tabular.READ, tabular.MOST_BYTES),
}
_PLURALS = {each if each == "series" else f"{each}s": each for each in KINDS}
SHORT = {each: each for each in KINDS} | _PLURALS
"""Fields that hold parts of one kind: by its name, or by its plural."""

_MEDIA = {"table": tabular.CSV, "series": tabular.CSV, "document": "application/octet-stream"}
_MAGIC = (
    (b"RIFF", 8, b"WAVE", "audio/wav"),
    (b"RIFF", 8, b"AVI ", "video/x-msvideo"),
    (b"ID3", 0, b"", "audio/mpeg"),
    (b"\xff\xfb", 0, b"", "audio/mpeg"),
    (b"\xff\xf3", 0, b"", "audio/mpeg"),
    (b"fLaC", 0, b"", "audio/flac"),
    (b"OggS", 0, b"", "audio/ogg"),
    (b"\xff\xf1", 0, b"", "audio/aac"),
    (b"", 4, b"ftyp", "{kind}/mp4"),
    (b"\x1aE\xdf\xa3", 0, b"", "{kind}/webm"),
)


class Given(Noun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One part as a request holds it: `data` (base64, in MessagePack also bytes) or one other.

    Without `kind` its media type says what it is. `name` is the function's input that it is for.
    """

    kind: Literal["text", "image", "audio", "video", "document", "table", "series"] | None = None
    name: str = ""
    media: str = ""
    data: Any = None
    text: str | None = None
    upload: str | None = None
    url: str | None = None


class Wanted(Noun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request but for its parts by kind; `timeout` is in seconds.

    In time comes the whole answer, or a 504; with `allow_async` the task that it goes on as. With
    `async` the task comes at once, which has `timeout` as its deadline where that is given.
    """

    function: str = ""
    version: str = ""
    parts: tuple[Given, ...] = ()
    options: dict[str, Any] = {}
    budget: Budget = Budget()
    timeout: float | None = None
    allow_async: bool = False
    later: bool = msgspec.field(name="async", default=False)
    webhook: str = ""

    def __post_init__(self) -> None:
        if self.timeout is not None and not 0 < self.timeout <= MOST_PATIENCE_S:
            raise ValueError(
                f"timeout is {self.timeout} s; it must be above 0, and at most {MOST_PATIENCE_S:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part that is there: what it is, what its request calls it, and its bytes or text."""

    where: str
    kind: str
    name: str
    value: str | Blob


def read(body: bytes, form: str) -> tuple[Wanted, list[tuple[str, Given]]]:
    """Return what a body of JSON or MessagePack wants, and its parts with where they stand."""
    name = "JSON" if form == JSON else "MessagePack"
    if not body:
        raise BadInput(f"the body is empty; it should be a request as {form}")
    try:
        raw = (msgspec.json.decode if form == JSON else msgspec.msgpack.decode)(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the {name} is damaged: {error}") from error
    except (ValueError, OverflowError) as error:  # such as a year that no calendar has
        raise BadInput(f"the {name} holds what has no value: {error}") from error
    if not isinstance(raw, dict):
        raise BadInput(f"the {name} is no object")
    shallow(raw)
    return sorted_out(raw, name)


def shallow(value: object, depth: int = MOST_DEPTH) -> None:
    """Raise BadInput for what is nested deeper than allowed."""
    if not isinstance(value, dict | list):
        return
    if not depth:
        raise BadInput(f"the request is nested deeper than {MOST_DEPTH}")
    for each in value.values() if isinstance(value, dict) else value:
        shallow(each, depth - 1)


def sorted_out(raw: dict[Any, Any], name: str) -> tuple[Wanted, list[tuple[str, Given]]]:
    """Return the request in a mapping, and its parts in their order."""
    listed: list[tuple[str, str, Any]] = []
    rest: dict[Any, Any] = {}
    for key, value in raw.items():
        kind = SHORT.get(key) if isinstance(key, str) else None
        if kind is None:
            rest[key] = value
        elif value is not None:
            values = value if isinstance(value, list) else [value]
            if len(values) == 1:
                listed.append((key, kind, values[0]))
            else:
                listed += [(f"{key}[{i}]", kind, each) for i, each in enumerate(values)]
        if len(listed) > MOST_PARTS:
            break
    try:
        wanted = msgspec.convert(rest, Wanted)
        if len(listed) + len(wanted.parts) > MOST_PARTS:
            raise TooLarge(f"the request has more than {MOST_PARTS} parts")
        parts = [(where, shorthand(where, kind, value)) for where, kind, value in listed]
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise BadInput(f"the {name} is not a valid request: {error}") from error
    parts += [(f"parts[{i}]", each) for i, each in enumerate(wanted.parts)]
    return wanted, parts


def shorthand(where: str, kind: str, value: Any) -> Given:
    """Return a part that stands under its kind: an object, a text, base64, or an address."""
    if isinstance(value, dict):
        if "kind" in value:
            raise BadInput(f"{where} is {kind} already; leave out its kind")
        return msgspec.convert({**value, "kind": kind}, Given)
    if isinstance(value, bytes):
        return msgspec.convert({"kind": kind, "data": value}, Given)
    if not isinstance(value, str):
        raise BadInput(f"{where} is {type(value).__name__}; it must be a string or an object")
    address, colon, upload = value[:2048].partition(":")
    source = "data"
    if kind != "text" and colon and address in ("http", "https"):
        source = "url"
    elif kind != "text" and colon and address == "upload":
        source, value = "upload", upload
    elif kind == "text" or (kind in tabular.READ and address != "data"):
        source = "text"
    return msgspec.convert({"kind": kind, source: value}, Given)


def unwrapped(where: str, data: object, most: int) -> Blob:
    """Return bytes that are written as base64, or as a data URL; refused before they are decoded.

    Raises:
        TooLarge: they would be more than `most` bytes.
        BadInput: they are written otherwise.
    """
    stated = ""
    if isinstance(data, str):
        text: str | bytes = data
        if data[:5] == "data:":
            head, comma, text = data[5:].partition(",")
            stated, *words = (each.strip().lower() for each in head[:1024].split(";"))
            if not comma:
                raise BadInput(f"{where} is no data URL: it has no comma")
            if "base64" not in words:
                if len(text) > 3 * most:
                    raise TooLarge(f"{where} is larger than {most} bytes")
                try:
                    data = unquote_to_bytes(text)
                except UnicodeError as error:
                    raise BadInput(f"{where} is no data URL: {str(error)[:100]}") from error
        if isinstance(data, str):
            if len(text) // 4 * 3 > most + 3:
                raise TooLarge(
                    f"{where} has {len(text)} characters of base64; "
                    f"at most {most} bytes are allowed"
                )
            try:
                data = binascii.a2b_base64(text, strict_mode=True)
            except (binascii.Error, ValueError) as error:
                raise BadInput(f"{where} is no base64: {str(error)[:100]}") from error
    if not isinstance(data, bytes):
        raise BadInput(f"{where} has data that is {type(data).__name__}, not base64 or bytes")
    if len(data) > most:
        raise TooLarge(f"{where} has {len(data)} bytes; at most {most} are allowed")
    return Blob(media=stated, data=data)


def typed(where: str, kind: str | None, name: str, stated: str, data: bytes) -> Piece:
    """Return the part that bytes are, of a kind that their media type allows."""
    stated = stated.partition(";")[0].strip().lower()
    if len(stated) > 127 or not stated.isascii() or not stated.isprintable():
        raise BadInput(f"{where} has the media type {stated[:60]!r}, which is none")
    kind = kind or kind_of(stated)
    most = MOST_BYTES[kind]
    if len(data) > most:
        raise TooLarge(f"{where} has {len(data)} bytes; at most {most} are allowed")
    if kind == "text":
        try:
            return Piece(where=where, kind=kind, name=name, value=data.decode())
        except UnicodeDecodeError as error:
            raise BadInput(f"{where} is not UTF-8: {error.reason} at byte {error.start}") from None
    if kind in ("image", "audio", "video") and stated in ("", "application/octet-stream"):
        stated = sniffed(kind, data)
        if not stated:
            raise BadInput(f"{where} begins like no {kind} that is taken; say its media")
    stated = stated or _MEDIA[kind]
    taken = web.TAKEN[kind]
    if web.ANY not in taken and stated not in taken:
        raise BadInput(
            f"{where} is {stated!r}, which is no {kind} that is taken: {', '.join(taken)}"
        )
    return Piece(where=where, kind=kind, name=name, value=Blob(media=stated, data=data))


def kind_of(stated: str) -> str:
    """Return the kind that a media type speaks of; what it does not tell is a document."""
    begun = stated.partition("/")[0]
    if begun in ("image", "audio", "video"):
        return begun
    return {"text/plain": "text", tabular.CSV: "table"}.get(stated, "document")


def sniffed(kind: str, data: bytes) -> str:
    """Return the media type by the first bytes, or nothing."""
    head = data[:16]
    if kind == "image":
        found = limits.drawable(head)
        return found if found in media.IMAGES else ""
    for start, place, mark, stated in _MAGIC:
        if head.startswith(start) and head.startswith(mark, place):
            return stated.format(kind=kind)
    return ""


def by_name(pieces: Sequence[Piece]) -> dict[str, str | Blob]:
    """Return the parts by name, or by kind: for a function that only others know."""
    found: dict[str, str | Blob] = {}
    for each in pieces:
        name = each.name or each.kind
        if name in found:
            raise BadInput(f"{each.where} is a second {name}; name the parts by the inputs")
        found[name] = each.value
    return found


def assigned(schema: Schema, pieces: Sequence[Piece]) -> dict[str, str | Blob]:
    """Return the parts by the function's inputs: first those with a name, then by kind in order.

    A file that no input of its kind takes goes to one that takes any document.
    """
    found: dict[str, str | Blob] = {}
    takers = {each.name: each for each in schema.inputs}
    takes = ", ".join(described(each) for each in schema.inputs) or "no parts"
    for piece in sorted(pieces, key=lambda piece: not piece.name):
        if piece.name:
            taker = takers.get(piece.name)
            if taker is None or not fits(taker, piece):
                raise BadInput(
                    f"{piece.where} is {piece.kind} for the input {piece.name[:60]!r}; "
                    f"{schema.name} takes: {takes}"
                )
        else:
            free = [each for each in schema.inputs if room(each, found)]
            taker = next((each for each in free if each.kind == piece.kind), None)
            taker = taker or next((each for each in free if fits(each, piece)), None)
            if taker is None:
                raise BadInput(
                    f"{piece.where} is {piece.kind}, which {schema.name} has no room for; "
                    f"it takes: {takes}"
                )
        name, value = taker.name, piece.value
        if not room(taker, found):
            raise BadInput(
                f"{piece.where} is {name} number {(taker.many or 1) + 1}; "
                f"{schema.name} takes: {takes}"
            )
        if taker.many:
            name = f"{name}.{len(taker.places(found))}"
        if taker.kind == "document" and isinstance(value, str):
            value = Blob(media="text/plain", data=value.encode("utf-8", "replace"))
        found[name] = value
    missing = [each for each in schema.inputs if not each.places(found)]
    if missing:
        raise BadInput(
            f"{schema.name} needs {', '.join(described(each) for each in missing)}; "
            f"the request has: {', '.join(each.kind for each in pieces) or 'no parts'}"
        )
    return found


def described(taker: Input) -> str:
    """Return an input for messages: its name, its kind, and how many where that is not one."""
    return f"{taker.name} ({f'1 to {taker.many} of ' if taker.many else ''}{taker.kind})"


def fits(taker: Input, piece: Piece) -> bool:
    """Return whether an input takes a part: a document is any file, and so is a text."""
    return taker.kind in (piece.kind, "document") or (
        piece.kind == "text" and taker.kind in tabular.READ
    )


def room(taker: Input, found: Mapping[str, object]) -> bool:
    """Return whether an input takes one more value than there are."""
    return len(taker.places(found)) < (taker.many or 1)


async def read_form(request: web.Incoming, boundary: str) -> tuple[Wanted, list[tuple[str, Given]]]:
    """Return the request in a form: fields, and files under a kind's or an input's name."""
    if not 0 < len(boundary) <= 70:
        raise BadInput("the form's boundary must have 1 to 70 characters")
    raw: dict[str, Any] = {}
    files: list[tuple[str, Given]] = []
    try:
        parser = PushMultipartParser(boundary, max_segment_count=MOST_PARTS + len(_FIELDS))
        segment: MultipartSegment | None = None
        data = bytearray()
        async for chunk in request.pieces():
            for event in parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    segment, data = event, bytearray()
                elif event is not None:
                    data += event
                    if segment is not None and segment.name in _FIELDS and len(data) > MOST_FIELD:
                        raise TooLarge(f"the field {segment.name} is above {MOST_FIELD} bytes")
                elif segment is not None:
                    _field(segment, bytes(data), raw, files)
                    segment = None
        parser.close()
    except ParserLimitReached as error:
        raise TooLarge(
            f"the form is above a limit: {error}; it may have {MOST_PARTS} parts"
        ) from error
    except (MultipartError, UnicodeError, LookupError) as error:
        raise BadInput(f"the form is damaged: {str(error)[:200]}") from error
    wanted, parts = sorted_out(raw, "form")
    if len(parts) + len(files) > MOST_PARTS:
        raise TooLarge(f"the form has more than {MOST_PARTS} parts")
    return wanted, [*files, *parts]


def _field(
    segment: MultipartSegment, data: bytes, raw: dict[str, Any], files: list[tuple[str, Given]]
) -> None:
    """Take in one segment of a form: a field of the request, or a part."""
    name = segment.name or ""
    reader = _FIELDS.get(name)
    stated = segment.content_type or ""
    if reader is not None:
        if name in raw:
            raise BadInput(f"the form has the field {name} twice")
        try:
            raw[name] = reader(data.decode())
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise BadInput(f"the form's field {name} is not valid: {str(error)[:200]}") from error
        shallow(raw[name])
    elif segment.filename is None and not stated and name in SHORT:
        try:
            raw.setdefault(name, []).append(data.decode())
        except UnicodeDecodeError as error:
            raise BadInput(f"the form's field {name} is not UTF-8") from error
    else:
        # What has a file's name, or says its type, is a file, even if curl guessed none.
        kind = SHORT.get(name) or kind_of(stated)
        own = "" if name in SHORT or name in ("file", "files", "part", "parts") else name
        files.append(
            (
                f"the form's {name[:60]!r}",
                msgspec.convert({"kind": kind, "name": own, "media": stated, "data": data}, Given),
            )
        )


def _json(text: str) -> Any:
    return msgspec.json.decode(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false", "1", "0"):
        raise ValueError(f"{text[:20]!r} is neither true nor false")
    return text in ("true", "1")


_FIELDS: Mapping[str, Callable[[str], Any]] = {
    "function": str,
    "version": str,
    "options": _json,
    "budget": _json,
    "parts": _json,
    "timeout": float,
    "allow_async": _flag,
    "async": _flag,
    "webhook": str,
}

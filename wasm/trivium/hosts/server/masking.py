"""What is hidden before anybody else reads it: in logs, spans, errors, and results by policy?

What tells of a person becomes `[name]`, `[phone]` and so on. Numbers, vectors and the shape of data
stay as they are.
"""

from __future__ import annotations

import logging
import re
import tomllib
import traceback
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .personal import KINDS, found

T = TypeVar("T")

MOST_TEXT = 4 << 20
"""Characters of one text that are looked at; what is longer is hidden altogether."""

MOST_DEPTH = 64
MOST_PATTERNS = 100
MOST_WAYS = 4096
"""In so many ways a pattern of a file may match at one place, at most."""

PASSES = 4

_OPAQUE = re.compile(r"[A-Za-z0-9+/=_-]{512,}")
_TAG = re.compile(r"\((?:[0-9A-Fa-f]{4}), ?(?:[0-9A-Fa-f]{4})\)|[0-9A-Fa-f]{8}")
_UNTOLD = ("00100040", "00101010", "00101020", "00101030")
"""DICOM's fields of a patient that tell of nobody: sex, age, size and weight."""

_NAMES = {
    "name": """
        patientname otherpatientnames patientbirthname patientmothersbirthname
        patientmotherbirthname referringphysicianname performingphysicianname operatorsname
        requestingphysician physiciansofrecord firstname lastname fullname givenname familyname
        surname 姓名 患者姓名 联系人 收件人 00080090 00081050 00081070 00100010 00101005
        00101060""",
    "id": """
        patientid otherpatientids medicalrecordlocator accessionnumber mrn ssn idcard idnumber
        passport passportnumber nationalid 身份证 身份证号 身份证号码 护照号 病历号 住院号 门诊号
        医保卡号 00080050 00100020 00101000""",
    "date": "patientbirthdate birthdate dateofbirth dob 出生日期 生日 00100030",
    "address": "patientaddress homeaddress streetaddress 地址 住址 家庭住址 00101040",
    "phone": """
        patienttelephonenumbers phone phonenumber telephone mobile mobilenumber 电话 手机 手机号
        联系电话 00102154""",
    "email": "email emailaddress 邮箱 电子邮件",
    "card": "creditcard cardnumber 银行卡号 卡号",
    "iban": "iban",
    "secret": "password secret apikey accesstoken authorization 密码",
}
_FIELDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}

log = logging.getLogger("trivium.masking")


class Masker:
    """Hides what tells of a person, and what the patterns of a file find besides.

    The file is TOML, `[[patterns]]` with `name` and `pattern`, a regular expression without
    back-references and look-around, whose repeats are bounded. Raises ValueError for another one.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._own = _patterns(file) if file is not None else []

    def text(self, text: str) -> str:
        """Return a text with all of that hidden; hidden again it stays the same."""
        if len(text) > MOST_TEXT:
            return f"[{len(text)} characters]"
        for _ in range(PASSES):  # what was hidden may have parted what now reads as a name
            hidden = self._once(text)
            if hidden == text:
                break
            text = hidden
        return text

    def data(self, value: T) -> T:
        """Return data with the texts in it hidden, and what stands under a person's field."""
        hidden: T = self._data(value, 0)
        return hidden

    def output(self, value: T) -> T:
        """Return what a function gave with all of that hidden, also where it gave it in pieces."""
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            # Pieces of one text, maybe, with a name in two of them.
            whole = "".join(value)
            if (hidden := self.text(whole)) != whole:
                return [hidden]  # type: ignore[return-value] # a list of texts, as it was
        return self.data(value)

    def _once(self, text: str) -> str:
        places = sorted([*found(text), *self._found(text)], key=lambda each: (each[0], -each[1]))
        if not places:
            return text
        pieces, at = [], 0
        for start, end, kind in places:
            if start < at or start >= end or text[start:end] == f"[{kind}]":
                continue
            pieces += [text[at:start], f"[{kind}]"]
            at = end
        return "".join([*pieces, text[at:]])

    def _found(self, text: str) -> list[tuple[int, int, str]]:
        return [
            (match.start(), match.end(), name)
            for name, pattern in self._own
            for match in pattern.finditer(text)
            if f"[{name}]" not in match[0]
        ]

    def _data(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return value if _OPAQUE.fullmatch(value) else self.text(value)
        if depth > MOST_DEPTH:
            return value
        if isinstance(value, dict):
            return {key: self._field(key, each, depth) for key, each in value.items()}
        if isinstance(value, list):
            if value and isinstance(value[0], float | int):
                return value  # a vector: nothing in it is a text
            return [self._data(each, depth + 1) for each in value]
        if isinstance(value, tuple):
            return tuple(self._data(each, depth + 1) for each in value)
        if isinstance(value, msgspec.Struct):
            new = {
                name: self._field(name, getattr(value, name), depth)
                for name in value.__struct_fields__
            }
            changed = {name: each for name, each in new.items() if each is not getattr(value, name)}
            return msgspec.structs.replace(value, **changed) if changed else value
        return value

    def _field(self, key: object, value: Any, depth: int) -> Any:
        kind = _kind(key) if isinstance(key, str) else None
        return self._data(value, depth + 1) if kind is None else _hidden(value, kind, depth)


def _kind(key: str) -> str | None:
    if len(key) > 64:
        return None
    tag = re.sub(r"[(), ]", "", key).upper() if _TAG.fullmatch(key) else ""
    if tag.startswith("0010") and tag not in _UNTOLD:
        return _FIELDS.get(tag, "patient")
    return _FIELDS.get(tag or re.sub(r"[^0-9a-z\u4e00-\u9fff]", "", key.lower()))


def _hidden(value: Any, kind: str, depth: int) -> Any:
    """Return data of the same shape without what is in it."""
    if value is None or isinstance(value, bool) or depth > MOST_DEPTH:
        return value
    if isinstance(value, dict):
        return {
            key: each if key == "vr" else _hidden(each, kind, depth + 1)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_hidden(each, kind, depth + 1) for each in value)
    return f"[{kind}]"


def _patterns(file: Path) -> list[tuple[str, re.Pattern[str]]]:
    found: list[tuple[str, re.Pattern[str]]] = []
    listed = tomllib.loads(file.read_text()).get("patterns", [])
    if not isinstance(listed, list) or len(listed) > MOST_PATTERNS:
        raise ValueError(f"{file} has no list of at most {MOST_PATTERNS} [[patterns]]")
    for each in listed:
        name, pattern = each.get("name"), each.get("pattern")
        if not isinstance(name, str) or not re.fullmatch(r"[a-z]{1,20}", name):
            raise ValueError(f"{file}: a pattern's name is {name!r}; it has 1 to 20 letters a-z")
        if not isinstance(pattern, str) or len(pattern) > 1000:
            raise ValueError(f"{file}: the pattern of {name} is no text of at most 1000 characters")
        try:
            compiled = re.compile(pattern)
            count = ways(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{file}: the pattern of {name} is not valid: {error}") from error
        if compiled.match("") or count > MOST_WAYS:
            raise ValueError(
                f"{file}: the pattern of {name} may match nothing, or in over {MOST_WAYS} ways; "
                "bound its repeats, such as [0-9]{6,8}"
            )
        found.append((name, compiled))
    return found


def ways(pattern: str) -> int:
    """Return in how many ways a pattern may match at one place: a bound on all that it may cost.

    Raises re.error for what is not counted: back-references, look-around, endless repeats.
    """
    from re import _parser  # type: ignore[attr-defined] # no public way to a pattern's tree

    return _ways(_parser.parse(pattern))


def _ways(tree: Any) -> int:
    product = 1
    for kind, what in tree:
        name = str(kind)
        if name in ("LITERAL", "NOT_LITERAL", "IN", "ANY", "AT", "CATEGORY", "RANGE"):
            continue
        if name == "SUBPATTERN":
            product *= _ways(what[-1])
        elif name == "BRANCH":
            product *= sum(_ways(each) for each in what[1])
        elif name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, body = what
            if int(most) > 1000:
                raise re.error("a repeat has no bound of at most 1000")
            inner = _ways(body)
            product *= sum(min(inner, 1 << 20) ** min(each, 64) for each in range(least, most + 1))
        else:
            raise re.error(f"{name.lower()} is not allowed")
        if product > MOST_WAYS:
            return product
    return product


_current = Masker()
_installed = False


def install(masker: Masker) -> None:
    """Hide by this masker, in every record that any logger of this process makes, too."""
    global _current, _installed  # a process has one way to make records
    _current = masker
    if _installed:
        return
    _installed, make = True, logging.getLogRecordFactory()

    def hidden(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _hide(make(*args, **kwargs), _current)

    logging.setLogRecordFactory(hidden)


def current() -> Masker:
    """Return the masker of this process."""
    return _current


def _hide(record: logging.LogRecord, masker: Masker) -> logging.LogRecord:
    try:
        if record.name == "uvicorn.access" and isinstance(record.args, tuple):
            # Its formatter takes the arguments apart.
            record.args = tuple(
                masker.text(each) if isinstance(each, str) else each for each in record.args
            )
        else:
            record.msg, record.args = masker.text(record.getMessage()), ()
        if record.exc_info and record.exc_info[0] is not None:
            lines = traceback.format_exception(*record.exc_info)
            record.exc_text = masker.text("".join(lines).rstrip())
    except Exception as error:  # a log call must not fail, nor tell what was to be hidden
        record.msg, record.args = f"a record that can't be masked ({type(error).__name__})", ()
        record.exc_info = None
    return record


assert set(_FIELDS.values()) <= set(KINDS)

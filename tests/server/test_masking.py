"""What is hidden, and what must stay as it is."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.contract import Tier
from trivium.hosts.server import masking
from trivium.hosts.server.masking import MOST_TEXT, Masker, ways
from trivium.hosts.server.telemetry import Tail
from trivium.nouns import Label
from trivium.trace import Span

MASK = Masker()
PERSON = "Dear Ms. Hannah Weiss, call +44 20 7946 0958 or h.weiss@example.co.uk"
HIDDEN = "Dear [name], call [phone] or [email]"

PIECES = (
    "Dr. |Mr |Anna|Weiss|患者|姓名:|张伟|先生|,|13800138000|4111 1111 1111 1111|a@b.example|[name]"
    "|[|]| |\n|: |name|phone|0|1|-|(0010,0010) |^|DE89 3704 0044 0532 0130 00|eyJhbGci.a.b|tel"
)
texts = st.text(max_size=300) | st.lists(st.sampled_from(PIECES.split("|")), max_size=30).map(
    "".join
)


def test_a_text_keeps_what_is_nobody_s() -> None:
    """The rest of it stays, letter by letter."""
    assert MASK.text(PERSON) == HIDDEN
    assert MASK.text("患者张伟。电话13800138000") == "患者[name]。电话[phone]"
    for plain in ("", "hello", "12.3 ms at the edge", "0.1234567, -1e-7, 9876543210"):
        assert MASK.text(plain) == plain


@given(texts)
@settings(max_examples=400)
def test_hidden_once_is_hidden(text: str) -> None:
    """A second time changes nothing, and the text stays within bounds."""
    once = MASK.text(text)
    assert MASK.text(once) == once
    assert len(once) <= 9 * len(text) + 9


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """Return what must not change: everything but texts."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items() if masking._kind(key) is None}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "" if isinstance(value, str) else value


@given(json_values)
def test_data_keep_their_shape(value: Any) -> None:
    """Keys, numbers, lengths and order; nothing is raised, and twice is once."""
    hidden = MASK.data(value)
    assert shape(hidden) == shape(value)
    assert MASK.data(hidden) == hidden


def test_vectors_and_files_stay() -> None:
    """The very same objects: they may be large."""
    vector = [0.1] * 384
    packed = "QUJD" * 1000
    assert MASK.data(vector) is vector
    assert MASK.data({"a": packed, "b": b"13800138000"}) == {"a": packed, "b": b"13800138000"}


def test_fields_of_a_person_are_hidden_whole() -> None:
    """By their names, as programs and DICOM write them; others keep what is nobody's."""
    study = {
        "PatientName": "DOE^JANE",
        "patient_id": 12345,
        "PatientSex": "F",
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "(0010,0030)": "19700101",
        "(0010,1010)": "054Y",
        "Rows": 512,
        "report": {"text": "Seen by Dr. Kofi Mensah", "email": None, "Phone number": "x"},
        "姓名": "张伟",
    }
    assert MASK.data(study) == {
        "PatientName": "[name]",
        "patient_id": "[id]",
        "PatientSex": "F",
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "[name]"}]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "(0010,0030)": "[date]",
        "(0010,1010)": "054Y",
        "Rows": 512,
        "report": {"text": "Seen by Dr. [name]", "email": None, "Phone number": "[phone]"},
        "姓名": "[name]",
    }


def test_nouns_stay_nouns() -> None:
    """A label is a label, and the same one if there is nothing to hide."""
    plain = Label(label="golden retriever", score=0.97)
    assert MASK.data(plain) is plain
    hidden = MASK.data([Label(label="Mr. Singh", score=0.5)])
    assert hidden == [Label(label="Mr. [name]", score=0.5)]


def test_depth_and_length_are_bounded() -> None:
    """What is too long to be looked at is not shown."""
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    MASK.data(deep)
    assert MASK.text("a" * (MOST_TEXT + 1)) == f"[{MOST_TEXT + 1} characters]"


def written(tmp_path: Path, *patterns: tuple[str, str]) -> Path:
    """Return a file of patterns."""
    path = tmp_path / "patterns.toml"
    path.write_text(
        "".join(
            f"[[patterns]]\nname = '{name}'\npattern = '''{text}'''\n" for name, text in patterns
        )
    )
    return path


def test_a_file_adds_patterns(tmp_path: Path) -> None:
    """Beside those that are there."""
    own = Masker(written(tmp_path, ("locker", "L-[0-9]{6}"), ("ward", "ward (A|B|C)[0-9]{1,3}")))
    assert own.text(f"see L-123456 in ward C12. {PERSON}") == f"see [locker] in [ward]. {HIDDEN}"


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a{1,30}){1,30}b", "[0-9]{0,64}[0-9]{0,64}[0-9]{0,64}x", r"(a)\1", "(?=a)b", "a*",
     "a{3,}", "(", "", "x{0,3}", "(a|aa){1,20}b", "a" * 1001],
)  # fmt: skip
def test_a_pattern_that_could_take_for_ever_is_refused(tmp_path: Path, pattern: str) -> None:
    """Before it meets a text; so is one that finds nothing at all everywhere."""
    with pytest.raises(ValueError, match="the pattern of own"):
        Masker(written(tmp_path, ("own", pattern)))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """With what is wrong in it."""
    with pytest.raises(ValueError, match="1 to 20 letters a-z"):
        Masker(written(tmp_path, ("Own!", "abc")))
    (tmp_path / "none.toml").write_text("patterns = 1")
    with pytest.raises(ValueError, match="no list of at most"):
        Masker(tmp_path / "none.toml")
    assert ways("[0-9]{6,8}(a|bc)d?") == 3 * 2 * 2


@pytest.fixture
def out() -> io.StringIO:
    """Return where a logger of its own writes."""
    masking.install(Masker())
    logger = logging.getLogger("trivium.test_masking")
    logger.handlers[:] = [logging.StreamHandler(stream := io.StringIO())]
    logger.setLevel(logging.INFO)
    return stream


def test_every_record_is_hidden(out: io.StringIO) -> None:
    """Its message, its arguments and its traceback, whoever logs and whatever handles it."""
    log = logging.getLogger("trivium.test_masking")
    log.info("asked by %s", PERSON)
    log.info("%(who)s", {"who": PERSON})
    try:
        raise ValueError(PERSON)
    except ValueError as error:
        log.info("failed: %s", error)
        log.exception("failed")
    text = out.getvalue()
    assert text.count(HIDDEN) >= 4
    assert "Weiss" not in text
    assert "ValueError" in text


def test_a_log_call_never_fails(out: io.StringIO) -> None:
    """Nor tells what it should not have, if a record is broken."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError(PERSON)

    log = logging.getLogger("trivium.test_masking")
    log.info("%s", Bad())
    log.info("%d", "x")
    log.info("one %s %s", 1)
    assert out.getvalue().count("a record that can't be masked") == 3
    assert "Weiss" not in out.getvalue()


def test_uvicorn_s_access_log_keeps_its_form() -> None:
    """Its formatter takes five arguments apart."""
    masking.install(Masker())
    arguments = ("127.0.0.1:1", "GET", "/v1/tasks?q=a@b.example", "1.1", 200)
    record = logging.getLogger("uvicorn.access").makeRecord(
        "uvicorn.access", logging.INFO, "f", 1, '%s - "%s %s HTTP/%s" %d', arguments, None
    )
    assert record.args == ("127.0.0.1:1", "GET", "/v1/tasks?q=[email]", "1.1", 200)


def test_spans_that_are_kept_are_hidden() -> None:
    """Whoever takes them: what a page or a function wrote into one may be anybody's."""
    span = Span(
        name="infer text.count",
        service=Tier.EDGE,
        trace_id="0" * 31 + "1",
        span_id="0" * 15 + "1",
        start_ns=1,
        end_ns=2,
        attributes={"trivium.tier": "edge", "note": PERSON, "ms": 1234567890.5},
        error=PERSON,
    )
    taken: list[Any] = []
    tail = Tail(taken.append)
    tail([span])
    tail.close()
    (kept,) = taken[0].spans
    assert (kept.attributes, kept.error) == (
        {"trivium.tier": "edge", "note": HIDDEN, "ms": 1234567890.5},
        HIDDEN,
    )


def test_structs_and_json_are_alike() -> None:
    """Data masked before or after they were sent are the same."""
    label = Label(label="Mr. Singh", score=0.5)
    plain = msgspec.to_builtins(label)
    assert msgspec.to_builtins(MASK.data(label)) == MASK.data(plain)


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_servers_hide_in_their_logs(tmp_path: Path, tier: str) -> None:
    """From the moment that the application is made."""
    code = (
        f"import logging; from trivium_{tier}.app import create_app; create_app(); "
        "logging.getLogger('any').warning('write to %s', 'a.weiss@b.example')"
    )
    prefix = f"TRIVIUM_{tier.upper()}_"
    # Nothing of this machine's own is read or written.
    mine = {f"{prefix}BUNDLES": str(tmp_path), f"{prefix}TRUST": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **mine},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "write to [email]" in done.stderr

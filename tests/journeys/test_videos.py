"""Do edge and cloud answer videos over HTTP, in every form, and refuse bad ones?"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import videos
from servers import Servers, serving
from trivium.contract import MSGPACK

ZOO = Path("models/zoo")
KEYS = Path(".trivium/keys")
PATH = "/v1/infer/video.describe"
SAMPLE = ZOO / "video.describe/sample.webm"
WEBM = {"content-type": "video/webm"}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """The built-in functions, at both."""
    with serving([ZOO], trust=[KEYS]) as made:
        yield made


@pytest.mark.parametrize("room", ["edge", "cloud"])
def test_a_video_is_taken_in_every_form(servers: Servers, room: str) -> None:
    """Raw, in JSON and in MessagePack: the same scenes, where the cuts are."""
    data = SAMPLE.read_bytes()
    blob = {"media": "video/webm", "data": base64.b64encode(data).decode()}
    options = {"frames": 12, "listen": False}
    packed = {"inputs": {"video": {"media": "video/webm", "data": data}}, "options": options}
    sent: list[dict[str, Any]] = [
        {"content": data, "headers": WEBM, "params": {"frames": 12, "listen": "false"}},
        {"json": {"inputs": {"video": blob}, "options": options}},
        {"content": msgspec.msgpack.encode(packed), "headers": {"content-type": MSGPACK}},
    ]
    found = []
    for request in sent:
        response = getattr(servers, room).send("POST", PATH, **request)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["tier"] == room
        found.append(answer["output"])
    assert found[0] == found[1] == found[2]
    assert [each["start"] for each in found[0]["timeline"]] == pytest.approx([0, 4, 8], abs=0.05)


@pytest.mark.parametrize("name", videos.bad())
def test_bad_videos_are_refused(servers: Servers, name: str) -> None:
    """With a code that stays, and a sentence that says what is allowed or wrong."""
    blob, code = videos.bad()[name]
    headers = {"content-type": blob.media}
    response = servers.edge.send("POST", PATH, content=blob.data, headers=headers)
    assert response.status_code == {"bad_input": 400, "too_large": 413}[code]
    error = response.json()
    assert error["code"] == code
    assert error["detail"]

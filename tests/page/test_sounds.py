"""Are a sound's samples in the page those that servers decode?"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import page.bundles as bundles
import sounds
from page.gateway import Gateway
from page.opened import Opened
from trivium.contract import Blob
from trivium.errors import TriviumError
from trivium.hosts.server.audio import samples

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with a function that gives the very samples."""
    served = Gateway(dict([bundles.heard()]))
    page = headless.new_page()
    yield Opened(page, served).ready("audio.heard")
    page.close()
    served.close()


def send(opened: Opened, blob: Blob, **options: float) -> Any:
    data = {"media": blob.media, "data": base64.b64encode(blob.data).decode()}
    return opened.ask("audio.heard", audio=data, options=options, tiers=["page"])


def heard(opened: Opened, blob: Blob, **options: float) -> sounds.Floats:
    """Return what the page decodes."""
    output = send(opened, blob, **options)["output"]
    return np.frombuffer(base64.b64decode(output["data"]), np.float32)


def served(blob: Blob) -> sounds.Floats:
    return np.frombuffer(samples(blob).data, np.float32)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [4000, 8000, 11_025, 16_000, 22_050, 44_100, 44_101, 96_000])
def test_rates(opened: Opened, rate: int, channels: int) -> None:
    """Uncompressed sound is the servers' to 1e-5, at every rate, from end to end."""
    blob = sounds.saved("audio/wav", sounds.tones(rate, 1.3), rate, channels)
    assert np.abs(heard(opened, blob) - served(blob)).max() < 1e-5


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_widths(opened: Opened, codec: str) -> None:
    """So it is for samples of every width."""
    blob = sounds.saved("audio/wav", sounds.tones(44_100), 44_100, codec=codec)
    assert np.abs(heard(opened, blob) - served(blob)).max() < 1e-5


@pytest.mark.parametrize("media", [each for each in sounds.FORMS if each != "audio/wav"])
def test_formats(opened: Opened, media: str) -> None:
    """FLAC is the same; what was compressed with loss is the same sound at the same time."""
    blob = sounds.saved(media, sounds.tones(48_000), 48_000, 2)
    found, wanted = heard(opened, blob), served(blob)
    if media == "audio/flac":
        assert np.abs(found - wanted).max() < 1e-5
        return
    assert abs(len(found) - len(wanted)) < 1600
    size = min(len(found), len(wanted))
    spectrum = np.fft.rfft(found[:size]) * np.conj(np.fft.rfft(wanted[:size]))
    shift = int(np.argmax(np.fft.irfft(spectrum, size)))
    assert min(shift, size - shift) < 1600
    assert abs(found.std() / wanted.std() - 1) < 0.02


def test_parts(opened: Opened) -> None:
    """A function cuts a sound that stays in JavaScript."""
    blob = sounds.saved("audio/wav", sounds.tones(16_000), 16_000)
    part = heard(opened, blob, start=0.5, end=1.25)
    assert np.array_equal(part, served(blob)[8000:20_000])


@pytest.mark.parametrize(("blob", "code"), sounds.bad().values(), ids=list(sounds.bad()))
def test_bad_sounds(opened: Opened, blob: Blob, code: str) -> None:
    """Bad sounds are refused with the code that servers give."""
    with pytest.raises(TriviumError) as refused:
        samples(blob)
    found = send(opened, blob)
    assert found["code"] == refused.value.code == code


def test_ten_hours_are_refused_before_they_are_decoded(opened: Opened) -> None:
    """As are an hour and more whose times say that they are a second."""
    for blob in (sounds.hours(10.0), sounds.hours(1.1, step=1)):
        found = send(opened, blob)
        assert found["code"] == "too_large"
        assert "lasts more than 3600 seconds; at most 3600 are allowed" in found["message"]


def test_a_wrong_length_in_an_mp3_is_of_no_weight(opened: Opened) -> None:
    """What is decoded counts."""
    assert len(heard(opened, sounds.misstated())) > 30_000


@pytest.mark.parametrize("case", ["no rate", "no channels", "many channels"])
def test_a_wrong_head_is_told(opened: Opened, case: str) -> None:
    """In the words of servers, by the number that is wrong."""
    blob, _ = sounds.bad()[case]
    with pytest.raises(TriviumError) as refused:
        samples(blob)
    assert send(opened, blob)["message"] == refused.value.message
    assert " are allowed" in refused.value.message

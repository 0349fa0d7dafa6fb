"""Do untrusted bytes become 16 kHz mono, and bad ones a clear refusal?"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sounds
from trivium import Audio
from trivium.contract import Blob, Resident
from trivium.errors import BadInput, RunFailed, TooLarge, TriviumError
from trivium.hosts.server import audio
from trivium.hosts.server.audio import samples


def heard(blob: Blob) -> sounds.Floats:
    tensor = samples(blob)
    assert tensor.dtype == "float32"
    return np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000, 44_101])
def test_rates(rate: int, channels: int) -> None:
    """Every rate gives the same sound, and channels become their mean."""
    found = heard(sounds.saved("audio/wav", sounds.tones(rate), rate, channels))
    wanted = sounds.tones(16_000) * (0.75 if channels == 2 else 1)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted)[50:-50].max() < 2e-3


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_widths(codec: str) -> None:
    """Samples of every width are as loud."""
    found = heard(sounds.saved("audio/wav", sounds.tones(16_000), 16_000, codec=codec))
    assert np.abs(found - sounds.tones(16_000)).max() < (1e-2 if codec == "pcm_u8" else 1e-6)


@pytest.mark.parametrize("media", sounds.FORMS)
def test_formats(media: str) -> None:
    """Every format is heard, at its own loudness and about as long."""
    found = heard(sounds.saved(media, sounds.tones(48_000), 48_000, 2))
    assert abs(len(found) - 32_000) < 1500
    assert abs(found.std() / (0.75 * sounds.tones(16_000).std()) - 1) < 0.05


@pytest.mark.parametrize(("blob", "code"), sounds.bad().values(), ids=list(sounds.bad()))
def test_bad_sounds(blob: Blob, code: str) -> None:
    """What is damaged, cut off or too long is refused, and says why."""
    with pytest.raises(TriviumError) as refused:
        samples(blob)
    assert refused.value.code == code


def test_long_sound_is_refused_before_it_is_decoded() -> None:
    """A compressed hour and more takes no memory."""
    silence = np.zeros(8000 * 3700, np.float32)
    blob = sounds.saved("audio/flac", silence, 8000)
    assert len(blob.data) < 4 << 20
    tracemalloc.start()
    with pytest.raises(TooLarge, match="lasts 3700 seconds; at most 3600 are allowed"):
        samples(blob)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_long_sound_without_a_stated_length_is_refused_while_it_is_decoded() -> None:
    """A head that states no length does not help."""
    silence = np.zeros(8000 * 3700, np.float32)
    blob = sounds.saved("audio/flac", silence, 8000)
    data = bytearray(blob.data)
    # The number of samples: 36 bits of STREAMINFO.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    with pytest.raises(TooLarge, match="at most 3600 are allowed"):
        samples(Blob(media="audio/flac", data=bytes(data)))


def test_a_wrong_length_in_an_mp3_is_of_no_weight() -> None:
    """What is decoded counts."""
    assert len(heard(sounds.misstated())) > 30_000


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no rate", "0 samples a second; 4000 to 192000"),
        ("no channels", "0 channels; 1 to 512"),
        ("many channels", "65535 channels; 1 to 512"),
    ],
)
def test_a_wrong_head_is_told(case: str, said: str) -> None:
    with pytest.raises(BadInput, match=f"the audio has {said} are allowed"):
        samples(sounds.bad()[case][0])


def test_work_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long is too large."""
    monkeypatch.setattr(audio, "AUDIO_WORK", 0.0)
    with pytest.raises(TooLarge, match="takes more than 0.0 s to decode: make it shorter"):
        samples(sounds.saved("audio/ogg", sounds.tones(48_000), 48_000))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(sounds.FORMS)),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=12),
    st.integers(0, 1 << 16),
)
def test_damage_is_refused_or_survived(
    media: str, changes: list[tuple[int, int]], keep: int
) -> None:
    """Changed bytes and cut-off ends give a sound of finite numbers or a refusal."""
    blob = Blob(media=media, data=sounds.damaged(WHOLE[media].data, changes, keep))
    try:
        found = heard(blob)
    except (BadInput, TooLarge):
        return
    assert np.isfinite(found).all()


WHOLE = {media: sounds.saved(media, sounds.tones(16_000, 0.5), 16_000) for media in ("audio/wav",)}
WHOLE |= {
    media: sounds.saved(media, sounds.tones(48_000, 0.5), 48_000)
    for media in sounds.FORMS
    if media not in WHOLE
}


def test_parts() -> None:
    """An author cuts by seconds, without a copy."""
    audio = Audio(samples(sounds.saved("audio/wav", sounds.tones(16_000), 16_000)))
    assert audio.seconds == 2.0
    part = audio.part(0.5, 1.25)
    assert part.seconds == 0.75
    assert part.samples[0:1].tolist() == audio.samples[8000:8001].tolist()  # type: ignore[union-attr]
    assert audio.part(1.9, 5.0).seconds == pytest.approx(0.1)
    assert audio.part(-1.0, 0.5).seconds == 0.5


def test_residents_are_cut_by_their_host() -> None:
    with pytest.raises(RunFailed, match="can't be cut here"):
        Resident("float32", (4,), object())[1:2]

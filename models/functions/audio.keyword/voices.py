"""What does espeak-ng say, in which voices? (Developers only: needs Debian's espeak-ng 1.51.)

Run by train.py. Voices are espeak-ng's variants, each in seven accents; train, validation and
test have different variants.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

WORDS: list[str] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "yes",
    "no",
    "up",
    "down",
    "left",
    "right",
    "on",
    "off",
    "stop",
    "go",
]
OTHERS: list[str] = [
    "house",
    "water",
    "bird",
    "happy",
    "marvin",
    "sheila",
    "dog",
    "cat",
    "tree",
    "bed",
    "wow",
    "visual",
    "forward",
    "backward",
    "follow",
    "learn",
    "table",
    "window",
    "seventeen",
    "sunday",
    "mother",
    "paper",
    "green",
    "doctor",
    "hello",
    "mountain",
    "river",
    "letter",
    "kitchen",
    "garden",
    "animal",
    "music",
    "seventy",
    "number",
    "open",
    "close",
    "play",
    "pause",
    "next",
    "volume",
    "light",
    "morning",
]
LABELS = [*WORDS, "other", "silence"]
ACCENTS = (
    "en-us",
    "en",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
)
ODD = ("whisper", "Robot", "robosoft", "fast")
"""Variants that are no voices of people have one of these in their names."""

RATE = 16_000
SEED = 2026

Sound = NDArray[np.int16]


class Said(NamedTuple):
    """A word that a voice said."""

    label: int
    voice: str
    sound: Sound


class Espeak:
    """The library, in this process: a word in a millisecond."""

    def __init__(self) -> None:
        # ESPEAK_ROOT: where Debian's packages were unpacked, if they are not installed.
        folder = Path(os.environ.get("ESPEAK_ROOT", "/")) / "usr/lib/x86_64-linux-gnu"
        for name in ("libsonic.so.0", "libpcaudio.so.0"):
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        self._lib = ctypes.CDLL(str(folder / "libespeak-ng.so.1"))
        self._rate = self._lib.espeak_Initialize(2, 0, str(folder).encode(), 0)
        self._heard: list[Sound] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )

        def hear(wav: ctypes._Pointer[ctypes.c_short], count: int, _: object) -> int:
            if wav and count:
                self._heard.append(np.ctypeslib.as_array(wav, (count,)).copy())
            return 0

        self._hear = kind(hear)
        self._lib.espeak_SetSynthCallback(self._hear)
        variants = folder / "espeak-ng-data" / "voices" / "!v"
        self.variants = sorted(
            path.name
            for path in variants.iterdir()
            if not any(odd in path.name for odd in ODD)
            and not self._lib.espeak_SetVoiceByName(f"en-us+{path.name}".encode())
        )

    def say(self, text: str, voice: str, speed: int, pitch: int) -> Sound:
        """Return what was said, at 16 kHz, without the silence around it."""
        self._heard.clear()
        if self._lib.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice}")
        self._lib.espeak_SetParameter(1, speed, 0)
        self._lib.espeak_SetParameter(3, pitch, 0)
        raw = text.encode() + b"\0"
        self._lib.espeak_Synth(raw, len(raw), 0, 0, 0, 1, None, None)
        frame = av.AudioFrame.from_ndarray(
            np.concatenate(self._heard)[None], format="s16", layout="mono"
        )
        frame.rate = self._rate
        resampler = av.AudioResampler("s16", "mono", RATE)
        parts = [
            each.to_ndarray()[0] for each in [*resampler.resample(frame), *resampler.resample(None)]
        ]
        sound = np.concatenate(parts)
        (loud,) = np.nonzero(np.abs(sound) > 300)
        return sound[loud[0] : loud[-1] + 1] if len(loud) else sound


def split(variants: list[str]) -> dict[str, list[str]]:
    """Return the voices of each part: about 60, 15 and 25 of a hundred families."""
    families = sorted({family(each) for each in variants})
    order = [families[i] for i in np.random.default_rng(SEED).permutation(len(families))]
    first, second = round(0.6 * len(order)), round(0.75 * len(order))
    parts = {"train": order[:first], "validation": order[first:second], "test": order[second:]}
    return {
        name: [each for each in variants if family(each) in part] for name, part in parts.items()
    }


def family(variant: str) -> str:
    """Return what the settings of one voice have in common; m1 to m8 and f1 to f5 are people."""
    return variant if variant[1:].isdigit() else variant.rstrip("0123456789")


def spoken(
    espeak: Espeak, variants: list[str], seed: int, pitches: tuple[int, int] = (20, 80)
) -> Iterator[Said]:
    """Yield every word in every voice and accent, and five of the others."""
    generator = np.random.default_rng(seed)
    for variant in variants:
        for accent in ACCENTS:
            others = generator.choice(OTHERS, 5, replace=False)
            for word in [*WORDS, *others]:
                speed, pitch = int(generator.integers(110, 220)), int(generator.integers(*pitches))
                sound = espeak.say(word, f"{accent}+{variant}", speed, pitch)
                label = WORDS.index(word) if word in WORDS else len(WORDS)
                if 1600 < len(sound) < 17_600:
                    yield Said(label, variant, sound)

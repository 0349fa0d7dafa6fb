"""How were the held-out recordings made? (They are committed; this needs Debian's prompts.)

Real prompts by four speakers in five languages, three in a recording, at places that are known,
in noise: none, or pink at 10 or 0 dB below speech. Run: python held_out.py SOUNDS, the folder that
Debian's asterisk-core-sounds-{en,es,fr,it,ru}-g722 1.6.1 give as /usr/share/asterisk/sounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000
SEED = 2026
VOICES = (
    "en_US_f_Allison",
    "es_MX_f_Allison",
    "fr_CA_f_June",
    "it_IT_m_Carlo",
    "ru_RU_f_IvrvoiceRU",
)
NOISE = (None, 10, 0)
HERE = Path(__file__).parent

Floats = NDArray[np.float64]


def prompt(path: Path) -> Floats:
    """Return a prompt without the silence around it."""
    with av.open(str(path), format="g722") as file:
        parts = [frame.to_ndarray()[0] / 32768 for frame in file.decode(audio=0)]
    sound = np.concatenate(parts)
    frames = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    level = np.sqrt((frames**2).mean(1))
    (loud,) = np.nonzero(level > 0.02 * level.max())
    return sound[160 * loud[0] : 160 * (loud[-1] + 1)]


def pink(size: int, generator: np.random.Generator) -> Floats:
    """Return noise that falls by 3 dB an octave."""
    spectrum = np.fft.rfft(generator.normal(size=size))
    noise: Floats = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), size)
    return noise / noise.std()


def save(path: Path, sound: Floats) -> None:
    """Write Ogg Opus at 24 kbit/s."""
    with av.open(str(path), "w", format="ogg") as file:
        stream = file.add_stream("libopus", rate=RATE)
        stream.layout, stream.bit_rate = "mono", 24_000
        rows = (np.clip(sound, -1, 1) * 32767).round().astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(rows, format="s16", layout="mono")
        frame.rate = RATE
        cut = av.AudioResampler("s16", "mono", RATE, frame_size=stream.codec_context.frame_size)
        for piece in [*cut.resample(frame), *cut.resample(None), None]:
            for packet in stream.encode(piece):
                file.mux(packet)


def main(sounds: Path) -> None:
    """Write recordings and rows."""
    generator = np.random.default_rng(SEED)
    folder = HERE / "held-out"
    folder.mkdir(exist_ok=True)
    rows = []
    for voice in VOICES:
        files = sorted((sounds / voice).glob("*.g722"))
        usual = [path for path in files if 12_000 <= path.stat().st_size <= 28_000]
        for noise in NOISE:
            parts, spoken, at = [], [], 0
            for number in generator.permutation(len(usual))[:3]:
                gap = int(RATE * generator.uniform(0.5, 1.5))
                said = prompt(usual[number])
                parts += [np.zeros(gap), said]
                spoken.append({"start": (at + gap) / RATE, "end": (at + gap + len(said)) / RATE})
                at += gap + len(said)
            sound = np.concatenate([*parts, np.zeros(RATE)])
            speech = np.sqrt(np.mean(np.concatenate(parts[1::2]) ** 2))
            sound *= 0.05 / speech
            level = 1e-4 if noise is None else 0.05 * 10 ** (-noise / 20)
            sound += level * pink(len(sound), generator)
            name = f"{voice[:2]}-{'clean' if noise is None else f'{noise}dB'}.ogg"
            save(folder / name, sound)
            rows.append({"inputs": {"audio": f"held-out/{name}"}, "output": spoken})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (HERE / "held-out.jsonl").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

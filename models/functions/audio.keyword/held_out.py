"""How were the held-out recordings made? (They are committed; this needs espeak-ng, see voices.py.)

Every word in the voices of the test's part, six of its families, each in another accent; and the
ten digits as a person spoke them, of Debian's asterisk-core-sounds-en-g722 1.6.1. Run:
python held_out.py SOUNDS, that package's /usr/share/asterisk/sounds.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
from voices import ACCENTS, SEED, WORDS, Espeak, split

HERE = Path(__file__).parent
OTHER = runpy.run_path(str(HERE.parent / "audio.activity" / "held_out.py"))


def main(sounds: Path) -> None:
    """Write a folder of recordings for each word."""
    espeak = Espeak()
    generator = np.random.default_rng(SEED)
    voices = split(espeak.variants)["test"][::3][:6]
    quiet = np.zeros(3200)
    for word in WORDS:
        folder = HERE / "held-out" / word
        folder.mkdir(parents=True, exist_ok=True)
        for number, voice in enumerate(voices):
            speed, pitch = int(generator.integers(120, 200)), int(generator.integers(30, 70))
            sound = espeak.say(word, f"{ACCENTS[number]}+{voice}", speed, pitch) / 32768
            noisy = np.concatenate([quiet, sound, quiet])
            noisy = noisy + 0.01 * sound.std() * generator.normal(size=len(noisy))
            OTHER["save"](folder / f"{voice}.ogg", noisy)
        if word in WORDS[:10]:
            said = OTHER["prompt"](sounds / f"en_US_f_Allison/digits/{WORDS.index(word)}.g722")
            OTHER["save"](folder / "person.ogg", np.concatenate([quiet, said, quiet]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

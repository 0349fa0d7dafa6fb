"""How were the held-out recordings made? (They are committed; this needs Debian's prompts.)

Real prompts by the speaker of Debian's asterisk-core-sounds-en-g722 1.6.1, clean; what is said
stands in held-out.jsonl. Run: python held_out.py SOUNDS, its /usr/share/asterisk/sounds.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
OTHER = runpy.run_path(str(HERE.parent / "audio.activity" / "held_out.py"))


def main(sounds: Path) -> None:
    """Write the recording of each row."""
    quiet = np.zeros(8000)
    for line in (HERE / "held-out.jsonl").read_text().splitlines():
        path = HERE / json.loads(line)["inputs"]["audio"]
        sound = OTHER["prompt"](sounds / "en_US_f_Allison" / f"{path.stem}.g722")
        path.parent.mkdir(exist_ok=True)
        OTHER["save"](path, np.concatenate([quiet, sound, quiet]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

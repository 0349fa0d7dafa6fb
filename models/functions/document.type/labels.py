"""Which kinds of files does magika's model tell apart, and how sure must it be?

`python labels.py WHEEL > labels.txt` writes the table from the wheel that the recipe pins.
"""

from __future__ import annotations

import json
import sys
from zipfile import ZipFile

CONFIG = "magika/models/standard_v3_3/config.min.json"
KINDS = "magika/config/content_types_kb.min.json"


def table(wheel: str) -> str:
    """Return a line for each output of the model, its columns parted by tabs."""
    with ZipFile(wheel) as files:
        config, kinds = json.loads(files.read(CONFIG)), json.loads(files.read(KINDS))
    lines = []
    for label in config["target_labels_space"]:
        least = config["thresholds"].get(label, config["medium_confidence_threshold"])
        shown = config["overwrite_map"].get(label, label)
        kind = kinds[shown]
        plain = "text/plain" if kind["is_text"] else "application/octet-stream"
        text = "text" if kind["is_text"] else "binary"
        mime, group = kind["mime_type"] or plain, kind["group"] or "unknown"
        lines.append("\t".join([shown, mime, group, text, str(least)]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(sys.argv[1]))

"""How was held-out.jsonl made? `python held_out.py`, with Debian's tuxpaint-stamps-default there.

Its stamps are cut out of their backgrounds, one thing each. What is opaque is the true box, and
the label is COCO's name for what the file's name says. Drawings and mirror images are left out.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

STAMPS = Path("/usr/share/tuxpaint/stamps")
KINDS = {
    "bird": "animals/birds/*",
    "bear": "animals/mammals/bears/*",
    "horse": "animals/mammals/equines/horse",
    "zebra": "animals/mammals/equines/zebra",
    "giraffe": "animals/mammals/giraffe",
    "elephant": "animals/mammals/elephant",
    "dog": "animals/mammals/dogs/d*",
    "sheep": "animals/mammals/bovines/sheep* animals/mammals/bovines/ram",
    "cow": "animals/mammals/bovines/bull animals/mammals/bovines/cow* animals/mammals/bovines/zebu",
    "person": "people/fireman*",
    "car": "vehicles/auto/*[!k] vehicles/emergency/sedan*",
    "truck": "vehicles/auto/truck vehicles/construction/dumper vehicles/emergency/firetruck"
    " vehicles/garbagetruck",
    "bus": "vehicles/masstransit/*bus",
    "airplane": "vehicles/flight/planes/* military/vehicles/f22*",
    "boat": "vehicles/ship/chineseJunk",
    "apple": "food/fruit/apple_*",
    "orange": "food/fruit/orange* food/fruit/mandarine",
    "banana": "food/fruit/banana",
    "broccoli": "food/vegetables/broccoli",
    "carrot": "food/vegetables/carrot",
    "pizza": "food/pizza",
    "cup": "household/dishes/mug",
    "toilet": "household/toilet",
    "scissors": "household/arttools/scissors*",
    "stop sign": "town/roadsigns/stop",
    "traffic light": "town/roadsigns/stoplight*",
    "sports ball": "sports/*ball",
    "tennis racket": "sports/tennis_racket",
}
SOLID = 128


def main() -> None:
    """Write a line for each stamp."""
    lines = []
    for kind, patterns in KINDS.items():
        for pattern in patterns.split():
            for path in sorted(STAMPS.glob(f"{pattern}.png")):
                if "mirror" in path.name:
                    continue
                with Image.open(path) as image:
                    alpha = image.convert("RGBA").getchannel("A")
                box = alpha.point(lambda value: 255 * (value >= SOLID)).getbbox()
                if box is None:
                    continue
                left, top, right, bottom = box
                wide, high = alpha.size
                found = {"label": kind, "x": left / wide, "y": top / high}
                found |= {"width": (right - left) / wide, "height": (bottom - top) / high}
                rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
                lines.append(json.dumps({"inputs": {"image": str(path)}, "output": [rounded]}))
    Path(__file__).with_name("held-out.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

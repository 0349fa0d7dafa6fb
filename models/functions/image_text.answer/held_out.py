"""How were held-out/ and held-out.jsonl made? `python held_out.py` draws them.

Slips as customers photograph them, a bill, a label, a plate, a message, a ticket, are drawn with
Debian's DejaVu and Liberation fonts onto photos of grounds, a little turned and blurred; each with
a question whose answer stands on it, in other words than the slip's. Seed 1 is held out, seed 0
(with `--choose`) chose what the function's thresholds are, of other slips. Three rows in ten ask
what nothing on the slip answers. Drawn, not photographed: the real world is harder.
"""

# a slip, or a question, in a line
from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

HERE = Path(__file__).parent
FONTS = (
    "dejavu/DejaVuSans.ttf",
    "dejavu/DejaVuSerif.ttf",
    "liberation/LiberationSans-Regular.ttf",
    "liberation/LiberationSerif-Regular.ttf",
)
NONE = "(nothing)"
UNASKED = (
    "Who painted the Mona Lisa?",
    "Do you sell bicycles for children?",
    "How tall is the tower in the city?",
    "What is the weather like tomorrow?",
    "Which languages does your manager speak?",
    "Can my dog swim?",
)


def slips(chance: random.Random, held: bool) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Return lines, and questions with the words that answer them."""
    number = lambda low, high: str(chance.randint(low, high))  # noqa: E731
    money = f"{number(11, 97)}.{number(10, 99)}"
    code = f"{chance.choice('ABKMRT')}-{number(10000, 99999)}"
    hour = f"{number(8, 11)}:00"
    day = chance.choice(["Monday", "Tuesday", "Thursday", "Friday"])
    degrees, seat, platform = number(30, 60), number(11, 98), number(2, 19)
    if held:
        return [
            (
                [
                    "Corner Bakery",
                    "2 rye bread 7.80",
                    f"Total EUR {money}",
                    "Paid by card",
                    "Thank you",
                ],
                [("How much did I pay altogether?", money), ("Did I use cash?", "Paid by card")],
            ),
            (
                [
                    f"Order number: {code}",
                    "Shipped with Blue Parcel",
                    f"Arrives on {day}",
                    "Help: 0800 552 100",
                ],
                [
                    ("When will my package be delivered?", day),
                    ("Which carrier brings it?", "Blue Parcel"),
                    ("What is the number of my order?", code),
                ],
            ),
            (
                [
                    "100 % wool",
                    f"Wash by hand at {degrees} °C",
                    "Do not tumble dry",
                    "Iron on low heat",
                ],
                [
                    ("What is it made of?", "wool"),
                    ("Can I put the pullover into a dryer?", "Do not tumble dry"),
                    ("How hot may the water be when washing?", degrees),
                ],
            ),
            (
                ["Model KX 250", f"Serial number {code}", "Input 230 V 50 Hz", "Made in Portugal"],
                [
                    ("Which voltage does the device need?", "230 V"),
                    ("In which country was it produced?", "Portugal"),
                ],
            ),
            (
                [
                    "Printer message",
                    f"Error {number(100, 999)}: paper jam in tray 2",
                    "Open the rear cover",
                    "and remove the sheet",
                ],
                [
                    ("Why does it not print any more?", "paper jam"),
                    ("How do I fix the jam?", "rear cover"),
                ],
            ),
            (
                [
                    "City Museum",
                    f"Open daily from {hour}",
                    "Closed on Wednesdays",
                    "Adults 9.50, children free",
                ],
                [
                    ("At what time does the museum open?", hour),
                    ("What does a ticket cost for grown-ups?", "9.50"),
                ],
            ),
            (
                [
                    f"Train IC {number(100, 999)}",
                    f"Platform {platform}",
                    f"Coach 4 Seat {seat}",
                    "No refund after departure",
                ],
                [("Where does my train leave?", platform), ("Which place did I reserve?", seat)],
            ),
        ]
    return [
        (
            ["Green Grocer", "Apples 3.20", f"Sum {money}", "Change 1.10"],
            [("What was the whole price?", money), ("How much money did I get back?", "1.10")],
        ),
        (
            ["Warranty card", "Valid for 24 months", f"Bought on {day}", f"Receipt {code}"],
            [("How long is the guarantee?", "24 months"), ("Which receipt belongs to it?", code)],
        ),
        (
            ["Router status", "Internet: disconnected", f"Wi-Fi name: home{seat}", "Firmware 4.2"],
            [
                ("Is the router online?", "disconnected"),
                ("What is my network called?", f"home{seat}"),
            ],
        ),
        (
            ["Parking ticket", f"Expires at {hour}", "Zone C", f"Paid {money}"],
            [("Until when may I park?", hour), ("In which area does it hold?", "Zone C")],
        ),
        (
            [
                "Coffee machine",
                "Descale every 3 months",
                "Use filtered water",
                f"Heats to {degrees} °C",
            ],
            [
                ("How often must it be descaled?", "3 months"),
                ("Which water should I take?", "filtered"),
            ],
        ),
    ]


def drawn(lines: list[str], chance: random.Random) -> Image.Image:
    """Return a slip on a ground."""
    wide, high = 640, 60 + 58 * len(lines)
    ground = chance.choice([(90, 70, 50), (60, 80, 95), (120, 120, 110), (40, 45, 40)])
    picture = Image.new("RGB", (wide + 120, high + 120), ground)
    noise = Image.effect_noise(picture.size, 40).convert("RGB")
    picture = Image.blend(picture, noise, 0.15)
    slip = Image.new("RGB", (wide, high), chance.choice([(250, 248, 240), (235, 240, 245)]))
    pen = ImageDraw.Draw(slip)
    font = ImageFont.truetype(f"/usr/share/fonts/truetype/{chance.choice(FONTS)}", 30)
    for at, line in enumerate(lines):
        pen.text((36, 34 + 58 * at), line, font=font, fill=(25, 25, 35))
    mask = Image.new("L", slip.size, 255).rotate(turn := chance.uniform(-4, 4), expand=True)
    slip = slip.rotate(turn, expand=True, resample=Image.Resampling.BICUBIC)
    picture.paste(slip, (40, 40), mask)
    return picture.filter(ImageFilter.GaussianBlur(chance.uniform(0.3, 0.9)))


def main(held: bool) -> None:
    """Write pictures and rows."""
    chance = random.Random(int(held))  # noqa: S311 # no secret
    folder = HERE / ("held-out" if held else "chosen")
    folder.mkdir(exist_ok=True)
    rows = []
    for at, (lines, questions) in enumerate([*slips(chance, held), *slips(chance, held)]):
        path = folder / f"{at}.webp"
        drawn(lines, chance).save(path, quality=80)
        nothing = (chance.choice(UNASKED[: len(UNASKED) // 2] if held else UNASKED[3:]), NONE)
        rows += [
            {"inputs": {"image": f"{folder.name}/{path.name}", "text": each}, "output": wanted}
            for each, wanted in [*questions, nothing]
        ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (HERE / f"{folder.name}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main("--choose" not in sys.argv)

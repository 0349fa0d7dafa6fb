# ruff: noqa: E501, RUF001 # a sentence in a line; Chinese
"""How were held-out/ and held-out.jsonl made? `python held_out.py` writes and draws them.

Twelve sets of two or three documents, in English and Chinese, written for this after function.py's
forms were fixed on other sentences: texts, pages drawn as pictures, and PDFs of such. Beside each
set stand the relations that a reader finds in it. Names and facts are invented, the language is
plain; real documents are harder.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from zipfile import ZipFile

from PIL import Image, ImageDraw, ImageFont

from trivium_models.build import CACHE
from trivium_models.fetch import fetch
from trivium_models.recipe import Package

HERE = Path(__file__).parent
FONT = Package(
    version="0.0.11",
    sha256="b5e05ba7fd9a59cae48d1db41f657f50e6765e6f04b8d78504438b93a66b6e13",
    licence="Apache-2.0 AND OFL-1.1",
)
SETS: list[tuple[dict[str, str], list[tuple[str, str, str]]]] = [
    (
        {
            "a.txt": "Brightwater Ltd was established in Leeds in 1974. Its first director was Joan Marsh. In 2003 the firm was bought by Cobalt Group.",
            "a.png": "Cobalt Group is headquartered in Dublin. It employs 900 people. Joan Marsh studied at the University of York.",
        },
        [
            ("Brightwater Ltd", "founded in", "1974"),
            ("Brightwater Ltd", "located in", "Leeds"),
            ("Joan Marsh", "director of", "Brightwater Ltd"),
            ("Cobalt Group", "acquired", "Brightwater Ltd"),
            ("Cobalt Group", "located in", "Dublin"),
            ("Joan Marsh", "studied at", "University of York"),
        ],
    ),
    (
        {
            "b.pdf": "The Silver Tower was designed by Hugo Brandt and opened in 1987. It stands in Malmo.",
            "b.txt": "Hugo Brandt was born in Lund. He also built the Lund Library. His wife Eva Holm painted The Red Field.",
        },
        [
            ("Hugo Brandt", "designed", "Silver Tower"),
            ("Silver Tower", "opened in", "1987"),
            ("Silver Tower", "located in", "Malmo"),
            ("Hugo Brandt", "born in", "Lund"),
            ("Hugo Brandt", "built", "Lund Library"),
            ("Eva Holm", "painted", "Red Field"),
            ("Hugo Brandt", "married", "Eva Holm"),
        ],
    ),
    (
        {
            "c.txt": "Nora Lind works for Fjord Shipping. Fjord Shipping belongs to Atlas Holding, which is based in Oslo.",
            "c.png": "Atlas Holding acquired Delta Ports for USD 3.5 million in 2019. Delta Ports owns two harbours. Nora Lind lives in Bergen.",
        },
        [
            ("Nora Lind", "works for", "Fjord Shipping"),
            ("Fjord Shipping", "part of", "Atlas Holding"),
            ("Atlas Holding", "located in", "Oslo"),
            ("Atlas Holding", "acquired", "Delta Ports"),
            ("Nora Lind", "lives in", "Bergen"),
        ],
    ),
    (
        {
            "d.txt": "Penicillin was discovered by Alexander Fleming in 1928. Fleming worked at St Mary's Hospital.",
            "d.pdf": "Marie Curie discovered Radium. She was born in Warsaw and died in 1934. Marie Curie married Pierre Curie.",
        },
        [
            ("Alexander Fleming", "discovered", "Penicillin"),
            ("Penicillin", "discovered in", "1928"),
            ("Fleming", "works for", "St Mary's Hospital"),
            ("Marie Curie", "discovered", "Radium"),
            ("Marie Curie", "born in", "Warsaw"),
            ("Marie Curie", "died in", "1934"),
            ("Marie Curie", "married", "Pierre Curie"),
        ],
    ),
    (
        {
            "e.txt": "晨光集团成立于1992年。晨光集团总部位于杭州市。赵强领导晨光集团。",
            "e.png": "赵强出生于宁波市，毕业于浙江大学。2018年晨光集团收购了东海医院。",
        },
        [
            ("晨光集团", "founded in", "1992年"),
            ("晨光集团", "located in", "杭州市"),
            ("赵强", "leads", "晨光集团"),
            ("赵强", "born in", "宁波市"),
            ("赵强", "studied at", "浙江大学"),
            ("晨光集团", "acquired", "东海医院"),
        ],
    ),
    (
        {
            "f.txt": "长江博物馆由陈思远设计，坐落于武汉市。陈思远任职于同济大学。",
            "f.pdf": "Chen Siyuan works at Tongji University. The Yangtze Museum was opened in 2006.",
        },
        [
            ("陈思远", "designed", "长江博物馆"),
            ("长江博物馆", "located in", "武汉市"),
            ("陈思远", "works for", "同济大学"),
            ("Chen Siyuan", "works for", "Tongji University"),
            ("Yangtze Museum", "opened in", "2006"),
        ],
    ),
    (
        {
            "g.txt": "Meadow Foods supplies Corner Kitchen. Together with Oat Union, Meadow Foods runs a mill in Ghent.",
            "g.png": "Oat Union cooperates with Meadow Foods. Oat Union was founded by Lea Peeters. She leads the Ghent Bakers Association.",
        },
        [
            ("Meadow Foods", "supplies", "Corner Kitchen"),
            ("Oat Union", "works with", "Meadow Foods"),
            ("Lea Peeters", "founded", "Oat Union"),
            ("Lea Peeters", "leads", "Ghent Bakers Association"),
        ],
    ),
    (
        {
            "h.txt": "The novel Winter Sea was written by Tomas Vidal. It was published by Harbor Press in 1999. Tomas Vidal died in 2011.",
            "h.pdf": "Harbor Press is owned by Vidal Foundation. Vidal Foundation has its seat in Porto.",
        },
        [
            ("Tomas Vidal", "written", "Winter Sea"),
            ("Harbor Press", "published", "Winter Sea"),
            ("Tomas Vidal", "died in", "2011"),
            ("Vidal Foundation", "leads", "Harbor Press"),
            ("Vidal Foundation", "located in", "Porto"),
        ],
    ),
    (
        {
            "i.txt": "蓝天公司与北方银行合作。蓝天公司生产电池。周丽加入了蓝天公司。",
            "i.png": "周丽发明了空气灯。周丽就职于蓝天公司。北方银行位于沈阳市。",
        },
        [
            ("蓝天公司", "works with", "北方银行"),
            ("蓝天公司", "produces", "电池"),
            ("周丽", "works for", "蓝天公司"),
            ("周丽", "invented", "空气灯"),
            ("北方银行", "located in", "沈阳市"),
        ],
    ),
    (
        {
            "j.txt": "Riga is the capital of Latvia. Lake Burtnieks lies in Latvia. The Iron Bridge was built in 1872.",
            "j.png": "Janis Ozols, who was born in Riga, manages the Iron Museum. The Iron Museum is part of the Baltic Council.",
        },
        [
            ("Riga", "capital of", "Latvia"),
            ("Lake Burtnieks", "located in", "Latvia"),
            ("Iron Bridge", "built in", "1872"),
            ("Janis Ozols", "born in", "Riga"),
            ("Janis Ozols", "leads", "Iron Museum"),
            ("Iron Museum", "part of", "Baltic Council"),
        ],
    ),
    (
        {
            "k.txt": "Our team met on Friday. Nothing was decided. Please bring cake.",
            "k.png": "Dear Ms Olsen, thank you for your letter of 4 May 2021. We will answer soon.",
        },
        [],
    ),
    (
        {
            "l.pdf": "Quartz Systems developed the Orion Clock. Orion Clock costs EUR 240. Quartz Systems was acquired by Helix Corp in 2020.",
            "l.txt": "Helix Corp is located in Graz. The chairwoman of Helix Corp is Ida Moser.",
        },
        [
            ("Quartz Systems", "developed", "Orion Clock"),
            ("Orion Clock", "costs", "EUR 240"),
            ("Helix Corp", "acquired", "Quartz Systems"),
            ("Helix Corp", "located in", "Graz"),
            ("Ida Moser", "chairwoman of", "Helix Corp"),
        ],
    ),
]


def font() -> ImageFont.FreeTypeFont:
    """Return Noto, of a pinned package."""
    with ZipFile(fetch("mplfonts", FONT, CACHE / "packages", print)) as files:
        name = next(each for each in files.namelist() if "NotoSansCJKsc-Regular" in each)
        return ImageFont.truetype(io.BytesIO(files.read(name)), 26)


def drawn(text: str, pen: ImageFont.FreeTypeFont) -> Image.Image:
    """Return a page with the text on it, in lines of some 50 letters."""
    lines, line = [], ""
    for word in text.split(" ") if " " in text else list(text):
        glue = " " if " " in text and line else ""
        if pen.getlength(line + glue + word) > 700:
            lines.append(line)
            line, glue = "", ""
        line += glue + word
    page = Image.new("L", (840, 120 + 46 * (len(lines) + 1)), 255)
    draw = ImageDraw.Draw(page)
    for at, each in enumerate([*lines, line]):
        draw.text((60, 50 + 46 * at), each, font=pen, fill=20)
    return page


def main() -> None:
    """Write documents and rows."""
    folder = HERE / "held-out"
    folder.mkdir(exist_ok=True)
    pen = font()
    rows = []
    for files, relations in SETS:
        for name, text in files.items():
            if name.endswith(".txt"):
                (folder / name).write_text(text + "\n")
            elif name.endswith(".png"):
                drawn(text, pen).save(folder / name, optimize=True)
            else:
                drawn(text, pen).save(folder / name, resolution=110)
        inputs = {f"documents.{at}": f"held-out/{name}" for at, name in enumerate(files)}
        rows.append(json.dumps({"inputs": inputs, "output": relations}, ensure_ascii=False))
    (HERE / "held-out.jsonl").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()

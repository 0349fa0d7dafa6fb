"""How were the sample and the held-out videos made? They are composed: pictures and speech.

`python make.py` writes sample.webm out of the photos and the recording of other functions'
samples. `python make.py held-out` writes the gate's videos, which are not committed, and
held-out.jsonl, which is; it needs Debian's tuxpaint-stamps-default (GPL-2), whose photographed
things stand on a plain ground that is slowly approached. Seed 0; VP9 and Opus, half of the videos
with uneven times between their frames. The same script says how ALIKE was chosen: `python make.py
alike`, on stamps that no video shows.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).parent
OTHERS = HERE.parent
RATE = 48_000
WIDE, HIGH = 320, 240
VIDEOS, SCENES, MOST = 16, 3, 6
"""How many videos of how many scenes; how many things of one kind there may be."""

SAME = {"sports ball": ["ball"], "cow": ["ox"]}
"""What else is right: stamps of COCO's cows are of bulls and zebus, too."""

Sound = NDArray[np.float32]


def ground(picture: Image.Image, number: int) -> Image.Image:
    """Return a cut-out thing on a plain ground."""
    colour = [(236, 236, 230), (214, 226, 238), (222, 234, 214), (240, 226, 210)][number % 4]
    thing = picture.convert("RGBA")
    thing.thumbnail((WIDE * 5 // 6 * 2, HIGH * 5 // 6 * 2))
    whole = Image.new("RGBA", (2 * WIDE, 2 * HIGH), colour)
    whole.alpha_composite(thing, (WIDE - thing.width // 2, HIGH - thing.height // 2))
    return whole.convert("RGB")


def near(picture: Image.Image, share: float) -> NDArray[np.uint8]:
    """Return a picture as it is approached: at 1 an eighth of each side is out of sight."""
    wide, high = picture.size
    scale = min(wide / WIDE, high / HIGH) * (1 - 0.25 * share)
    left, top = (wide - WIDE * scale) / 2, (high - HIGH * scale) / 2
    box = (left, top, left + WIDE * scale, top + HIGH * scale)
    drawn = picture.resize((WIDE, HIGH), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    return np.asarray(drawn.convert("RGB"))


def heard(path: Path) -> Sound:
    """Return a recording at 48 kHz, without the half second of silence on both sides."""
    cut = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
    with av.open(str(path)) as file:
        frames = [done for frame in file.decode(audio=0) for done in cut.resample(frame)]
    frames += cut.resample(None)
    sound = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return sound[RATE // 2 : -RATE // 2]


def save(
    path: Path,
    scenes: list[tuple[float, Image.Image]],
    seconds: float,
    sound: Sound | None,
    times: list[float],
    rate: int,
) -> None:
    """Write a video that shows each picture from its time on."""
    with av.open(str(path), "w", format="webm") as file:
        options = {"deadline": "good", "cpu-used": "4", "row-mt": "0"}
        stream: Any = file.add_stream("libvpx-vp9", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDE, HIGH, "yuv420p"
        stream.bit_rate = rate
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 50
        voice: Any = file.add_stream("libopus", rate=RATE) if sound is not None else None
        packets = []
        ends = [start for start, _ in scenes[1:]] + [seconds]
        for at in times:
            place = max(i for i, (start, _) in enumerate(scenes) if start <= at + 1e-6)
            start, picture = scenes[place]
            share = (at - start) / (ends[place] - start)
            frame = av.VideoFrame.from_ndarray(near(picture, share), format="rgb24")
            frame.pts, frame.time_base = round(1000 * at), Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if sound is not None:
            voice.layout, voice.bit_rate = "mono", 32_000
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.rate = RATE
            cut = av.AudioResampler(format="flt", layout="mono", rate=RATE, frame_size=960)
            for piece in [*cut.resample(frame), *cut.resample(None), None]:
                packets += voice.encode(piece)
        for packet in packets:
            file.mux(packet)


def sample() -> None:
    """Write the sample: three photos and a recording of three prompts."""
    photos = ["coffee", "cat", "rocket"]
    pictures = [Image.open(OTHERS / f"image.classify/{each}.jpg") for each in photos]
    sound = heard(OTHERS / "audio.activity/prompts.flac")
    seconds = 12.0
    whole = np.zeros(round(seconds * RATE), np.float32)
    begin = round(0.9 * RATE)
    whole[begin : begin + len(sound)] = sound
    scenes = list(zip([0.0, 4.0, 8.0], pictures, strict=True))
    save(HERE / "sample.webm", scenes, seconds, whole, [i / 10 for i in range(120)], 90_000)


def things() -> list[tuple[str, str]]:
    """Return photographed things: the kind and the file, at most MOST of one kind."""
    rows = [json.loads(line) for line in (OTHERS / "image.detect/held-out.jsonl").open()]
    found = [(row["output"][0]["label"], row["inputs"]["image"]) for row in rows]
    random.Random(0).shuffle(found)  # noqa: S311 # no secret
    kept: list[tuple[str, str]] = []
    for kind, path in found:
        if sum(each == kind for each, _ in kept) < MOST:
            kept.append((kind, path))
    return kept


def right(kind: str) -> list[str]:
    """Return what a thing may be called: COCO's name, and ImageNet's of what is of its kind."""
    lines = (OTHERS / "image.describe/words.txt").read_text().splitlines()
    names = (line.partition(": ") for line in lines)
    return [
        kind,
        *SAME.get(kind, []),
        *(label for label, _, wider in names if kind in wider.split(", ")),
    ]


def held_out() -> None:
    """Write the gate's videos and their rows."""
    chance = random.Random(1)  # noqa: S311 # no secret
    shown = things()[: VIDEOS * SCENES]
    rows = [json.loads(line) for line in (OTHERS / "audio.transcribe/held-out.jsonl").open()]
    spoken = []
    for row in rows:
        sound = heard(OTHERS / "audio.transcribe" / row["inputs"]["audio"])
        if len(sound) < 6 * RATE:
            spoken.append((row["output"], sound))
    chance.shuffle(spoken)
    (HERE / "held-out").mkdir(exist_ok=True)
    lines = []
    for number in range(VIDEOS):
        lengths = [round(chance.uniform(3, 5), 1) for _ in range(SCENES)]
        starts = [round(sum(lengths[:place]), 1) for place in range(SCENES)]
        seconds = round(sum(lengths), 1)
        mine = shown[SCENES * number : SCENES * (number + 1)]
        scenes = [
            (start, ground(Image.open(path), SCENES * number + place))
            for place, (start, (_, path)) in enumerate(zip(starts, mine, strict=True))
        ]
        sound = None if number % 8 == 7 else np.zeros(round(seconds * RATE), np.float32)
        said: list[tuple[float, float, str]] = []
        if sound is not None:
            text, words = spoken[number % len(spoken)]
            begin = round(chance.uniform(0.3, seconds - len(words) / RATE - 0.3), 1)
            sound[round(begin * RATE) :][: len(words)] = words
            said.append((begin, begin + len(words) / RATE, text))
        times, at = [], 0.0
        while at < seconds:
            times.append(round(at, 3))
            at += 0.1 if number % 2 else chance.choice([0.04, 0.1, 0.25, 0.5])
        # A cut is seen at once.
        times = sorted({*times, *starts})
        path = HERE / f"held-out/{number:02}.webm"
        save(path, scenes, seconds, sound, times, 150_000)
        cuts = sorted({0.0, seconds, *starts, *(t for a, b, _ in said for t in (a, b))})
        row = []
        for start, end in pairwise(cuts):
            middle = (start + end) / 2
            place = max(i for i, each in enumerate(starts) if each <= middle)
            words = next((text for a, b, text in said if a <= middle < b), "")
            kinds = right(mine[place][0])
            row.append(
                {"start": round(start, 2), "end": round(end, 2), "seen": kinds, "said": words}
            )
        output = {"timeline": row}
        inputs = {"video": f"held-out/{path.name}"}
        lines.append(json.dumps({"inputs": inputs, "output": output}, ensure_ascii=False))
    (HERE / "held-out.jsonl").write_text("\n".join(lines) + "\n")


def alike() -> None:
    """Say how near frames of one thing are, and frames of two; ALIKE lies between."""
    from trivium import Image as Picture
    from trivium import Tensor, Tier
    from trivium.hosts.server.host import ServerHost
    from trivium_models.measure import ZOO
    from trivium_models.others import Others

    used = {path for _, path in things()[: VIDEOS * SCENES]}
    rows = [json.loads(line) for line in (OTHERS / "image.detect/held-out.jsonl").open()]
    paths = [row["inputs"]["image"] for row in rows if row["inputs"]["image"] not in used]

    async def vectors() -> list[list[Any]]:
        ask = Others(ZOO, Tier.EDGE, ServerHost())
        found = []
        for number, path in enumerate(paths):
            thing = ground(Image.open(path), number)
            drawn = [np.ascontiguousarray(near(thing, share / 4)) for share in range(5)]
            tensors = [Tensor(dtype="uint8", shape=each.shape, data=each.data) for each in drawn]
            found.append([await ask("image.embed", image=Picture(each)) for each in tensors])
        return found

    found = np.array(asyncio.run(vectors()))
    same = np.einsum("nsd,nsd->ns", found[:, 1:], found[:, :-1]).ravel()
    other = np.einsum("nd,nd->n", found[1:, 0], found[:-1, -1])
    print(f"{len(paths)} things: the same {np.quantile(same, [0, 0.05, 0.5]).round(3)}")
    print(f"the next {np.quantile(other, [0.5, 0.95, 1]).round(3)}")
    for least in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        print(least, (same < least).mean().round(3), (other >= least).mean().round(3))


if __name__ == "__main__":
    {"held-out": held_out, "alike": alike}.get("".join(sys.argv[1:]), sample)()

"""What was measured of a function's variants, and is it still true?"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
from onnx import TensorProto

from trivium.contract import Cascade, Sample, Tier, Variant
from trivium.errors import BundleError

from . import measure, target
from . import recipe as recipes
from .build import Workshop
from .measure import Quality, Ran
from .others import bundles
from .package import write
from .target import PRIOR, Timing

FILE = "measured.json"

TARGETS = {
    Tier.PAGE: ("wasm-1", "wasm", "webgpu"),
    Tier.EDGE: ("cpu-1", "cpu"),
    Tier.CLOUD: ("cpu-1", "cpu", "cuda"),
}
"""Where a tier's variant is timed, of those that the machine has."""

PYTHON_MS = (0.1, 0.5, 2.0)
"""What is expected of a function without models."""

ANYWHERE = "cpu-1"
"""Where a variant is timed whose own targets are not here: it is judged all the same."""

WASM_TO_NATIVE = 3.0
"""How much slower the page is expected to be where there is no browser to measure it in."""

COARSE = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One variant on one target; sizes in bytes, times in ms, `memory_mb` what its session added.

    `latency_ratio` is the full variant's time over this one's on the same target, and
    `relative_quality` this one's score over the full one's: both are 1 for the full variant.
    `gate` is passed, none, below_gate or not_faster.
    """

    function: str
    tier: Tier
    model: str
    precision: str
    size: int
    brotli_size: int | None
    target: str
    latency_ms: float
    latency_p5_ms: float
    latency_p95_ms: float
    latency_ratio: float
    memory_mb: float
    memory_ratio: float
    metric: str
    quality: float
    quality_low: float
    quality_high: float
    relative_quality: float
    relative_low: float
    relative_high: float
    gate: str
    data: str


class Weight(NamedTuple):
    """What a variant's graphs are made of, and their bytes as they are and under Brotli."""

    precision: str
    size: int
    brotli: int | None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of a function, and the key of what they were measured on."""

    key: str
    date: str
    machine: str
    rows: tuple[Row, ...]


def known(workshop: Workshop, bundle: Path | None = None) -> Measured | None:
    """Return what the folder's measured.json says, if it is of these very files."""
    found = stated(workshop.folder)
    return found if found and found.key == key(workshop, bundle) else None


def stated(folder: Path) -> Measured | None:
    """Return what a folder's measured.json says, of whichever files."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Measured)
    return None


def key(workshop: Workshop, bundle: Path | None = None) -> str:
    """Return the hash of everything that a measurement depends on.

    The data's content aside, and the functions that a pipeline asks: they have their own.
    """
    recipe = workshop.recipe
    roads = recipes.variants(recipe)
    files = {name for road in roads for chain in road.models.values() for name in chain}
    files |= {"function.py", *filter(None, (recipe.labels, recipe.tokenizer))}
    told: dict[str, Any] = {
        # What an ask costs changes no figure.
        "variants": [
            {name: value for name, value in each.items() if name != "spend"}
            for each in msgspec.to_builtins(recipe.variants)
        ],
        "gate": msgspec.to_builtins(recipe.gate),
        "files": {name: workshop.digest(workshop.path(name, bundle)) for name in sorted(files)},
    }
    if recipe.gate and ":" in recipe.gate.metric:
        told["metric"] = workshop.digest(workshop.folder / recipe.gate.metric.partition(":")[0])
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:32]


def take(
    workshop: Workshop, targets: Sequence[str] | None = None, bundle: Path | None = None
) -> Measured:
    """Run every variant on the gate's data and on every target there is; keep what was found.

    Raises:
        BundleError: the metric can't be computed, or variants differ and there is no gate.
    """
    roads = recipes.variants(workshop.recipe)
    there = targets or target.available()
    full = max(roads, key=lambda road: road.tier.distance)
    rows = workshop.rows(workshop.recipe.gate)
    asks = workshop.schema.asks is not None
    zoo = bundle.parent if bundle else measure.ZOO

    def name(each: Variant) -> str:
        # The same models answer otherwise where what they ask does.
        return _name(each) + (each.tier if asks else "")

    answers: dict[str, Ran] = {}
    times: dict[tuple[str, str], Timing] = {}
    weights: dict[str, Weight] = {}
    found: list[Row] = []
    for road in roads:
        if not road.models and not asks:
            continue
        for each in (full, road):
            if name(each) not in answers:
                workshop.say(f"{workshop.schema.name}: {each.model} on {len(rows)} rows")
                graphs = workshop.graphs(each, bundle)
                with measure.bar(each.model) as progress:
                    ran = workshop.subject().run(each, graphs, rows, progress, zoo)
                answers[name(each)] = ran
        if name(road) not in weights:
            own = list(workshop.graphs(road, bundle).values())
            asked = answers[name(road)].asked
            weights[name(road)] = weigh(own + step_graphs(zoo, road.tier, asked))
        score = _score(workshop, full, road, rows, answers[name(full)], answers[name(road)])
        wanted = [PRIOR[road.tier]] if asks else TARGETS[road.tier]
        places = [place for place in wanted if place in there]
        if not places:
            workshop.say(f"{workshop.schema.name}: {target.lacking(wanted)}: timed on {ANYWHERE}")
        for place in places or [ANYWHERE]:
            try:
                for each in (full, road):
                    if (name(each), place) not in times:
                        workshop.say(f"{workshop.schema.name}: {each.model} on {place}")
                        ran = answers[name(each)]
                        time = _time(workshop, each, place, ran, bundle)
                        times[name(each), place] = with_steps(time, ran, zoo, each.tier)
            except BundleError as error:
                if place == PRIOR[road.tier] or not places:
                    raise
                workshop.say(f"{workshop.schema.name}: {error.message}")
                continue
            pair = times[name(full), place], times[name(road), place]
            found.append(_row(workshop, road, place, pair, score, weights[name(road)]))
    measured = Measured(
        key=key(workshop, bundle),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        machine=machine(),
        rows=tuple(_judged(found, workshop)),
    )
    raw = msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n"
    write(workshop.folder / FILE, raw)
    return measured


def _name(road: Variant) -> str:
    return repr((sorted(road.models.items()), sorted(road.settings.items())))


def _score(
    workshop: Workshop,
    full: Variant,
    road: Variant,
    rows: Sequence[Sample],
    wanted: Ran,
    given: Ran,
) -> Quality:
    gate = workshop.recipe.gate
    if gate is None:
        if road.models != full.models:
            raise BundleError(
                f"{workshop.folder / 'recipe.toml'}: {road.model} differs from {full.model}, and "
                "nothing says how near it must come: state a [gate] with metric, data and floor"
            )
        return Quality(1, 1, 1, 1, 1, 1)
    return measure.quality(gate.metric, wanted.outputs, given.outputs, rows, workshop.folder)


def _time(workshop: Workshop, road: Variant, place: str, ran: Ran, bundle: Path | None) -> Timing:
    """Return the sum over a variant's models, each on what the function gave it."""
    graphs = workshop.graphs(road, bundle)
    parts = [
        target.time_on(place, [graphs[g] for g in chain], ran.feeds[name])
        for name, chain in road.models.items()
        if ran.feeds[name]
    ]
    low, middle, high = (sum(part.ms[i] for part in parts) for i in range(3))
    return Timing(ms=(low, middle, high), memory_mb=sum(part.memory_mb for part in parts))


def with_steps(own: Timing, ran: Ran, zoo: Path, tier: Tier) -> Timing:
    """Add what each asked function is expected to take there, as often as a row asked it."""
    often = {name: count / len(ran.outputs) for name, count in ran.asked.items()}
    steps = [(often[b.name], road.ms) for b, road in bundles(zoo, tier) if b.name in often]
    low, middle, high = (own.ms[i] + sum(times * ms[i] for times, ms in steps) for i in range(3))
    return Timing(ms=(low, middle, high), memory_mb=own.memory_mb)


def step_graphs(zoo: Path, tier: Tier, asked: Mapping[str, int]) -> list[Path]:
    """Return the graphs of the functions that were asked."""
    return [
        bundle.folder / name
        for bundle, road in bundles(zoo, tier)
        if bundle.name in asked
        for chain in road.models.values()
        for name in chain
    ]


def _row(
    workshop: Workshop,
    road: Variant,
    place: str,
    times: tuple[Timing, Timing],
    score: Quality,
    weight: Weight,
) -> Row:
    gate = workshop.recipe.gate
    whole, mine = times
    return Row(
        function=workshop.schema.name,
        tier=road.tier,
        model=road.model,
        precision=weight.precision,
        size=weight.size,
        brotli_size=weight.brotli,
        target=place,
        latency_ms=round(mine.ms[1], 3),
        latency_p5_ms=round(mine.ms[0], 3),
        latency_p95_ms=round(mine.ms[2], 3),
        latency_ratio=round(whole.ms[1] / mine.ms[1], 3),
        memory_mb=round(mine.memory_mb, 1),
        memory_ratio=round(mine.memory_mb / whole.memory_mb, 3) if whole.memory_mb else 1.0,
        metric=gate.metric if gate else "",
        quality=round(score.value, 5),
        quality_low=round(score.low, 5),
        quality_high=round(score.high, 5),
        relative_quality=round(score.relative, 5),
        relative_low=round(score.relative_low, 5),
        relative_high=round(score.relative_high, 5),
        gate="none" if gate is None else "passed",
        data=f"{gate.split}: {gate.about or gate.data}" if gate else "",
    )


def _judged(rows: Sequence[Row], workshop: Workshop) -> list[Row]:
    """Say of each row whether its variant may be shipped."""
    gate = workshop.recipe.gate
    roads = workshop.recipe.variants
    full = max(roads, key=lambda road: road.tier.distance)
    free = {road.tier for road in roads if road.prefer == "size" or road.models == full.models}
    floors = _floors(workshop)
    judged = []
    for row in rows:
        verdict = row.gate
        prior = next((r for r in rows if r.tier == row.tier and r.target == PRIOR[row.tier]), row)
        if gate is not None and row.relative_quality < floors[row.tier]:
            verdict = "below_gate"
        elif (
            row.precision.startswith("int")
            and prior.latency_ratio <= 1
            and prior.target in TARGETS[row.tier]
            and row.tier not in free
        ):
            verdict = "not_faster"
        judged.append(msgspec.structs.replace(row, gate=verdict))
    return judged


def _floors(workshop: Workshop) -> dict[Tier, float]:
    """Return the least quality of each tier's variant, relative to the full one."""
    gate = workshop.recipe.gate
    least = gate.floor if gate else 0.0
    roads = workshop.recipe.variants
    return {
        road.tier: least if isinstance(road.floor, msgspec.UnsetType) else road.floor
        for road in roads
    }


def failures(measured: Measured, workshop: Workshop) -> str:
    """Return a table of the variants that may not be shipped, or nothing."""
    gate = workshop.recipe.gate
    bad = [row for row in measured.rows if row.gate in ("below_gate", "not_faster")]
    lines = []
    for row in {(row.tier, row.gate): row for row in bad}.values():
        if row.gate == "below_gate" and gate is not None:
            lines.append(
                f"  {row.tier}: {row.model}: {gate.metric} {row.relative_quality:.4f} of the full "
                f"variant's [{row.relative_low:.4f}, {row.relative_high:.4f}], the floor is "
                f"{_floors(workshop)[row.tier]}"
            )
        else:
            lines.append(
                f"  {row.tier}: {row.model}: {row.precision} takes {1 / row.latency_ratio:.2f} "
                f"times as long as the full model on {row.target}; run that one, or say "
                'prefer = "size"'
            )
    return "\n".join(lines)


def variants(
    workshop: Workshop, measured: Measured | None, sure: Mapping[Tier, Cascade] | None = None
) -> tuple[Variant, ...]:
    """Return the variants with what was measured of them, and what was fitted."""
    found = []
    for road in recipes.variants(workshop.recipe):
        rows = [row for row in measured.rows if row.tier == road.tier] if measured else []
        row = next((each for each in rows if each.target == PRIOR[road.tier]), None)
        stated = row or next(iter(rows), None)
        if stated is not None:
            factor = WASM_TO_NATIVE if row is None and road.tier == Tier.PAGE else 1.0
            times = (stated.latency_p5_ms, stated.latency_ms, stated.latency_p95_ms)
            same = stated.relative_quality == stated.relative_low == stated.relative_high == 1
            road = msgspec.structs.replace(
                road,
                quality=min(1.0, stated.relative_quality),
                quality_low=None if same else stated.relative_low,
                quality_high=None if same else stated.relative_high,
                ms=tuple(round(factor * ms, 2) for ms in times),
                metric=stated.metric,
                data=stated.data,
                gate=stated.gate,
            )
        elif not road.models:
            road = msgspec.structs.replace(road, ms=PYTHON_MS)
        if sure and road.tier in sure:
            road = msgspec.structs.replace(road, cascade=sure[road.tier])
        found.append(road)
    return tuple(found)


def weigh(graphs: Sequence[Path]) -> Weight:
    """Return what a variant's graphs weigh; compressing the large ones takes seconds."""
    size = sum(path.stat().st_size for path in graphs)
    return Weight(precision(graphs), size, compressed(graphs))


def precision(graphs: Sequence[Path]) -> str:
    """Return the numbers that most bytes of the graphs' weights are."""
    sizes: dict[str, int] = {}
    for path in graphs:
        model = onnx.load(path, load_external_data=False)
        blocks = any("NBits" in n.op_type or "Block" in n.op_type for n in model.graph.node)
        for item in model.graph.initializer:
            kind = "fp32"
            if item.data_type in COARSE:
                kind = "int4" if blocks else "int8"
            elif item.data_type == TensorProto.FLOAT16:
                kind = "fp16"
            size = len(item.raw_data) or 4 * int(np.prod(item.dims))
            sizes[kind] = sizes.get(kind, 0) + size
    return max(sizes, key=lambda kind: sizes[kind]) if sizes else "fp32"


def compressed(graphs: Sequence[Path]) -> int | None:
    """Return the bytes of the graphs under Brotli, as a server would send them; none without it."""
    try:
        import brotli
    except ImportError:
        return None
    return sum(len(brotli.compress(path.read_bytes(), quality=5)) for path in graphs)


def machine() -> str:
    """Return what the figures were taken on."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    return f"{os.cpu_count()} cores of {name}, {platform.system()} {platform.machine()}"

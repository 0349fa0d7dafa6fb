"""Which coarse forms of a model are worth having, and which is the best that passes its gate?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx

from trivium.contract import Tier, Variant
from trivium.errors import BundleError

from . import measure, target
from . import recipe as recipes
from .measure import Feed, Quality
from .quantise import Form, quantise
from .recipe import Gate, Made

if TYPE_CHECKING:
    from .build import Workshop

SPEED = "cpu-1"
"""Where forms are compared while building: every machine has it."""

SHARES = (0.1, 0.25)
"""The shares of nodes that are left as they are, those with the worst outliers first."""

MOST_ROWS = 200


class Trial(NamedTuple):
    """One form that was tried: which nodes it left alone, what it weighs, gives and takes."""

    form: Form
    exclude: tuple[str, ...]
    size: int
    quality: Quality
    ms: float

    @property
    def label(self) -> str:
        """Return the form, and how many nodes it left alone."""
        return f"{self.form}, {len(self.exclude)} excluded" if self.exclude else self.form


def best(workshop: Workshop, name: str, made: Made) -> tuple[Trial, str]:
    """Return the fastest form of a file that passes the recipe's gate, and a table of all tried.

    If none passes it is the nearest: whoever builds it looks at the gate again.

    Raises:
        BundleError: the recipe has no gate to choose by.
    """
    gate = workshop.recipe.gate
    if gate is None:
        raise BundleError("a form is chosen by the [gate], and the recipe has none; state a form")
    tried = list(trials(workshop, name, made, SPEED))
    passed = [trial for trial in tried if trial.quality.relative >= gate.floor]
    said = table(tried, gate, SPEED)
    if not passed:
        nearest = max(tried, key=lambda trial: trial.quality.relative)
        workshop.say(f"{said}\n  none passes; {nearest.label} comes nearest and is kept")
        return nearest, f"Tried for {name}:\n{said}"
    chosen = min(passed, key=lambda trial: (trial.ms, trial.size))
    workshop.say(f"{said}\n  chosen: {chosen.label}")
    return chosen, f"Tried for {name}:\n{said}"


def trials(workshop: Workshop, name: str, made: Made, place: str) -> Iterator[Trial]:
    """Yield each form of a file with its quality and its time on a target."""
    roads = recipes.variants(workshop.recipe)
    full = max(roads, key=lambda road: road.tier.distance)
    road = next((each for each in roads if name in _graphs(each)), None)
    if road is None:
        raise BundleError(f"no variant runs {name}: its forms can't be compared")
    gate = workshop.recipe.gate
    assert gate is not None  # who calls has looked
    rows = workshop.rows(gate)[:MOST_ROWS]
    parent = workshop.path(made.quantise)
    others = {g: workshop.path(g) for g in _graphs(road) if g != name}
    subject = workshop.subject()
    wanted = subject.run(full, workshop.graphs(full), rows)
    start = subject.run(road, {**others, name: parent}, rows[: measure.KEPT])
    model, chain = next(each for each in road.models.items() if name in each[1])
    feeds = start.feeds[model]
    with TemporaryDirectory(prefix="trivium-") as place_:
        for number, (form, exclude) in enumerate(candidates(workshop, name, made, parent)):
            path = Path(place_) / f"{number}.onnx"
            try:
                model = quantise(parent, form, exclude, lambda: workshop.calibration(name, made))
                path.write_bytes(model.SerializeToString(deterministic=True))
                graphs = {**others, name: path}
                with measure.bar(form) as progress:
                    answers = subject.run(road, graphs, rows, progress)
                timing = target.time_on(place, [graphs[g] for g in chain], feeds)
            except BundleError as error:
                workshop.say(f"  {form}: {error.message}")
                continue
            given = answers.outputs
            score = measure.quality(gate.metric, wanted.outputs, given, rows, workshop.folder)
            yield Trial(form, exclude, path.stat().st_size, score, timing.ms[1])


def candidates(
    workshop: Workshop, name: str, made: Made, parent: Path
) -> Iterator[tuple[Form, tuple[str, ...]]]:
    """Yield the forms to try, the model as it is among them."""
    kinds = {node.op_type for node in onnx.load(parent, load_external_data=False).graph.node}
    products = kinds & {"MatMul", "Gemm", "Attention"}
    yield "float32", ()
    if products or "Conv" in kinds:
        yield "weights", ()
    if products:
        yield "dynamic", ()
        # Without data or samples nobody knows which nodes have outliers.
        if made.data or workshop.recipe.samples:
            worst = outliers(parent, list(workshop.calibration(name, made)))
            for share in SHARES:
                yield "dynamic", tuple(worst[: math.ceil(share * len(worst))])
        yield "int4", ()
    if "Conv" in kinds and made.data:
        yield "static", ()
    yield "float16", ()


def outliers(model: Path, feeds: Sequence[Feed]) -> list[str]:
    """Return the matrix products by how far their inputs' peak is from the rest, worst first.

    One scale covers a whole activation: a value a hundred times the others' leaves those a
    hundredth of the steps.
    """
    import onnxruntime as ort

    tapped = onnx.load(model)
    weights = {item.name for item in tapped.graph.initializer}
    nodes = [
        node
        for node in tapped.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights and node.name
    ]
    inputs = sorted({node.input[0] for node in nodes} - {i.name for i in tapped.graph.input})
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inputs)
    session = ort.InferenceSession(tapped.SerializeToString(), providers=["CPUExecutionProvider"])
    peaks = dict.fromkeys(inputs, 0.0)
    for feed in feeds[:8]:
        for name, value in zip(inputs, session.run(inputs, feed), strict=True):
            spread = float(np.sqrt(np.mean(np.square(value)))) or 1.0
            peaks[name] = max(peaks[name], float(np.abs(value).max()) / spread)
    return [node.name for node in sorted(nodes, key=lambda node: -peaks.get(node.input[0], 0.0))]


def front(tried: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other one beats in size, time and quality at once."""

    def beats(a: Trial, b: Trial) -> bool:
        first = (a.size, a.ms, -a.quality.relative)
        second = (b.size, b.ms, -b.quality.relative)
        return first != second and all(x <= y for x, y in zip(first, second, strict=True))

    return [trial for trial in tried if not any(beats(other, trial) for other in tried)]


def table(tried: Sequence[Trial], gate: Gate, place: str) -> str:
    """Return the trials as lines to read."""
    lines = [f"  {'form':28}{'MB':>8}{place + ' ms':>12}  {gate.metric} relative [95 %]"]
    for trial in tried:
        q = trial.quality
        mark = "" if q.relative >= gate.floor else f"  below {gate.floor:.4g}"
        lines.append(
            f"  {trial.label:28}{trial.size / 1e6:8.2f}{trial.ms:12.2f}  "
            f"{q.relative:.4f} [{q.relative_low:.4f}, {q.relative_high:.4f}]{mark}"
        )
    return "\n".join(lines)


def tune(workshop: Workshop, drop: float, tier: Tier, plot: Path | None) -> list[Trial]:
    """Try all forms of a tier's quantised file on that tier; return the Pareto front.

    Raises:
        BundleError: the tier runs nothing that is quantised, or this machine can't measure it.
    """
    gate = workshop.recipe.gate
    if gate is None:
        raise BundleError(f"{workshop.folder / 'recipe.toml'} has no [gate] to measure forms by")
    road = next((r for r in recipes.variants(workshop.recipe) if r.tier == tier), None)
    if road is None:
        raise BundleError(f"{workshop.schema.name} has no variant for the {tier}")
    place = target.PRIOR[tier]
    if place not in target.available():
        raise BundleError(f"forms for the {tier} can't be timed: {target.lacking([place])}")
    files = workshop.recipe.files
    name = next((g for g in _graphs(road) if g in files and files[g].quantise), None)
    if name is None:
        raise BundleError(f"the {tier} of {workshop.schema.name} runs no quantised file")
    workshop.say(f"{workshop.schema.name}: trying forms of {name} on {place}")
    tried = list(trials(workshop, name, files[name], place))
    best_ones = front(tried)
    told = Gate(metric=gate.metric, data=gate.data, floor=1 - drop)
    workshop.say(table(tried, told, place))
    allowed = [trial for trial in best_ones if trial.quality.relative >= 1 - drop]
    chosen = ", ".join(trial.label for trial in sorted(allowed, key=lambda trial: trial.ms))
    workshop.say(f"  not beaten, and within a drop of {drop:.3g}: {chosen or 'none'}")
    if plot is not None:
        draw(tried, best_ones, 1 - drop, f"{workshop.schema.name} on {place}", plot)
        workshop.say(f"  plot: {plot}")
    return best_ones


def draw(
    tried: Sequence[Trial], best_ones: Sequence[Trial], floor: float, title: str, path: Path
) -> None:
    """Plot quality against size and against time, the Pareto front filled."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BundleError("a plot needs matplotlib: pip install 'trivium[models]'") from error
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for axes, label, values in (
        (figure.add_subplot(1, 2, 1), "MB", [t.size / 1e6 for t in tried]),
        (figure.add_subplot(1, 2, 2), "ms", [t.ms for t in tried]),
    ):
        for trial, x in zip(tried, values, strict=True):
            q = trial.quality
            axes.errorbar(
                x,
                q.relative,
                yerr=[
                    [max(0, q.relative - q.relative_low)],
                    [max(0, q.relative_high - q.relative)],
                ],
                fmt="o",
                capsize=3,
                color="#3b6fd4",
                fillstyle="full" if trial in best_ones else "none",
            )
            axes.annotate(
                trial.label, (x, q.relative), xytext=(6, 4), textcoords="offset points", fontsize=8
            )
        axes.axhline(floor, linestyle="--", linewidth=1, color="#b4472f")
        axes.set_xlabel(label)
        axes.set_ylabel("quality relative to the full variant")
        axes.set_xlim(left=0)
        axes.margins(x=0.25)
    figure.suptitle(title)
    figure.savefig(path)


def _graphs(road: Variant) -> list[str]:
    return [name for chain in road.models.values() for name in chain]

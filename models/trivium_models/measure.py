"""How good are a function's variants, on real inputs?"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import mimetypes
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from trivium.contract import Blob, Resident, Sample, Schema, Tensor, Variant
from trivium.errors import BadInput, BundleError, TriviumError
from trivium.function import Loaded, Models
from trivium.hosts import limits, tabular
from trivium.hosts.server.audio import SOUNDS
from trivium.hosts.server.host import ServerHost, Tokenizer
from trivium.hosts.server.media import IMAGES
from trivium.hosts.server.session import Lanes, OrtSequence, OrtSession, open_graph

from . import author
from .others import Others

Array = NDArray[Any]
Feed = dict[str, Array]
Given = Mapping[str, Tensor | Resident]
Progress = Callable[[int, int], None]

Score = Callable[[Any, Any], float]
"""A function's own metric: what an answer is worth beside the wanted one, from 0 to 1."""

Metric = Annotated[
    str, Meta(pattern=r"^(cosine|top1|top5|exact|accuracy|[A-Za-z_]\w*\.py:[A-Za-z_]\w*)$")
]
"""How an answer is scored, from 0 to 1:

- `cosine`: the angle to the full variant's vector.
- `top1`, `top5`: whether the first label is the full variant's; the share of its first five.
- `exact`: whether the answer is the full variant's.
- `accuracy`: whether the answer, or its first label, is the one that the data states.
- `metric.py:score`: what that Score in a file of the function's folder says. What is wanted is
  the output that a row of the data states, else the full variant's answer.
"""

READ = {
    "image": tuple(IMAGES),
    "audio": tuple(SOUNDS),
    "video": tuple(limits.VIDEOS),
    **dict.fromkeys(tabular.READ, (tabular.CSV,)),
}
"""The media types of files that are taken as rows, by the kind of input; of others all are."""

ZOO = Path(__file__).parents[1] / "zoo"
"""Where the built-in functions' bundles are."""

RESAMPLES = 2000
KEPT_STEPS = 4
"""The same of runs in a sequence, whose state is large."""

KEPT = 32
"""How many rows' inputs of each model are kept, to time the model on."""


@contextlib.contextmanager
def bar(what: str) -> Iterator[Progress]:
    """Show progress on a terminal, and nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="row", disable=None, leave=False, file=sys.stderr) as shown:

        def progress(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield progress


class Quality(NamedTuple):
    """A mean score, and the mean relative to the full variant, each with a 95 % interval."""

    value: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float


class Ran(NamedTuple):
    """What a variant answered, and what its models were given for the first rows.

    `asked` is how often a pipeline asked each other function, in all.
    """

    outputs: list[Any]
    feeds: dict[str, list[Feed]]
    asked: dict[str, int]


class Recorder:
    """A session that keeps what it was given first."""

    def __init__(self, session: OrtSession) -> None:
        self._session = session
        self.feeds: list[Feed] = []

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Return the outputs by name."""
        self._note(feeds, KEPT)
        return await self._session.run(feeds)

    async def keep(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Resident]:
        """Return the outputs by name, where they are."""
        self._note(feeds, KEPT)
        return await self._session.keep(feeds)

    def start(self, first: Mapping[str, Tensor | Resident]) -> Steps:
        """Begin a sequence of runs."""
        return Steps(self._session.start(first), lambda feeds: self._note(feeds, KEPT_STEPS))

    def _note(self, feeds: Mapping[str, Tensor | Resident], most: int) -> None:
        if len(self.feeds) < most:
            self.feeds.append({name: _array(feed) for name, feed in feeds.items()})


class Steps:
    """A sequence whose first runs are kept, each with the state that it began with."""

    def __init__(self, sequence: OrtSequence, note: Callable[[Given], None]) -> None:
        self._sequence = sequence
        self._note = note

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Return the outputs that are not state, by name."""
        self._note({**self._sequence.state(), **feeds})
        return await self._sequence.run(feeds)

    def close(self) -> None:
        """Let the state go."""
        self._sequence.close()


def _array(feed: Tensor | Resident) -> Array:
    if isinstance(feed, Tensor):
        return np.frombuffer(feed.data, feed.dtype).reshape(feed.shape).copy()
    return np.array(feed.handle.numpy())  # type: ignore[attr-defined] # onnxruntime's own value


class Subject:
    """A function as its folder holds it: what runs, its labels and its tokenizer."""

    def __init__(
        self,
        schema: Schema,
        call: Callable[..., Any],
        labels: Sequence[str] = (),
        tokenizer: str = "",
    ) -> None:
        self.schema = schema
        self._call = call
        self._labels = labels
        self._tokenizer = tokenizer

    def run(
        self,
        variant: Variant,
        graphs: Mapping[str, Path],
        rows: Sequence[Sample],
        progress: Progress | None = None,
        zoo: Path = ZOO,
    ) -> Ran:
        """Return what the function answers to each row, on graphs by their names.

        What it asks of other functions is answered by their bundles in `zoo`.

        Raises:
            BundleError: the function can't answer a row.
        """
        return asyncio.run(self._run(variant, graphs, rows, progress or (lambda *_: None), zoo))

    async def _run(
        self,
        variant: Variant,
        graphs: Mapping[str, Path],
        rows: Sequence[Sample],
        progress: Progress,
        zoo: Path,
    ) -> Ran:
        host, lanes = ServerHost(), Lanes()
        others = Others(zoo, variant.tier, host) if self.schema.asks else None
        sessions = {
            name: Recorder(
                OrtSession(
                    [open_graph(g, graphs[g].read_bytes(), False) for g in chain],
                    lanes,
                    variant.state or {},
                )
            )
            for name, chain in variant.models.items()
        }
        tokenizer = None
        if self._tokenizer:
            tokenizer = Tokenizer(self._tokenizer, variant.settings.get("max_tokens"))
        loaded = Loaded(sessions, self._labels, tokenizer, variant.settings)
        outputs = []
        try:
            for number, row in enumerate(rows):
                progress(number, len(rows))
                try:
                    outputs.append(await self._answer(host, loaded, variant, row, others))
                except Exception as error:  # whatever the author's function raises
                    raise BundleError(
                        f"{self.schema.name} on {variant.model} can't answer row {number + 1} "
                        f"of the data: {self._said(error)}"
                    ) from error
            progress(len(rows), len(rows))
        finally:
            host.close()
            lanes.pool.shutdown()
        feeds = {name: session.feeds for name, session in sessions.items()}
        return Ran(outputs, feeds, others.asked if others else {})

    def _said(self, error: Exception) -> str:
        """Return an error's message; of one that is not ours also its name and its line."""
        if isinstance(error, TriviumError):
            return error.message
        file = inspect.getfile(self._call)
        steps = traceback.extract_tb(error.__traceback__)
        where = [f" ({file}, line {step.lineno})" for step in steps if step.filename == file]
        return f"{type(error).__name__}: {error}{where[-1] if where else ''}"

    async def _answer(
        self,
        host: ServerHost,
        loaded: Loaded,
        variant: Variant,
        row: Sample,
        others: Others | None,
    ) -> Any:
        arguments: dict[str, Any] = dict(row.options)
        for each in self.schema.inputs:
            values = []
            for place in each.places(row.inputs):
                given: Any = row.inputs[place]
                if not row.written(place, each.kind):
                    given = _blob(Path(given))
                values.append(await host.decode(each.kind, given, variant))
            arguments[each.name] = values if each.many else values[0]
        if self.schema.models:
            arguments[self.schema.models] = Models(loaded, host.clock)
        if self.schema.asks:
            arguments[self.schema.asks] = others
        if self.schema.streams:
            return [msgspec.to_builtins(part) async for part in self._call(**arguments)]
        return msgspec.to_builtins(await self._call(**arguments))


def _blob(path: Path) -> Blob:
    return Blob(media=mimetypes.guess_type(path.name)[0] or "", data=path.read_bytes())


def rows(data: Path, schema: Schema, most: int, base: Path) -> list[Sample]:
    """Return the rows of a data file or folder, at most `most`, evenly spread.

    A text file gives a text a line; a `.jsonl` file a Sample a line, whose files lie beside it;
    a folder its files, in the order of their names, those of a sub-folder with its name as output.

    Raises:
        BundleError: the data is not there, or not what the function takes.
    """
    path = data if data.is_absolute() else base / data
    if not path.exists():
        raise BundleError(f"the data {path} does not exist")
    if path.is_dir():
        found = list(_files(path, schema))
    elif path.suffix == ".jsonl":
        found = list(_lines(path, schema))
    else:
        name = _only(schema, "text", path)
        texts = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        found = [Sample(inputs={name: text}) for text in texts]
    if not found:
        raise BundleError(f"the data {path} has no row")
    step = max(1.0, len(found) / most)
    return [found[int(step * number)] for number in range(min(most, len(found)))]


def _files(path: Path, schema: Schema) -> Iterator[Sample]:
    kind = next((each.kind for each in schema.inputs if each.kind != "text"), "image")
    name = _only(schema, kind, path)
    for file in sorted(path.rglob("*")):
        taken = kind not in READ or mimetypes.guess_type(file.name)[0] in READ[kind]
        if taken and file.is_file():
            label = file.parent.name if file.parent != path else None
            yield Sample(inputs={name: str(file)}, output=label)


def _lines(path: Path, schema: Schema) -> Iterator[Sample]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=Sample)
        except msgspec.DecodeError as error:
            raise BundleError(f"{path}, line {number}: {error}") from error
        try:
            kinds = schema.kinds(row.inputs)
        except BadInput:
            raise BundleError(
                f"{path}, line {number} has the inputs {', '.join(row.inputs) or 'none'}; "
                f"{schema.name} takes {schema.takes}"
            ) from None
        inputs = {
            name: value if row.written(name, kinds[name]) else str(path.parent / value)
            for name, value in row.inputs.items()
        }
        yield Sample(inputs=inputs, options=row.options, output=row.output)


def _only(schema: Schema, kind: str, path: Path) -> str:
    if [each.kind for each in schema.inputs] != [kind]:
        takes = ", ".join(f"{each.name} ({each.kind})" for each in schema.inputs)
        raise BundleError(
            f"{path} gives one {kind} a row; {schema.name} takes {takes or 'nothing'}: state rows "
            "in a .jsonl file"
        )
    return schema.inputs[0].name


def quality(
    metric: Metric,
    full: Sequence[Any],
    given: Sequence[Any],
    data: Sequence[Sample],
    folder: Path | None = None,
) -> Quality:
    """Score answers beside the full variant's, row by row; `folder` holds a metric of its own.

    Raises:
        BundleError: the metric can't be computed from such answers.
    """
    try:
        if ":" in metric:
            own = _own(metric, folder or Path())
            truth = [
                answer if row.output is None else row.output
                for answer, row in zip(full, data, strict=True)
            ]
            best = np.array([own(a, b) for a, b in zip(full, truth, strict=True)], float)
            scores = np.array([own(a, b) for a, b in zip(given, truth, strict=True)], float)
        elif metric == "accuracy":
            if any(row.output is None for row in data):
                raise BundleError("accuracy can't be computed: not every row states its output")
            best = np.array([_right(a, row) for a, row in zip(full, data, strict=True)], float)
            scores = np.array([_right(a, row) for a, row in zip(given, data, strict=True)], float)
        else:
            compare = COMPARE[metric]
            best = np.ones(len(full))
            pairs = zip(full, given, strict=True)
            scores = np.array([compare(wanted, other) for wanted, other in pairs], float)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BundleError(
            f"{metric} can't be computed from answers such as {str(given[0])[:80]!r}: {error}"
        ) from error
    if not best.sum():
        raise BundleError(f"{metric} can't be relative: the full variant has none of it")
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(scores), (RESAMPLES, len(scores)))
    means = scores[picks].mean(1)
    bests = best[picks].mean(1)
    ratios = means[bests > 0] / bests[bests > 0]
    low, high = np.quantile(means, (0.025, 0.975))
    below, above = np.quantile(ratios, (0.025, 0.975))
    mean = float(scores.mean())
    return Quality(
        mean, float(low), float(high), mean / float(best.mean()), float(below), float(above)
    )


def _own(metric: Metric, folder: Path) -> Score:
    """Return the score of a function's own metric, which has to lie between 0 and 1."""
    file, _, name = metric.partition(":")
    module = author.load(folder / file)
    call = author.member(module, name)

    def score(answer: Any, wanted: Any) -> float:
        found: float = author.called(module, name, lambda: float(call(answer, wanted)))
        if not 0 <= found <= 1:
            raise ValueError(f"{metric} gives {found}, which is not from 0 to 1")
        return found

    return score


def _cosine(wanted: Sequence[float], given: Sequence[float]) -> float:
    size = math.hypot(*wanted) * math.hypot(*given)
    return max(0.0, sum(a * b for a, b in zip(wanted, given, strict=True)) / size) if size else 0.0


def _first(answer: Any) -> Any:
    best = answer[0] if isinstance(answer, list) else answer
    return best["label"] if isinstance(best, dict) else best


def _right(answer: Any, row: Sample) -> bool:
    return bool(_first(answer) == _first(row.output))


def _shared(wanted: Sequence[Any], given: Sequence[Any]) -> float:
    first, other = ({_first([each]) for each in answer[:5]} for answer in (wanted, given))
    return len(first & other) / len(first)


COMPARE: dict[str, Callable[[Any, Any], float]] = {
    "cosine": _cosine,
    "top1": lambda wanted, given: float(_first(wanted) == _first(given)),
    "top5": _shared,
    "exact": lambda wanted, given: float(wanted == given),
}

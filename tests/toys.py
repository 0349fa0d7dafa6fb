"""Small, real things to test with: bundles, engines with a fake host, a hop between two."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from trivium.contract import (
    JSON,
    Answer,
    Ask,
    Blob,
    Cascade,
    Fault,
    File,
    Frames,
    Input,
    Manifest,
    Option,
    Part,
    Resident,
    Road,
    Schema,
    Tensor,
    Tier,
    Variant,
    decode,
    encode,
    frame,
)
from trivium.engine import Engine
from trivium.errors import BadInput, RunFailed, TierError, TriviumError
from trivium.function import Function, Loaded
from trivium.kinds import Decoded, Given, Image, Text
from trivium.run import Step, closing
from trivium.trace import Span, Tracer

# The kernel's tests also run where no server library is.
if TYPE_CHECKING:
    from trivium.hosts.server.signing import PrivateKey, Trust

T = TypeVar("T")

TIERS = tuple(Tier)

COUNT = """
from trivium import Text, function

@function("text.count")
async def count(text: Text, least: int = 1) -> dict[str, int]:
    \"\"\"Count the words of a text.\"\"\"
    words = [word for word in text.split() if len(word) >= least]
    return {"words": len(words)}
"""


def manifest(
    name: str = "text.count",
    entry: str = "count",
    *,
    version: str = "1.0.0",
    tiers: Sequence[Tier] = TIERS,
    quality: Mapping[Tier, float] | None = None,
    ms: Mapping[Tier, tuple[float, float, float]] | None = None,
    options: tuple[Option, ...] = (),
    models: dict[str, tuple[str, ...]] | None = None,
    inputs: tuple[Input, ...] = (Input(name="text", kind="text"),),
    streams: bool = False,
    wants_models: bool = False,
    asks: bool = False,
    settings: dict[str, Any] | None = None,
    files: dict[str, File] | None = None,
) -> Manifest:
    """Return a manifest with a variant for each tier, better and slower the farther it is."""
    return Manifest(
        name=name,
        version=version,
        function=Schema(
            name=name,
            entry=entry,
            doc="A toy.",
            inputs=inputs,
            options=options,
            streams=streams,
            models="models" if wants_models or models else None,
            asks="ask" if asks else None,
        ),
        variants=tuple(
            Variant(
                tier=tier,
                model=f"toy-{tier}",
                models=models or {},
                settings=settings or {},
                quality=(quality or {}).get(tier, 0.9 + 0.05 * tier.distance),
                ms=(ms or {}).get(tier, (1.0, 10.0 * (1 + tier.distance), 50.0)),
            )
            for tier in tiers
        ),
        licence="Apache-2.0",
        files=files or {},
    )


def having(made: Manifest, **fields: Any) -> Manifest:
    """Return a manifest with some fields replaced."""
    return replace(made, **fields)


def bundle(folder: Path, source: str, made: Manifest, **files: bytes) -> Path:
    """Write a bundle into `folder` and return its own folder."""
    home = folder / made.name
    home.mkdir(parents=True, exist_ok=True)
    contents = {"function.py": source.encode(), **files}
    for name, data in contents.items():
        (home / name).write_bytes(data)
    listed = {
        name: File(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in contents.items()
    }
    raw = encode(replace(made, files=listed), JSON)
    (home / "manifest.json").write_bytes(raw)
    (home / "manifest.sha256").write_text(hashlib.sha256(raw).hexdigest())
    sign(home)
    return home


@functools.cache
def keys() -> Path:
    """Return a folder with the key that signs toys, which is there until the tests end."""
    from trivium.hosts.server import signing

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    signing.own(folder)
    return folder


def trust() -> Trust:
    """Return what believes the toys' key."""
    from trivium.hosts.server.signing import Trust

    return Trust.read([keys()])


def sign(home: Path, *signers: PrivateKey) -> None:
    """Sign what a folder holds, right or wrong, by the toys' key or others, the last one first."""
    from trivium.hosts.server import signing
    from trivium.hosts.server.bundles import SIGNATURE, Bundle

    bundle = Bundle(home)
    marks: Sequence[signing.Mark] = ()
    for key in signers or [signing.own(keys())]:
        data = signing.seal(bundle.name, signing.digests(bundle), key, marks)
        marks = decode(data, signing.Signature, JSON).dsse_envelope.signatures
    (home / SIGNATURE).write_bytes(data)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine gives, which may await nothing real: the kernel does no I/O."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise AssertionError("the kernel awaited something real")


async def collect(parts: AsyncIterator[T]) -> list[T]:
    """Return everything a stream yields."""
    return [part async for part in parts]


class FakeSession:
    """Doubles its input `x`."""

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        x = feeds["x"]
        assert isinstance(x, Tensor)
        doubled = memoryview(bytearray(x.values.nbytes)).cast("f")
        for i, value in enumerate(x.values):
            doubled[i] = 2 * value
        return {"y": Tensor(dtype="float32", shape=x.shape, data=doubled)}

    async def keep(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Resident]:
        outputs = await self.run(feeds)
        return {name: Resident(each.dtype, each.shape, each) for name, each in outputs.items()}

    def start(self, first: Mapping[str, Tensor | Resident]) -> FakeSequence:
        return FakeSequence(first)


class FakeSequence:
    """Gives the sum of all `x` so far; `hang` waits for ever, `fail` raises."""

    def __init__(self, first: Mapping[str, Tensor | Resident]) -> None:
        self.sum: float | None = 0.0
        for each in first.values():
            assert isinstance(each, Tensor)
            self.sum = sum(each.values)

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        if "fail" in feeds:
            raise RunFailed("the model failed")
        if "hang" in feeds:
            await Never()
        x = feeds["x"]
        assert isinstance(x, Tensor)
        assert self.sum is not None, "closed"
        self.sum += sum(x.values)
        return {"y": Tensor.of("float32", (1,), [self.sum])}

    def close(self) -> None:
        self.sum = None


class Never:
    """What never comes."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class FakeHost:
    """A world without threads, files or time: its clock is turned by hand, and by `cost`."""

    def __init__(self, cost: float = 1.0, failing: TriviumError | None = None) -> None:
        self.now = 0.0
        self.cost = cost
        self.failing = failing
        self.reports: list[tuple[BaseException, str | None]] = []
        self.lanes = 1
        self.shadows = 0.0
        self.postponed: list[Callable[[], Awaitable[None]]] = []

    def cold(self, function: Function) -> float:
        return 0.0

    def clock(self) -> float:
        return self.now

    async def open(self, function: Function) -> Loaded:
        self.now += self.cost
        if self.failing is not None:
            raise self.failing
        sessions = {name: FakeSession() for name in function.variant.models}
        return Loaded(sessions, ["zero", "one", "two"], None, function.variant.settings)

    async def decode(self, kind: str, value: str | Blob, variant: Variant) -> Given:
        if kind == "text":
            if not isinstance(value, str):
                raise BadInput("text is given as a string")
            return Text(value)
        assert isinstance(value, Blob)
        return Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=value.data), value)

    async def encode(self, value: Decoded) -> Blob:
        assert isinstance(value, Image)
        assert isinstance(value.pixels, Tensor)
        return Blob(media="image/raw", data=bytes(value.pixels.data))

    async def race(
        self,
        first: Callable[[], Awaitable[T]],
        then: Callable[[], Awaitable[T]],
        after_ms: float | None,
    ) -> T:
        try:
            return await first()
        except TierError:
            return await then()

    async def limit(self, work: Awaitable[T], ms: float | None) -> T:
        return await work

    async def together(self, works: Sequence[Awaitable[T]]) -> list[T]:
        return [await work for work in works]

    def later(self, work: Callable[[], Awaitable[None]]) -> None:
        self.postponed.append(work)

    def alike(self, one: Any, other: Any) -> float | None:
        return float(one == other)

    def report(self, error: BaseException, where: str | None) -> None:
        self.reports.append((error, where))


class Hop:
    """The next engine, reached through real bytes: what can't be packed does not arrive."""

    def __init__(self, engine: Engine, ms: float = 5.0, down: TriviumError | None = None) -> None:
        self.engine = engine
        self.known = True
        self.ms = ms
        self.down = down
        self.asks: list[Ask] = []

    def roads(self, function: str) -> Sequence[Road]:
        return [
            replace(road, ms=(road.ms[0] + self.ms, road.ms[1] + self.ms, road.ms[2] + self.ms))
            for road in self.engine.roads(function)
        ]

    def functions(self) -> Sequence[str]:
        return list(self.engine.functions)

    async def infer(self, ask: Ask) -> Answer:
        return decode(encode(await self.engine.infer(self._crossed(ask))), Answer)

    async def stream(self, ask: Ask) -> AsyncIterator[Part | Answer]:
        frames = Frames()
        async with closing(self.engine.stream(self._crossed(ask))) as parts:
            async for part in parts:
                for crossed in frames.feed(frame(part)):
                    if isinstance(crossed, Fault):
                        raise crossed.error()
                    yield crossed

    def _crossed(self, ask: Ask) -> Ask:
        if self.down is not None:
            raise self.down
        asked = decode(encode(ask), Ask)
        self.asks.append(asked)
        return asked


class Cut(BaseException):
    """The process ended here."""


class Diary:
    """A journal in memory, whose writer is killed before its `last` word."""

    def __init__(self, last: int | None = None) -> None:
        self.done: dict[str, Answer] = {}
        self.told: list[str] = []
        self.asked: list[str] = []
        self.last = last

    async def recall(self, name: str, step: Step) -> Answer | None:
        self._tell(f"recall {name}")
        assert step.name == name
        return self.done.get(name)

    async def began(self, name: str, step: Step) -> None:
        self._tell(f"began {name}")
        self.asked.append(name)

    async def ended(self, name: str, step: Step, found: Answer | TriviumError) -> None:
        if isinstance(found, TriviumError):
            self._tell(f"{found.code} {name}")
            return
        assert name not in self.done
        self._tell(f"done {name}")
        self.done[name] = found

    def _tell(self, word: str) -> None:
        if self.last is not None and len(self.told) >= self.last:
            raise Cut
        self.told.append(word)


def load(source: str, made: Manifest, tier: Tier, digest: str = "0" * 64) -> Function:
    """Return a function loaded for a tier."""
    variant = made.variant(tier)
    assert variant is not None
    return Function(made, variant, source, digest)


def engine(
    tier: Tier,
    *functions: tuple[str, Manifest],
    upstream: Hop | None = None,
    host: FakeHost | None = None,
    spans: list[Span] | None = None,
    development: bool = False,
    most: int = 256,
) -> Engine:
    """Return an engine on a fake host that serves `functions`: (source, manifest) pairs."""
    made = Engine(
        tier,
        host or FakeHost(),
        upstream=upstream,
        tracer=Tracer(tier, None if spans is None else spans.append),
        development=development,
        most=most,
    )
    for source, described in functions:
        if described.variant(tier) is not None:
            made.add(load(source, described, tier))
    return made


PAGE, EDGE, CLOUD = Tier
TEXT: dict[str, str | Blob] = {"text": "one two three"}

COUNTED = (
    COUNT,
    manifest(options=(Option(name="least", schema={"type": "integer"}, default=1),)),
)


SPELL = """
from collections.abc import AsyncIterator
from trivium import Text, function

@function("text.spell")
async def spell(text: Text) -> AsyncIterator[object]:
    for letter in text:
        if letter == "!":
            raise ValueError("too loud")
        yield object() if letter == "?" else letter
"""

SPELLED = (SPELL, manifest("text.spell", "spell", streams=True))


def three(
    *functions: tuple[str, Any], spans: list[Span] | None = None
) -> tuple[Engine, Engine, Engine]:
    cloud = engine(CLOUD, *functions, spans=spans)
    edge = engine(EDGE, *functions, upstream=Hop(cloud), spans=spans)
    page = engine(PAGE, *functions, upstream=Hop(edge), spans=spans)
    return page, edge, cloud


def hop(engine: Engine) -> Hop:
    assert isinstance(engine.upstream, Hop)
    return engine.upstream


def ask(engine: Engine, name: str = "text.count", **fields: Any) -> Answer:
    return run(engine.infer(Ask(function=name, **{"inputs": TEXT, **fields})))


def parts(engine: Engine, **fields: Any) -> list[Any]:
    asked = Ask(**{"function": "text.spell", "inputs": {"text": "abc"}, **fields})
    return run(collect(engine.stream(asked)))


GUESS = """
from trivium import Text, function

@function("text.guess")
async def guess(text: Text, score: float = 0.5) -> list[dict[str, object]]:
    return [{"label": "x", "score": score}] if text else []
"""


def guessing(**prices: float) -> tuple[str, Any]:
    """Return a function whose page and edge want to be three fourths sure."""
    made = manifest(
        "text.guess",
        "guess",
        options=(Option(name="score", schema={"type": "number"}, default=0.5),),
        quality={PAGE: 0.9, EDGE: 0.9, CLOUD: 1.0},
    )
    cascade = Cascade(
        confidence="0.score",
        scale=1.0,
        offset=0.0,
        threshold=0.75,
        rate=0.2,
        agreement=0.98,
        agreement_low=0.97,
        agreement_high=0.99,
        alone=0.9,
    )
    fields = [{"spend": prices[each.tier]} if prices else {} for each in made.variants]
    made = having(
        made,
        variants=tuple(
            replace(each, **more, **({} if each.tier == CLOUD else {"cascade": cascade}))
            for each, more in zip(made.variants, fields, strict=True)
        ),
    )
    return GUESS, made

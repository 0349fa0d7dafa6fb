"""Which nouns cross a tier, and what do they look like on the wire?

MessagePack between tiers, JSON for people. New fields get defaults, types never change, and
unknown keys are skipped, so that a page and a cloud of different ages understand each other.
"""

from __future__ import annotations

import enum
import math
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from .errors import ERRORS, BadInput, TooLarge, TriviumError
from .nouns import Noun
from .tensors import CODES as CODES
from .tensors import Resident as Resident
from .tensors import Tensor as Tensor

JSON = "application/json"
PROBLEM = "application/problem+json"
MSGPACK = "application/msgpack"
FRAMES = "application/vnd.trivium.frames"
EVENTS = "text/event-stream"

T = TypeVar("T")


class Tier(enum.StrEnum):
    """A place where a function can run, from the nearest to the farthest.

    `distance` is 0 for the page, 1 for the edge, 2 for the cloud.
    """

    PAGE = "page"
    EDGE = "edge"
    CLOUD = "cloud"

    distance: int
    # An enum's own is Python, and tiers are keys of much.
    __hash__ = str.__hash__


for _distance, _tier in enumerate(Tier):
    _tier.distance = _distance


class Blob(Noun, frozen=True, kw_only=True):
    """Bytes and their media type; in the page `data` may be a JavaScript typed array."""

    media: str
    data: bytes


class Budget(Noun, frozen=True, kw_only=True):
    """What an ask may use: milliseconds (none: no limit), least quality, farthest tier, and price.

    `spend` caps the price of all roads that it may take, one after or beside another.
    """

    ms: float | None = None
    quality: float = 0.0
    reach: Tier = Tier.CLOUD
    spend: float | None = None

    def __post_init__(self) -> None:
        if self.ms is not None and not 0 < self.ms < math.inf:
            raise ValueError(f"ms is {self.ms}; it must be a finite number above 0")
        if not 0 <= self.quality <= 1:
            raise ValueError(f"quality is {self.quality}; it must be from 0 to 1")
        if self.spend is not None and not 0 <= self.spend < math.inf:
            raise ValueError(f"spend is {self.spend}; it must be a finite number, 0 or above")


class Ask(Noun, frozen=True, kw_only=True):
    """One request. `tiers`, where given, are the only ones that may answer, best first."""

    function: str = ""
    version: str = ""
    inputs: dict[str, str | Blob] = {}
    options: dict[str, Any] = {}
    budget: Budget = Budget()
    tiers: tuple[Tier, ...] = ()
    trace: str = ""


class Road(Noun, frozen=True, kw_only=True):
    """One tier on which a function can be answered, and what to expect there.

    `ms` holds the expected p5, p50 and p95 in milliseconds, seen from whoever advertises it, `hop`
    of them on the way to the next tier. `queue` ms come before, `cold` more if it must be loaded.
    A plan's are of its ask: with the `chance` to be in time, none if the road was left out, and
    `why` it is first, comes later, or was left out.
    """

    tier: Tier
    version: str
    model: str
    quality: float
    ms: tuple[float, float, float]
    ready: bool = True
    hop: float = 0.0
    queue: float = 0.0
    cold: float = 0.0
    spend: float = 0.0
    chance: float | None = None
    why: str = ""

    def behind(self, hop: float) -> Road:
        """Return the road as seen from `hop` milliseconds farther away."""
        low, middle, high = self.ms
        return msgspec.structs.replace(self, ms=(low + hop, middle + hop, high + 2 * hop), hop=hop)


class Plan(Noun, frozen=True, kw_only=True):
    """The roads to take, in order, and one sentence that says why.

    After `hedge_ms` without an answer the next road is tried beside the first.
    """

    tiers: tuple[Tier, ...]
    reason: str
    hedge_ms: float | None = None
    roads: tuple[Road, ...] = ()


class Times(Noun, frozen=True, kw_only=True):
    """Where the milliseconds went: decoding, Python, the model, hops; `way` is the first hop.

    `before` are those after which the road that answered was begun, because others were before it.
    """

    decode: float = 0.0
    python: float = 0.0
    run: float = 0.0
    hop: float = 0.0
    way: float = 0.0
    before: float = 0.0

    @property
    def total(self) -> float:
        """Return what the road took that answered, in milliseconds."""
        return self.decode + self.python + self.run + self.hop


class Part(Noun, frozen=True, kw_only=True, tag_field="kind", tag="part"):
    """One piece of a streamed answer."""

    output: Any


class Answer(Noun, frozen=True, kw_only=True, tag_field="kind", tag="answer"):
    """One result, and how it came about; `queue` ms is the wait there is now where it did.

    `expected` holds the p5, p50 and p95 that the plan had for the road that answered, `took` the
    milliseconds that road really took: both as seen from the tier that planned. `spent` is the
    price of all that was begun. `confidence` is how likely the full variant says the same, where
    that is known. `cached`, where there is a cache, is `hit`, `miss`, `stale` or `bypass`.
    """

    function: str
    version: str
    output: Any
    tier: Tier
    model: str
    plan: Plan
    ms: Times
    trace: str = ""
    queue: float = 0.0
    expected: tuple[float, float, float] | None = None
    took: float = 0.0
    spent: float = 0.0
    confidence: float | None = None
    cached: str = ""


class Fault(Noun, frozen=True, kw_only=True, tag_field="kind", tag="fault"):
    """An error on its way to another tier."""

    code: str
    message: str
    tier: str | None = None
    where: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, error: TriviumError) -> Fault:
        """Return the form in which `error` crosses to another tier."""
        return cls(
            code=error.code,
            message=error.message,
            tier=error.tier,
            where=error.where,
            retry_after=error.retry_after,
        )

    def error(self) -> TriviumError:
        """Rebuild the error that another tier sent; an unknown code is `internal`."""
        kind = ERRORS.get(self.code, TriviumError)
        return kind(self.message, tier=self.tier, where=self.where, retry_after=self.retry_after)


class Refusal(Noun, frozen=True, kw_only=True):
    """The body of an error response in MessagePack."""

    error: Fault


class Problem(Noun, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="fault"):
    """An error in JSON, by RFC 9457: a response's body, an event's data, a WebSocket's message.

    `type` and `title` are of the `code`; `detail` is about what went wrong this time.
    `retry_after` is in seconds.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    tier: str | None = None
    where: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, fault: Fault | TriviumError, status: int | None = None) -> Problem:
        """Return how people are told of `fault`, with its code's status or another."""
        if isinstance(fault, TriviumError):
            fault = Fault.of(fault)
        kind = ERRORS.get(fault.code, TriviumError)
        title, _, _ = (kind.__doc__ or fault.code).partition("\n")
        return cls(
            type=f"urn:trivium:error:{fault.code}",
            title=title.rstrip("."),
            status=status or kind.status,
            detail=fault.message,
            code=fault.code,
            tier=fault.tier,
            where=fault.where,
            retry_after=fault.retry_after,
        )

    def error(self) -> TriviumError:
        """Rebuild the error that was told of; an unknown code is `internal`."""
        kind = ERRORS.get(self.code, TriviumError)
        return kind(self.detail, tier=self.tier, where=self.where, retry_after=self.retry_after)


class File(Noun, frozen=True, kw_only=True):
    """What a file of a bundle must be: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: int


class Input(Noun, frozen=True, kw_only=True):
    """A parameter that takes what the ask carries.

    One that takes several values, at most `many`, is a list. In an ask they are `NAME.0`, `NAME.1`
    and so on.
    """

    name: str
    kind: str
    many: int | msgspec.UnsetType = msgspec.UNSET

    def places(self, given: Collection[str]) -> list[str]:
        """Return the names in an ask under which its values are, as far as they go."""
        if not self.many:
            return [self.name] if self.name in given else []
        row: list[str] = []
        while (name := f"{self.name}.{len(row)}") in given and len(row) < self.many:
            row.append(name)
        return row


class Option(Noun, frozen=True, kw_only=True):
    """A parameter that takes a setting of the ask, described by a JSON schema."""

    name: str
    schema: dict[str, Any]
    required: bool = False
    default: Any = None


class Schema(Noun, frozen=True, kw_only=True):
    """What a function is called and what it takes, read from its hints when it was built.

    `models` and `asks` are the names of the parameters that receive the sessions and the asker.
    """

    name: str
    entry: str
    doc: str
    inputs: tuple[Input, ...]
    options: tuple[Option, ...] = ()
    output: dict[str, Any] = {}
    streams: bool = False
    models: str | None = None
    asks: str | None = None

    def kinds(self, given: Collection[str]) -> dict[str, str]:
        """Return the kind of each input in an ask; raise BadInput if one is missing or unknown."""
        found = {place: each.kind for each in self.inputs for place in each.places(given)}
        if len(found) != len(given) or not all(each.places(given) for each in self.inputs):
            raise BadInput(
                f"{self.name} takes the inputs: {self.takes}; "
                f"the ask has: {', '.join(given) or 'none'}"
            )
        return found

    @property
    def takes(self) -> str:
        """Return the names of the inputs, for messages."""
        names = [
            f"{each.name}.0 to {each.name}.{each.many - 1}" if each.many else each.name
            for each in self.inputs
        ]
        return ", ".join(names) or "none"


class Cascade(Noun, frozen=True, kw_only=True):
    """How sure a variant's answer must be to be kept, where a better road could be asked.

    `confidence` is the way to a number from 0 to 1 in its output, such as `0.score`: scaled, it is
    the probability that the full variant says the same (`scale` is one over a temperature). Below
    `threshold` the better road is asked, for a share `rate` of held-out `data`; answers then agree
    with the full variant's for a share `agreement` of it, and `alone` without that.
    """

    confidence: str
    scale: float
    offset: float
    threshold: float
    rate: float
    agreement: float
    agreement_low: float
    agreement_high: float
    alone: float
    data: str = ""

    def sure(self, output: Any) -> float | None:
        """Return how likely the full variant says the same; nothing if the output tells nothing."""
        try:
            for step in self.confidence.split("."):
                if isinstance(output, list | tuple):
                    output = output[int(step)]
                elif isinstance(output, dict):
                    output = output[step]
                else:
                    output = getattr(output, step)
            share = min(1 - 1e-6, max(1e-6, float(output)))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None
        odds = self.scale * math.log(share / (1 - share)) + self.offset
        return 1 / (1 + math.exp(-max(-40.0, min(40.0, odds))))


class Variant(Noun, frozen=True, kw_only=True):
    """A function for one tier.

    `models` maps each session's name to graphs that run in a row, outputs feeding inputs by name.
    `state` maps inputs that a sequence of runs carries on to the outputs that are their next
    values, such as `past_*` to `present_*`; a `*` stands for the same text in both.
    `quality` is relative to the full variant, by `metric` on `data`; `gate` says whether it came
    near enough. `ms` holds the p5, p50 and p95 expected on that tier, `spend` the price of an ask.
    """

    tier: Tier
    model: str
    models: dict[str, tuple[str, ...]] = {}
    # Left out where unset: else a younger field would change the version of every bundle.
    state: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    settings: dict[str, Any] = {}
    quality: float = 1.0
    quality_low: float | None = None
    quality_high: float | None = None
    ms: tuple[float, float, float] = (1.0, 10.0, 50.0)
    batch: int | None = None
    metric: str = ""
    data: str = ""
    gate: str = ""
    spend: float | msgspec.UnsetType = msgspec.UNSET
    cascade: Cascade | msgspec.UnsetType = msgspec.UNSET


class Sample(Noun, frozen=True, kw_only=True):
    """A real input: text, and a table or series of some lines, as it is; else the name of a file.

    `output` is what the full variant answers.
    """

    inputs: dict[str, str]
    options: dict[str, Any] = {}
    output: Any = None

    def written(self, name: str, kind: str) -> bool:
        """Return whether an input is written out here, and in no file."""
        return kind == "text" or (kind in ("table", "series") and "\n" in self.inputs[name])


class Manifest(Noun, frozen=True, kw_only=True):
    """What a bundle holds, and what it was made of.

    `recipe` and `sources` are hashes: of the recipe, and of each package that weights came from.
    `parents` are the files that each made file was made of. One that is `optional` is large: a
    server has it when it was pulled, a page when it was asked to load it.
    """

    name: str
    version: str
    function: Schema
    variants: tuple[Variant, ...]
    licence: str
    lineage: tuple[str, ...] = ()
    labels: str | None = None
    tokenizer: str | None = None
    samples: tuple[Sample, ...] = ()
    recipe: str = ""
    sources: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    files: dict[str, File] = {}
    optional: bool | msgspec.UnsetType = msgspec.UNSET

    def variant(self, tier: Tier) -> Variant | None:
        """Return the variant for `tier`, or none if the function does not run there."""
        return next((variant for variant in self.variants if variant.tier == tier), None)


class Upstream(Protocol):
    """The next hop, and the roads behind it as it advertises them.

    `known` is whether it has ever done so: until then, what it lacks can't be told.
    """

    known: bool

    def functions(self) -> Sequence[str]:
        """Return the names for which roads are advertised."""

    def roads(self, function: str) -> Sequence[Road]:
        """Return what was last advertised, the way there included; never waits."""

    async def infer(self, ask: Ask) -> Answer:
        """Ask the next hop."""

    def stream(self, ask: Ask) -> AsyncIterator[Part | Answer]:
        """Ask the next hop for parts; the last is the answer."""


_part: msgspec.msgpack.Decoder[Part | Answer | Fault] = msgspec.msgpack.Decoder(
    Part | Answer | Fault
)
_encode: dict[str, Any] = {JSON: msgspec.json.Encoder(), MSGPACK: msgspec.msgpack.Encoder()}


def encode(value: object, media: str = MSGPACK) -> bytes:
    """Return `value` as JSON or MessagePack."""
    data: bytes = _encode[media].encode(value)
    return data


def decode(data: bytes | memoryview[int], kind: type[T], media: str = MSGPACK) -> T:
    """Return `data` as a `kind`; raise BadInput that says which field is wrong and why."""
    read = msgspec.json.decode if media == JSON else msgspec.msgpack.decode
    try:
        return read(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        form = "JSON" if media == JSON else "MessagePack"
        raise BadInput(f"the {form} is not a valid {kind.__name__}: {error}") from error


def frame(part: Part | Answer | Fault) -> bytes:
    """Return `part` as MessagePack behind its length: four bytes, big-endian."""
    body = encode(part)
    return len(body).to_bytes(4, "big") + body


class Frames:
    """Cut a byte stream back into the parts that `frame` made."""

    def __init__(self, most: int = 64 << 20) -> None:
        self._most = most
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Part | Answer | Fault]:
        """Yield each part that is complete with `data`; a frame above `most` bytes is refused."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            end = 4 + int.from_bytes(buffer[:4], "big")
            if end > self._most:
                raise TooLarge(f"a frame of {end} bytes is above the limit of {self._most}")
            if len(buffer) < end:
                return
            body = bytes(buffer[4:end])
            del buffer[:end]
            yield _part.decode(body)

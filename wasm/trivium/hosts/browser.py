"""How does the page run models and decode inputs, through JavaScript?

`bridge` is the object of `wasm/page` by this name, described here by protocols.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from js import console
from msgspec.structs import replace
from pyodide.ffi import JsException, to_js

from ..contract import (
    JSON,
    Answer,
    Ask,
    Blob,
    Fault,
    Manifest,
    Part,
    Resident,
    Tensor,
    Tier,
    Variant,
    decode,
    encode,
)
from ..engine import Engine
from ..errors import (
    BundleError,
    Conflict,
    RunFailed,
    TriviumError,
)
from ..function import Function, Loaded
from ..kinds import Audio, Decoded, Given, Image, Video
from ..trace import Span, Tracer
from . import limits, tabular
from .fetch import Buffer, FetchUpstream, Gateway, taken, translated
from .films import Film, Handle, Reel
from .timing import Timing


class Output(Protocol):
    """One output of a model."""

    name: str
    dtype: str
    shape: Sequence[int]
    data: Buffer


class Graphs(Protocol):
    """Graphs that run in a row."""

    def run(self, *pairs: object) -> Awaitable[Sequence[Output]]: ...
    def keep(self, *pairs: object) -> Awaitable[Sequence[Kept]]: ...
    def start(self, *pairs: object) -> Runs: ...


class Kept(Protocol):
    """One output of a model that stays in JavaScript."""

    name: str
    dtype: str
    shape: Sequence[int]
    handle: object


class Runs(Protocol):
    """Runs of graphs that hand on their state."""

    def run(self, *pairs: object) -> Awaitable[Sequence[Output]]: ...
    def close(self) -> None: ...


class Line(Protocol):
    """The tokens of one text; `ids` and `mask` are handles."""

    count: int
    ids: object
    mask: object


class Lines(Protocol):
    """A tokenizer."""

    def encode(self, text: str) -> Line: ...
    def decode(self, ids: object) -> str: ...


class Paged(Protocol):
    """A file that was opened, whose pages can be drawn."""

    count: int

    def draw(self, number: int) -> Awaitable[Handle]: ...
    def close(self) -> None: ...


class File(Protocol):
    """A media type and bytes."""

    media: str
    data: Buffer


class Bridge(Protocol):
    """What runs models and decodes inputs: `bridge.ts`."""

    def tensor(self, dtype: str, shape: object, data: object) -> object: ...
    def picture(self, data: object, media: str, bound: int) -> Awaitable[Handle]: ...
    def sound(self, data: object, media: str) -> Awaitable[Handle]: ...
    def pages(self, data: object, media: str, bound: int) -> Awaitable[Paged]: ...
    def video(self, data: object, media: str, bound: int) -> Awaitable[Film]: ...
    def file(self, handle: object) -> Awaitable[File]: ...
    def part(self, handle: object, first: int, last: int) -> Handle: ...


class Cuttable(Resident):
    """A tensor in JavaScript of which ranges can be had."""

    __slots__ = ("_bridge",)

    def __init__(self, bridge: Bridge, dtype: str, handle: Handle) -> None:
        super().__init__(dtype, tuple(handle.dims), handle)
        self._bridge = bridge

    def __getitem__(self, index: slice) -> Cuttable:
        first, last, stride = index.indices(len(self))
        if stride != 1:
            raise IndexError(f"slice step {stride} is not supported; use 1")
        cut = self._bridge.part(self.handle, first, max(first, last))
        return Cuttable(self._bridge, self.dtype, cut)


class Session:
    """A model in ONNX Runtime for the web."""

    def __init__(self, bridge: Bridge, graphs: Graphs) -> None:
        self._bridge = bridge
        self._graphs = graphs

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Run the model; residents stay on the other side, outputs come over in one copy."""
        return await _come(self._graphs.run(*self.pairs(feeds)))

    async def keep(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Resident]:
        """Run the model; its outputs stay on the other side."""
        try:
            outputs = await self._graphs.keep(*self.pairs(feeds))
        except JsException as error:
            raise translated(error) from error
        return {each.name: Resident(each.dtype, tuple(each.shape), each.handle) for each in outputs}

    def start(self, first: Mapping[str, Tensor | Resident]) -> Runner:
        """Begin a sequence of runs."""
        return Runner(self, self._graphs.start(*self.pairs(first)))

    def pairs(self, feeds: Mapping[str, Tensor | Resident]) -> list[object]:
        """Return names and handles in turn."""
        pairs: list[object] = []
        for name, feed in feeds.items():
            pairs += (name, feed.handle if isinstance(feed, Resident) else self._handle(feed))
        return pairs

    def _handle(self, tensor: Tensor) -> object:
        view = memoryview(tensor.data).cast("B")
        return self._bridge.tensor(tensor.dtype, to_js(tensor.shape), to_js(view))


class Runner:
    """Runs of a model whose state stays in JavaScript."""

    def __init__(self, session: Session, runs: Runs) -> None:
        self._session = session
        self._runs = runs

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Run the model once more; outputs that are not state come over in one copy."""
        return await _come(self._runs.run(*self._session.pairs(feeds)))

    def close(self) -> None:
        """Let the state go."""
        self._runs.close()


async def _come(running: Awaitable[Sequence[Output]]) -> dict[str, Tensor]:
    try:
        outputs = await running
    except JsException as error:
        raise translated(error) from error
    return {
        each.name: Tensor(dtype=each.dtype, shape=tuple(each.shape), data=each.data.to_bytes())
        for each in outputs
    }


class Encoded:
    """The tokens of one text, held in JavaScript."""

    __slots__ = ("ids", "mask")

    def __init__(self, line: Line) -> None:
        shape = (1, line.count)
        self.ids = Resident("int64", shape, line.ids)
        self.mask = Resident("int64", shape, line.mask)


class Tokenizer:
    """The tokenizer of a bundle, with the variant's limit."""

    def __init__(self, lines: Lines, most: int | None) -> None:
        self._lines = lines
        self._most = most

    def encode(self, text: str) -> Encoded:
        """Return the tokens of `text`; raise TooLarge above the variant's `max_tokens`."""
        limits.tokenizable(text, self._most)
        try:
            line = self._lines.encode(text)
        except JsException as error:
            raise translated(error) from error
        limits.tokens(line.count, self._most)
        return Encoded(line)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        try:
            return self._lines.decode(to_js(list(ids)))
        except JsException as error:
            raise translated(error) from error


class Pages:
    """The pages of one file, drawn in JavaScript."""

    def __init__(self, bridge: Bridge, data: object, media: str, bound: int) -> None:
        self._bridge = bridge
        self._file = (data, media, bound)
        self._paged: Paged | None = None

    async def count(self) -> int:
        """Return how many pages there are."""
        return (await self._opened()).count

    async def draw(self, number: int) -> Image:
        """Return a page's picture."""
        paged = await self._opened()
        try:
            pixels = await paged.draw(number)
        except JsException as error:
            raise translated(error) from error
        return Image(Resident("uint8", tuple(pixels.dims), pixels))

    async def _opened(self) -> Paged:
        if self._paged is None:
            try:
                self._paged = await self._bridge.pages(*self._file)
            except JsException as error:
                raise translated(error) from error
        return self._paged

    def __del__(self) -> None:
        if self._paged is not None:
            self._paged.close()


class Browser(Timing):
    """The page's host."""

    def __init__(self, bridge: Bridge) -> None:
        # Weak: a function that was replaced takes what it held along.
        self.loaded: WeakKeyDictionary[Function, Loaded] = WeakKeyDictionary()
        self._bridge = bridge

    async def open(self, function: Function) -> Loaded:
        """Return the function's sessions: a function is added once they are there."""
        return self.loaded[function]

    async def decode(self, kind: str, value: str | Blob, variant: Variant) -> Given:
        """Return a text as it is, and an image as a handle of its pixels."""
        if kind == "text":
            return limits.text(value)
        if kind in tabular.READ:
            plain = value if isinstance(value, str) else replace(value, data=taken(value))
            return tabular.READ[kind](plain)
        blob = limits.blob(kind, value)
        bound: int = variant.settings.get("shrink_above") or 0
        if kind == "document":
            data: Any = blob.data  # a typed array
            return limits.document(
                blob,
                lambda start, end: data.subarray(start, end).to_bytes(),
                lambda media: Pages(self._bridge, data, media, bound),
            )
        try:
            if kind == "video":
                film = await self._bridge.video(blob.data, blob.media, bound)
                return Video(
                    Reel(film, lambda each: Cuttable(self._bridge, "float32", each), blob), blob
                )
            if kind == "audio":
                samples = await self._bridge.sound(blob.data, blob.media)
                return Audio(Cuttable(self._bridge, "float32", samples), blob)
            pixels = await self._bridge.picture(blob.data, blob.media, bound)
        except JsException as error:
            raise translated(error) from error
        return Image(Resident("uint8", tuple(pixels.dims), pixels), blob)

    async def encode(self, value: Decoded) -> Blob:
        """Return a file from which another tier decodes the same."""
        held = value.pixels if isinstance(value, Image) else None
        held = value.samples if isinstance(value, Audio) else held
        if not isinstance(held, Resident):
            raise RunFailed(f"{type(value).__name__} without a file can't go to another tier")
        try:
            file = await self._bridge.file(held.handle)
        except JsException as error:
            raise translated(error) from error
        return Blob(media=file.media, data=file.data.to_bytes())

    def report(self, error: BaseException, where: str | None) -> None:
        """Write the traceback to the browser's console."""
        lines = "".join(traceback.format_exception(error))
        console.error(f"{where}\n{lines}" if where else lines)


class Page:
    """The page's engine, as JavaScript drives it."""

    def __init__(
        self,
        bridge: Bridge,
        gateway: Gateway,
        emit: Callable[[str], None],
        resync: Callable[[], Awaitable[None]],
    ) -> None:
        self._bridge = bridge
        self._host = Browser(bridge)
        self._resync = resync
        self._upstream = FetchUpstream(gateway, self._host.clock)

        def export(span: Span) -> None:
            if span.sampled or span.name.startswith(("infer ", "stream ")):
                emit(encode(span, JSON).decode())

        # In development mode: the function's source is the page's own, so its lines are no secret.
        self._engine = Engine(
            Tier.PAGE,
            self._host,
            upstream=self._upstream,
            tracer=Tracer("trivium.page", export),
            development=True,
        )
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def shadow(self, share: float) -> None:
        """Let another road be asked as well after this share of the asks."""
        self._host.shadows = share

    async def start(self) -> None:
        """Learn the roads from the edge on."""
        await self._upstream.refresh()

    def add(
        self,
        manifest: str,
        source: str,
        digest: str,
        labels: str,
        lines: Lines | None,
        models: Any,
    ) -> None:
        """Serve a function whose bundle was checked and whose sessions are there."""
        read = decode(manifest.encode(), Manifest, JSON)
        variant = read.variant(Tier.PAGE)
        if variant is None:
            raise BundleError(f"{read.name} has no variant for the page")
        function = Function(read, variant, source, digest)
        self._host.loaded[function] = Loaded(
            {name: Session(self._bridge, models[name]) for name in variant.models},
            labels.splitlines(),
            None if lines is None else Tokenizer(lines, variant.settings.get("max_tokens")),
            variant.settings,
        )
        self._engine.add(function)

    async def remove(self, name: str, version: str) -> None:
        """Stop serving one version; return when no ask runs any more that may use it."""
        self._engine.remove(name, version)
        if running := list(self._tasks.values()):
            await asyncio.wait(running)

    def ask(
        self, number: int, text: str, blobs: Any, stream: bool, say: Callable[[str], None]
    ) -> None:
        """Answer an ask given as JSON with its blobs beside it; `say` is called for each part."""
        task = asyncio.ensure_future(self._answer(text, blobs, stream, say))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    def cancel(self, number: int) -> None:
        """Give up an ask."""
        if number in self._tasks:
            self._tasks[number].cancel()

    async def _answer(
        self, text: str, blobs: Any, stream: bool, say: Callable[[str], None]
    ) -> None:
        said: Part | Answer | Fault
        try:
            ask = decode(text.encode(), Ask, JSON)
            given = {name: Blob(media=media, data=data) for name, media, data in blobs}
            ask = replace(ask, inputs={**ask.inputs, **given})
            if stream:
                async for said in self._engine.stream(ask):
                    say(encode(said, JSON).decode())
                return
            said = await self._infer(ask)
        except TriviumError as error:
            said = Fault.of(error)
        except Exception as error:  # a bug of ours: the caller gets an error all the same
            self._host.report(error, None)
            said = Fault(code=TriviumError.code, message=f"{type(error).__name__}: {error}")
        say(encode(said, JSON).decode())

    async def _infer(self, ask: Ask) -> Answer:
        """Ask under the version held here, if the edge serves it too; get a newer one once."""
        try:
            return await self._engine.infer(self._versioned(ask))
        except Conflict:
            await self._resync()
            await self._upstream.refresh()
            if ask.version:
                raise
            return await self._engine.infer(self._versioned(ask))

    def _versioned(self, ask: Ask) -> Ask:
        here = self._engine.functions.get(ask.function)
        if ask.version or not here:
            return ask
        newest = next(reversed(here))
        there = {road.version for road in self._upstream.roads(ask.function)}
        return replace(ask, version=newest) if newest in there else ask


def boot(
    bridge: Bridge,
    gateway: Gateway,
    emit: Callable[[str], None],
    resync: Callable[[], Awaitable[None]],
) -> Page:
    """Return the page tier, without functions as yet."""
    return Page(bridge, gateway, emit, resync)

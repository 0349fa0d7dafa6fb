"""What do the edge's and the cloud's engines run on?"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import tokenizers

from ...contract import Blob, Tensor, Variant
from ...errors import BadInput, BundleError, ModelNotReady, RunFailed
from ...function import Function, Loaded
from ...kinds import Audio, Decoded, Given, Image
from ...loops import use
from .. import limits, tabular
from ..timing import Timing
from . import audio, media, video
from .bundles import Bundle
from .compiled import engines
from .documents import Pages
from .loops import NumPy
from .session import Lanes, OrtSession, open_graph, tensor

T = TypeVar("T")

LOAD_MS = 500.0
"""How long a function is expected to load until another was; then as long as that."""

use(NumPy())


class Tokens:
    """The ids and mask of one text, each int64 [1, t]."""

    def __init__(self, encoding: tokenizers.Encoding) -> None:
        self.ids = tensor(np.array([encoding.ids], dtype=np.int64))
        self.mask = tensor(np.array([encoding.attention_mask], dtype=np.int64))


class Tokenizer:
    """Hugging Face's tokenizers over a bundle's `tokenizer.json`."""

    def __init__(self, source: str, most: int | None) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(source)
        except Exception as error:  # tokenizers raises Exception itself
            raise BundleError(f"tokenizer.json can't be loaded: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._most = most

    def encode(self, text: str) -> Tokens:
        """Return the tokens of `text`; raise TooLarge above the variant's `max_tokens`."""
        limits.tokenizable(text, self._most)
        encoding = self._tokenizer.encode(text)
        limits.tokens(len(encoding.ids), self._most)
        return Tokens(encoding)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        try:
            text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        except (OverflowError, TypeError) as error:
            raise BadInput(f"{str(list(ids))[:100]} are no tokens: {error}") from error
        return text


class ServerHost(Timing):
    """Loads sessions on first use, decodes and runs in threads; `gpu` prefers a GPU."""

    def __init__(self, *, gpu: bool = False, log: str = "trivium") -> None:
        self._lanes = Lanes()
        self.lanes = os.cpu_count() or 1
        self._load_ms = LOAD_MS
        self._gpu = gpu
        self._engines = engines() if gpu else None
        self._log = logging.getLogger(log)
        self._bundles: dict[Function, Bundle] = {}
        self._loading: dict[Function, asyncio.Future[Loaded]] = {}

    def know(self, function: Function, bundle: Bundle) -> None:
        """Remember where the files of `function` are."""
        self._bundles[function] = bundle

    def forget(self, function: Function) -> None:
        """Let the sessions of `function` go once the asks that use them have ended."""
        self._bundles.pop(function, None)
        self._loading.pop(function, None)

    async def open(self, function: Function) -> Loaded:
        """Return the sessions of `function`, loaded once, by the first ask that needs them."""
        loading = self._loading.get(function)
        if loading is None:
            bundle = self._bundles.get(function)
            if bundle is None:
                raise ModelNotReady(f"{function.schema.name} is no longer served in this version")
            loading = asyncio.ensure_future(self.work(lambda: self._load(function, bundle)))
            self._loading[function] = loading
        if loading.done() and not loading.exception():
            return loading.result()
        try:
            return await asyncio.shield(loading)
        except Exception:  # whatever kept it from loading may be mended
            if self._loading.get(function) is loading:
                del self._loading[function]
            raise

    def loaded(self, function: Function) -> bool:
        """Return whether the sessions of `function` are in memory."""
        loading = self._loading.get(function)
        return loading is not None and loading.done() and loading.exception() is None

    def cold(self, function: Function) -> float:
        """Return how many ms loading the function would take first; 0 if it is loaded."""
        return 0.0 if self.loaded(function) else self._load_ms

    def devices(self, function: Function) -> dict[str, str]:
        """Return what each loaded model really runs on, as onnxruntime names it."""
        if not self.loaded(function):
            return {}
        sessions = self._loading[function].result().sessions
        return {
            name: session.providers[0]
            for name, session in sessions.items()
            if isinstance(session, OrtSession)
        }

    async def decode(self, kind: str, value: str | Blob, variant: Variant) -> Given:
        """Return the input ready for the function; raise BadInput or TooLarge."""
        if kind == "text":
            return limits.text(value)
        if kind in tabular.READ:
            return await self.work(lambda: tabular.READ[kind](value))
        blob = limits.blob(kind, value)
        bound = variant.settings.get("shrink_above")
        if kind == "document":
            return limits.document(
                blob,
                lambda start, end: blob.data[start:end],
                lambda media: Pages(blob, media, bound, self._lanes),
            )
        if kind == "video":
            return await video.opened(blob, bound, self._lanes)
        like = (blob.media, len(blob.data).bit_length())
        if kind == "audio":
            return Audio(await self._lanes.run(lambda: audio.samples(blob), like), blob)
        return Image(await self._lanes.run(lambda: media.pixels(blob, bound), like), blob)

    async def encode(self, value: Decoded) -> Blob:
        """Return a file from which another tier decodes the same."""
        if isinstance(value, Image) and isinstance(value.pixels, Tensor):
            pixels = value.pixels
            return await self.work(lambda: media.png(pixels))
        if isinstance(value, Audio) and isinstance(value.samples, Tensor):
            return audio.wav(value.samples)
        raise RunFailed(f"{type(value).__name__} without a file can't go to another tier")

    def report(self, error: BaseException, where: str | None) -> None:
        """Log a function's failure with its traceback."""
        self._log.error("a function failed at %s", where, exc_info=error)

    async def work(self, call: Callable[[], T]) -> T:
        """Run `call` in a thread."""
        return await self._lanes.run(call)

    def close(self) -> None:
        """Let the threads go."""
        self._lanes.pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, function: Function, bundle: Bundle) -> Loaded:
        begun = time.perf_counter()
        manifest, variant = bundle.manifest, function.variant
        sessions = {
            name: OrtSession(
                [open_graph(each, bundle.read(each), self._gpu, self._engines) for each in graphs],
                self._lanes,
                variant.state or {},
            )
            for name, graphs in variant.models.items()
        }
        for session in sessions.values():
            session.warm()
        if self._engines:
            self._engines.keep()
        labels = bundle.text(manifest.labels).splitlines() if manifest.labels else ()
        tokenizer = None
        if manifest.tokenizer:
            most = variant.settings.get("max_tokens")
            tokenizer = Tokenizer(bundle.text(manifest.tokenizer), most)
        self._load_ms = (time.perf_counter() - begun) * 1e3
        return Loaded(sessions, labels, tokenizer, variant.settings)

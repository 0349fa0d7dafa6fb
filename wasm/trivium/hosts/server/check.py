"""Does every function answer its samples, on every tier that has it, the way a user would ask?"""

from __future__ import annotations

import base64
import difflib
import math
import mimetypes
import os
import re
import shutil
import ssl
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import httpx
import msgspec

from ...contract import JSON, MSGPACK, Answer, Ask, Blob, Refusal, Sample, Tier, decode, encode
from ...errors import TierUnreachable, TriviumError
from .bundles import Bundle

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_S = 120.0
SERVERS = (Tier.EDGE, Tier.CLOUD)

COSINE = 0.97
"""How near a vector from a small variant must be to the full one's."""

APART = 4.0
"""How many times as far as a variant is from the full one on average, one sample may be."""

FORECAST = 0.2
"""How near a forecast must be to the full one's, where its outer quantiles are 1 apart."""

SECONDS = 0.1
"""How near the times of a segment must be."""

BOX = 0.1
"""How far a side of the first box may be from the full model's, as a fraction of the picture."""

MASK = 0.95
"""How much of what two masks cover they must share."""

WORDS = 0.8
"""How alike speech must be written down: twice the words in common by the words of both."""

_PAGE = """async ([name, inputs, options]) => {
    const given = {};
    for (const [key, value] of Object.entries(inputs)) {
        given[key] = typeof value === "string" ? value
            : new Blob([Uint8Array.from(atob(value.data), c => c.charCodeAt(0))],
                       {type: value.media});
    }
    await window.trivium.ready;
    try {
        await window.trivium.load(name);
        return await window.trivium.infer(name, given, {options, tiers: ["page"]});
    } catch (error) {
        return {failed: `${error.code ?? error.name}: ${error.message}`};
    }
}"""


def browser() -> str | None:
    """Return the Chromium found here, or none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Row(msgspec.Struct):
    """One sample asked on one tier; `output` is for people."""

    function: str
    tier: str
    model: str
    output: str
    ms: float
    ok: bool

    @classmethod
    def refused(cls, name: str, error: TriviumError) -> Row:
        """Return the row of a bundle that no tier will run."""
        said = f"{error.code}: {error.message}"
        return cls(function=name, tier="all", model="", output=said, ms=0.0, ok=False)


class Checker:
    """Asks the gateway at `url` with `key`, as any client would."""

    def __init__(self, url: str, key: str, bundles: Sequence[Bundle]) -> None:
        self._url = url
        self._key = key
        self._bundles = bundles

    def servers(self) -> Iterator[Row]:
        """Ask edge and cloud."""
        with self._client() as client:
            for bundle, sample in self._samples():
                for tier in SERVERS:
                    if bundle.manifest.variant(tier) is not None:
                        yield self._server(client, bundle, sample, tier)

    def ready(self, mine: Collection[str]) -> Iterator[Row]:
        """Ask the functions that are `mine`, then others, until edge and cloud have answered.

        Those come first that say they are quickest: whoever starts servers wants to use them.
        """
        waiting = set(SERVERS)

        def first(bundle: Bundle) -> tuple[bool, float]:
            return bundle.name not in mine, max(each.ms[1] for each in bundle.manifest.variants)

        with self._client() as client:
            for bundle in sorted(self._bundles, key=first):
                for tier in SERVERS if bundle.name in mine else sorted(waiting):
                    if bundle.manifest.samples and bundle.manifest.variant(tier) is not None:
                        row = self._server(client, bundle, bundle.manifest.samples[0], tier)
                        if row.ok:
                            waiting.discard(tier)
                        yield row

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=PATIENCE_S, trust_env=False, verify=own())

    def task(self) -> Iterator[Row]:
        """Have a worker answer one sample that is a text, as a task."""
        for bundle, sample in self._samples():
            kinds = [each.kind for each in bundle.manifest.function.inputs]
            if kinds == ["text"] and bundle.manifest.variant(Tier.CLOUD) is not None:
                with self._client() as client:
                    yield self._task(client, bundle, sample)
                return

    def _task(self, client: httpx.Client, bundle: Bundle, sample: Sample) -> Row:
        headers = {"Authorization": f"Bearer {self._key}"}
        (text,) = sample.inputs.values()
        wanted = {"function": bundle.name, "text": text, "options": sample.options, "async": True}
        ends, task = time.monotonic() + PATIENCE_S, dict[str, Any](status="none")
        try:
            response = client.post("/v1/multimodal", json=wanted, headers=headers)
            while response.is_success and time.monotonic() < ends:
                task = response.json()
                if task["status"] not in ("pending", "running"):
                    break
                where = f"/v1/tasks/{task['task_id']}"
                response = client.get(where, params={"wait": 10}, headers=headers)
            if task.get("answer"):
                return _row(bundle, sample, Tier.CLOUD, task["answer"])
            said = task.get("error") or response.json()
            failed = f"a task: {said.get('detail', task['status'])}"
        except (httpx.HTTPError, ValueError) as error:
            failed = f"a task: no answer: {type(error).__name__}"
        return _row(bundle, sample, Tier.CLOUD, {"failed": failed})

    def page(self, url: str) -> Iterator[Row]:
        """Ask the page tier in a headless browser, or say that it was skipped."""
        path = browser()
        if path is None:
            _say("page: skipped, no chromium was found")
            return
        try:
            from playwright.sync_api import sync_playwright
        except ModuleNotFoundError:
            _say("page: skipped, playwright is not installed (scripts/install --dev)")
            return
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(
                executable_path=path, headless=True, args=list(FLAGS)
            )
            try:
                page = chromium.new_page()
                page.set_default_timeout(PATIENCE_S * 1e3)
                page.goto(url)
                page.wait_for_function("() => window.trivium")
                for bundle, sample in self._samples():
                    if bundle.manifest.variant(Tier.PAGE) is None:
                        continue
                    inputs = {
                        name: value
                        if isinstance(value, str)
                        else {"media": value.media, "data": base64.b64encode(value.data).decode()}
                        for name, value in read(bundle, sample).items()
                    }
                    answer = page.evaluate(_PAGE, [bundle.name, inputs, sample.options])
                    yield _row(bundle, sample, Tier.PAGE, answer)
            finally:
                chromium.close()

    def _samples(self) -> Iterator[tuple[Bundle, Sample]]:
        for bundle in self._bundles:
            for sample in bundle.manifest.samples:
                yield bundle, sample

    def _server(self, client: httpx.Client, bundle: Bundle, sample: Sample, tier: Tier) -> Row:
        ask = Ask(inputs=read(bundle, sample), options=sample.options, tiers=(tier,))
        try:
            response = client.post(
                f"/v1/infer/{bundle.name}",
                content=encode(ask),
                headers={
                    "Authorization": f"Bearer {self._key}",
                    "Content-Type": MSGPACK,
                    "Accept": MSGPACK,
                },
            )
            if response.status_code != 200:
                raise decode(response.content, Refusal).error.error()
            answer = decode(response.content, Answer)
        except httpx.HTTPError as error:
            unreachable = TierUnreachable(f"no answer: {type(error).__name__}")
            return _row(bundle, sample, tier, {"failed": unreachable.message})
        except TriviumError as error:
            return _row(bundle, sample, tier, {"failed": f"{error.code}: {error.message}"})
        return _row(bundle, sample, tier, msgspec.to_builtins(answer))


def read(bundle: Bundle, sample: Sample) -> dict[str, str | Blob]:
    """Return a sample's inputs with its files read."""
    kinds = bundle.manifest.function.kinds(sample.inputs)
    return {
        name: value
        if sample.written(name, kinds[name])
        else Blob(
            media=mimetypes.guess_type(value)[0] or "application/octet-stream",
            data=bundle.read(value),
        )
        for name, value in sample.inputs.items()
    }


def agrees(output: Any, expected: Any, quality: float = 1.0) -> bool:
    """Return whether an answer is the expected one, as far as a small variant must agree.

    Vectors agree by cosine (by less where a variant's measured quality is less), labels by the
    first (boxes by where it is, too), masks by what they share, forecasts by the steps that are
    stated, segments by their times or (speech) by their words, pages and whatever else has names
    by what is stated of them, everything else by being equal.
    """
    if _vector(expected):
        least = min(COSINE, 1 - APART * (1 - quality))
        return _vector(output) and _cosine(output, expected) >= least
    if isinstance(expected, dict) and expected.keys() == {"quantiles", "values"}:
        return isinstance(output, dict) and _forecast(output, expected)
    if (segments := _segments(expected)) is not None:
        found = _segments(output) or []
        if all("text" in each for each in segments):
            return difflib.SequenceMatcher(None, _words(found), _words(segments)).ratio() >= WORDS
        return len(found) == len(segments) and all(map(_together, found, segments))
    if isinstance(expected, dict) and "runs" in expected:
        return isinstance(output, dict) and _shared(output, expected) >= MASK
    if isinstance(expected, dict) and "label" not in expected:
        return isinstance(output, dict) and all(
            name in output and agrees(output[name], wanted) for name, wanted in expected.items()
        )
    if isinstance(expected, list) and expected and all(map(_named, expected)):
        return (
            isinstance(output, list)
            and len(output) == len(expected)
            and all(
                isinstance(page, dict) and page.items() >= stated.items()
                for page, stated in zip(output, expected, strict=True)
            )
        )
    best = _best(expected)
    if best is not None and not _near(_first(output), _first(expected)):
        return False
    if best is not None:
        return isinstance(output, list) is isinstance(expected, list) and _best(output) == best
    return bool(output == expected)


def _named(stated: Any) -> bool:
    return isinstance(stated, dict) and "label" not in stated


def own() -> ssl.SSLContext:
    """Return how this machine's own servers are asked: whatever names their certificates have."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # A cloud may ask for the gateway's certificate.
    certificate = os.environ.get("TRIVIUM_EDGE_CLOUD_CERTIFICATE")
    if certificate:
        context.load_cert_chain(certificate, os.environ.get("TRIVIUM_EDGE_CLOUD_CERTIFICATE_KEY"))
    return context


def show(rows: Sequence[Row], as_json: bool) -> int:
    """Print the rows and return the exit code: 0 only if there are some and all held."""
    if as_json:
        for row in rows:
            print(encode(row, JSON).decode(), flush=True)  # noqa: T201
    else:
        _table(rows)
    held = sum(row.ok for row in rows)
    _say(f"{held} of {len(rows)} held")
    return 0 if rows and held == len(rows) else 1


def _row(bundle: Bundle, sample: Sample, tier: Tier, answer: Mapping[str, Any]) -> Row:
    if "failed" in answer:
        return Row(bundle.name, tier, "", answer["failed"], 0.0, ok=False)
    output = answer["output"]
    # An answer from elsewhere would say nothing about the tier that was asked.
    variant = bundle.manifest.variant(tier)
    ok = variant is not None and answer["tier"] == tier
    if variant is not None and sample.output is not None:
        ok = ok and agrees(output, sample.output, variant.quality)
    ms = sum(answer["ms"].values())
    return Row(bundle.name, tier, answer["model"], _short(output), round(ms, 2), ok)


def _table(rows: Sequence[Row]) -> None:
    heads = ("function", "tier", "model", "output", "ms", "")
    lines = [
        heads,
        *(
            (r.function, r.tier, r.model, r.output, f"{r.ms:.1f}", "ok" if r.ok else "FAILED")
            for r in rows
        ),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        cells = [
            text.rjust(width) if i == 4 else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)  # noqa: T201


def _short(output: Any) -> str:
    if _vector(output):
        return f"{len(output)} numbers: " + ", ".join(f"{x:.3f}" for x in output[:3]) + ", …"
    best = _best(output)
    if best is not None and isinstance(_first(output).get("score"), int | float):
        return f"{best} {_first(output)['score']:.2f}"
    text = encode(output, JSON).decode()
    return text if len(text) <= 60 else text[:59] + "…"


def _best(output: Any) -> Any:
    """Return the first of some labels, or the only one, or none."""
    first = _first(output)
    return first.get("label") if isinstance(first, dict) else None


def _near(output: Any, expected: Mapping[str, Any]) -> bool:
    """Return whether a box lies where the expected one does; a label lies nowhere."""
    return all(
        abs(output.get(side, math.inf) - expected[side]) <= BOX
        for side in ("x", "y", "width", "height")
        if side in expected and isinstance(output, dict)
    )


def _shared(output: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Return the cells inside both masks, over those inside either."""
    one, two = (
        int("0" + "".join("01"[number % 2] * run for number, run in enumerate(each["runs"])), 2)
        for each in (output, expected)
    )
    return (one & two).bit_count() / ((one | two).bit_count() or 1)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, list) and output else output


def _forecast(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether each quantile is near, as the outer ones lie apart."""
    steps = output.get("values", ())[: len(expected["values"])]
    return bool(output.get("quantiles") == expected["quantiles"]) and all(
        abs(number - wanted) <= FORECAST * (stated[-1] - stated[0])
        for step, stated in zip(steps, expected["values"], strict=True)
        for number, wanted in zip(step, stated, strict=True)
    )


def _segments(output: Any) -> list[Any] | None:
    """Return the pieces of a recording, or none."""
    pieces = output if isinstance(output, list) else []
    timed = [
        isinstance(each, dict)
        and all(isinstance(each.get(key), int | float) for key in ("start", "end"))
        for each in pieces
    ]
    return pieces if timed and all(timed) else None


def _together(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return all(abs(one[key] - two[key]) <= SECONDS for key in ("start", "end"))


def _words(segments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was said, without case and marks."""
    return re.findall(r"\w+", " ".join(str(each.get("text")) for each in segments).lower())


def _vector(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 3
        and all(isinstance(x, int | float) for x in value)
    )


def _cosine(one: Sequence[float], two: Sequence[float]) -> float:
    if len(one) != len(two):
        return 0.0
    dot = math.fsum(a * b for a, b in zip(one, two, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*two) or 1.0)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201

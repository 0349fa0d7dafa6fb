"""How does a test speak with an open page?"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit

from page.gateway import Gateway

KINDS = ("text", "image", "audio", "video", "document", "series", "table")

# Blobs cross as base64, zeros alone as how many; errors as what a test wants to know of them.
ASK = """async ([name, inputs, settings, stream]) => {
  const given = {};
  for (const [key, value] of Object.entries(inputs)) {
    given[key] = typeof value === "string" ? value : new Blob(
      [value.zeros ?? Uint8Array.from(atob(value.data), (c) => c.charCodeAt(0))].map(
        (each) => typeof each === "number" ? new Uint8Array(each) : each), { type: value.media });
  }
  try {
    if (!stream) return await trivium.infer(name, given, settings);
    const parts = [];
    for await (const part of trivium.stream(name, given, settings)) parts.push(part);
    return parts;
  } catch (error) {
    return { code: error.code, message: error.message, where: error.where };
  }
}"""

WATCH = """
window.long = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.long.push(entry.duration);
}).observe({ type: "longtask", buffered: true });
"""


def crossing(media: str, data: bytes) -> dict[str, object]:
    """Return a file as it crosses to the page: megabytes of base64 take a minute."""
    if data and data.count(0) == len(data):
        return {"media": media, "zeros": len(data)}
    return {"media": media, "data": base64.b64encode(data).decode()}


class Opened:
    """An open playground; `elsewhere` has each address beyond the gateway that was asked for."""

    def __init__(self, page: Any, gateway: Gateway) -> None:
        self.page = page
        self.gateway = gateway
        self.elsewhere: list[str] = []
        origin = urlsplit(gateway.url).netloc
        page.on(
            "request",
            lambda request: (
                self.elsewhere.append(request.url)
                if urlsplit(request.url).scheme in ("http", "https", "ws", "wss")
                and urlsplit(request.url).netloc != origin
                else None
            ),
        )
        page.add_init_script(WATCH)
        page.goto(gateway.url)
        page.wait_for_function("window.trivium")

    def ready(self, *names: str) -> Opened:
        """Wait until the page tier, and these functions in it, are ready or failed."""
        self.page.wait_for_function(
            """(names) => trivium.state.phase !== "starting" && names.every(
                (name) => ["ready", "failed"].includes(trivium.state.functions[name]?.state))""",
            arg=list(names),
            timeout=60_000,
        )
        return self

    def ask(self, name: str, stream: bool = False, **given: Any) -> Any:
        """Return the answer, or the error as code, message and where."""
        inputs = {key: given.pop(key) for key in KINDS if key in given}
        return self.page.evaluate(ASK, [name, inputs, given, stream])

    def run(self, script: str) -> Any:
        """Return what the body of an async function returns."""
        return self.page.evaluate(f"async () => {{ {script} }}")

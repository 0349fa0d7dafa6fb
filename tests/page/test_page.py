"""Does the page answer by itself, from its gateway alone, and say plainly when it can't?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import page.bundles as bundles
from page.gateway import Gateway
from page.opened import Opened

pytestmark = pytest.mark.browser

Visit = Callable[[Gateway], Opened]
HERE: dict[str, Any] = {"tiers": ["page"]}
ALL = ("text.shout", "text.count", "text.double")


def test_edge_answers_while_the_page_starts(visit: Visit, gateway: Gateway) -> None:
    """The first answer waits for no download."""
    page = visit(gateway)
    answer = page.ask("text.shout", text="hi")
    assert answer["output"] == "HI!"
    assert answer["tier"] == "edge"
    assert "still starting" in answer["plan"]["reason"]
    assert answer["ms"]["hop"] > 0


def test_page_answers(visit: Visit, gateway: Gateway) -> None:
    """Ready, the page answers on its own; it asks no other origin and blocks nobody."""
    page = visit(gateway).ready(*ALL)
    assert page.run("return trivium.state.isolated") is True
    answer = page.ask("text.shout", text="hi", options={"marks": 2})
    assert (answer["output"], answer["tier"]) == ("HI!!", "page")
    assert page.ask("text.double", text="1 2.5", **HERE)["output"] == [3, 6]
    assert page.elsewhere == []
    assert [ms for ms in page.run("return window.long") if ms > 200] == []


def test_ask_of_reach_page_waits(visit: Visit, gateway: Gateway) -> None:
    """What must not leave the page waits for it, within its budget."""
    page = visit(gateway)
    late = page.ask("text.double", text="1", budget={"reach": "page", "ms": 1})
    assert late["code"] == "over_budget"
    assert page.ask("text.double", text="1", budget={"reach": "page"})["output"] == [3]


def test_edge_gone(visit: Visit, gateway: Gateway) -> None:
    """With the edge killed after loading, page answers go on; others fail with a plain message."""
    page = visit(gateway).ready(*ALL)
    gateway.close()
    for _ in range(3):
        assert page.ask("text.shout", text="hi")["tier"] == "page"
    assert page.ask("text.double", text="2")["output"] == [5]
    refused = page.ask("text.shout", text="hi", tiers=["edge"])
    assert refused["code"] == "tier_unreachable"


def test_edge_silent(visit: Visit, gateway: Gateway) -> None:
    """A link over which nothing comes any more is no road, until something does."""
    page = visit(gateway).ready(*ALL)
    for silent in (True, False):
        gateway.silent = silent
        for _ in range(100):
            reason = page.ask("text.shout", text="hi")["plan"]["reason"]
            if ("edge (not ready)" in reason) == silent:
                break
            page.page.wait_for_timeout(200)
        else:
            raise AssertionError(reason)


@pytest.mark.parametrize("file", ["function.py", "twice.onnx", "manifest.json"])
def test_changed_byte(visit: Visit, gateway: Gateway, file: str) -> None:
    """A bundle with a wrong byte never runs in the page; nothing else suffers."""
    for name in ("text.double", "text.shout"):
        files = dict(gateway.bundles[name])
        if file in files:
            data = bytearray(files[file])
            data[-2] ^= 1
            gateway.tampered[name, file] = bytes(data)
    page = visit(gateway).ready("text.count")
    refused = page.ask("text.double", text="1", **HERE)
    assert refused["code"] == "bad_bundle", refused
    assert file in refused["message"]
    if file != "twice.onnx":
        assert page.ask("text.shout", text="hi", **HERE)["code"] == "bad_bundle"
        assert page.ask("text.shout", text="hi")["tier"] == "edge"
    assert page.ask("text.count", text="a b", **HERE)["output"] == ["a", "b"]


@pytest.mark.parametrize("tier", ["page", "edge"])
def test_stream(shared: Opened, tier: str) -> None:
    """Parts come one by one, and the answer has them all."""
    said = shared.ask("text.count", stream=True, text="a b c", tiers=[tier])
    assert [each["output"] for each in said] == ["a", "b", "c", ["a", "b", "c"]]
    assert (said[-1]["kind"], said[-1]["tier"]) == ("answer", tier)


def test_stream_while_starting(visit: Visit, gateway: Gateway) -> None:
    """The edge's parts arrive as server-sent events."""
    said = visit(gateway).ask("text.count", stream=True, text="a b")
    assert [each["output"] for each in said] == ["a", "b", ["a", "b"]]


def test_abort(shared: Opened) -> None:
    """An aborted ask ends at once, and the next one is answered."""
    name = shared.run("""
        const control = new AbortController();
        const asked = trivium.infer("text.shout", { text: "slow" }, { signal: control.signal });
        setTimeout(() => control.abort(), 50);
        return await asked.then(() => "answered", (error) => error.name);
    """)
    assert name == "AbortError"
    assert shared.ask("text.shout", text="hi")["tier"] == "page"


def test_steps(visit: Visit, gateway: Gateway) -> None:
    """A model's state stays in JavaScript from step to step, and ends with the ask."""
    name, files = bundles.total()
    gateway.bundles[name] = files
    page = visit(gateway).ready(name)
    for _ in range(2):
        said = page.ask(name, stream=True, text="1 2 3.5", **HERE)
        assert [each["output"] for each in said] == [1, 3, 6.5, [1, 3, 6.5]]
    aborted = page.run("""
        const control = new AbortController();
        const settings = { signal: control.signal, tiers: ["page"], options: { times: 1e9 } };
        const parts = [];
        try {
            for await (const part of trivium.stream("text.total", { text: "1 1" }, settings)) {
                if (parts.push(part.output) === 9) control.abort();
            }
        } catch (error) {
            return { name: error.name, last: parts.at(-1) };
        }
    """)
    assert aborted == {"name": "AbortError", "last": 9}
    assert page.ask(name, text="2", **HERE)["output"] == [2]


def test_optional(visit: Visit, gateway: Gateway) -> None:
    """A large function is loaded into the page on request only; until then others answer."""
    gateway.bundles["text.shout"] = bundles.large().files
    page = visit(gateway).ready("text.count")
    assert page.run("return trivium.state.functions['text.shout'].state") == "optional"
    refused = page.ask("text.shout", text="hi", **HERE)
    assert refused["code"] == "model_not_ready"
    assert 'load("text.shout")' in refused["message"]
    assert page.ask("text.shout", text="hi")["tier"] == "edge"
    assert not any("/text.shout/" in path and "function.py" in path for _, path in gateway.seen)
    assert page.run("await trivium.load('text.shout'); return true")
    assert page.ask("text.shout", text="hi", **HERE)["output"] == "HI!"
    failed = page.run("return trivium.load('text.nope').then(() => 0, (error) => error.code)")
    assert failed == "unknown_function"


def test_errors(shared: Opened) -> None:
    """The same codes as everywhere, and the author's own line."""
    broken = shared.ask("text.shout", text="fail", **HERE)
    assert broken["code"] == "run_failed"
    assert broken["where"] == "text.shout/function.py, line 11, in shout"
    wrong = shared.ask("text.shout", text="a", options={"marks": "x"})
    assert wrong["code"] == "bad_input"
    assert "marks" in wrong["message"]
    assert shared.ask("text.shout", text=" ", **HERE)["code"] == "bad_input"
    assert shared.ask("text.nope", text="a")["code"] == "unknown_function"
    for ms in (-1, 0, float("nan"), float("inf")):
        assert shared.ask("text.shout", text="a", budget={"ms": ms})["code"] == "bad_input"
    assert shared.ask("text.double", text="a", tiers=["edge"])["code"] == "not_allowed"


def test_token_expired(visit: Visit, gateway: Gateway) -> None:
    """A token that is refused is fetched once more."""
    page = visit(gateway).ready(*ALL)
    assert page.ask("text.shout", text="hi", tiers=["edge"])["tier"] == "edge"
    gateway.fresh = "t2"
    assert page.ask("text.shout", text="hi", tiers=["edge"])["tier"] == "edge"
    assert gateway.seen.count(("POST", "/v1/token")) >= 2


def test_newer_bundle(visit: Visit, gateway: Gateway) -> None:
    """A page of version 1 takes the gateway's version 2 when it learns of it."""
    page = visit(gateway).ready(*ALL)
    newer = bundles.SHOUT.replace("upper", "title")
    gateway.serve(*bundles.shout("2", newer))
    answer = page.ask("text.shout", text="hi", tiers=["edge"])
    assert (answer["version"], answer["output"]) == ("2", "Hi!")
    answer = page.ask("text.shout", text="hi", **HERE)
    assert (answer["version"], answer["output"]) == ("2", "Hi!")
    assert page.ask("text.shout", text="hi", version="1")["code"] == "conflict"


def test_saved_function(visit: Visit, gateway: Gateway) -> None:
    """A function saved under the same version is picked up, too."""
    page = visit(gateway).ready(*ALL)
    assert page.ask("text.shout", text="hi")["output"] == "HI!"
    gateway.serve(*bundles.shout("1", bundles.SHOUT.replace("upper", "title")))
    page.run("await new Promise((resolve) => setTimeout(resolve, 3100))")
    page.ask("text.shout", text="hi")
    page.page.wait_for_function(
        """async () =>
            (await trivium.infer("text.shout", { text: "hi" }, { tiers: ["page"] })).output
            === "Hi!" """
    )


def test_spans(shared: Opened) -> None:
    """The page's spans reach the edge afterwards, under the trace that the answer names."""
    asked = [shared.ask("text.shout", text="hi", tiers=[tier]) for tier in ("page", "edge")]
    shared.run("await new Promise((resolve) => setTimeout(resolve, 1000))")
    for answer in asked:
        trace = answer["trace"].split("-")[1]
        names = {str(span["name"]) for span in shared.gateway.spans if span["trace_id"] == trace}
        assert "infer text.shout" in names
        assert ("hop" if answer["tier"] == "edge" else "run") in names


def test_functions(shared: Opened) -> None:
    """The page lists what the gateway serves, with what each function takes."""
    listed = {each["name"]: each for each in shared.run("return await trivium.functions()")}
    assert set(listed) == set(ALL)
    assert listed["text.shout"]["tiers"] == ["page", "edge"]
    assert listed["text.double"]["tiers"] == ["page"]
    assert listed["text.shout"]["schema"]["options"][0]["name"] == "marks"


def test_playground(shared: Opened) -> None:
    """A function the page never heard of gets its fields and shows its answer."""
    page = shared.page
    page.get_by_label("text.shout").check()
    page.get_by_role("textbox", name="text").fill("typed")
    page.get_by_label("marks").fill("3")
    page.get_by_role("button", name="Ask Ctrl").click()
    page.wait_for_selector("#result :text('TYPED!!!')")
    assert page.locator("#roads li.taken").get_attribute("data-tier") == "page"
    page.get_by_label("Answered by").select_option("edge")
    page.get_by_role("textbox", name="text").press("Control+Enter")
    page.wait_for_selector("#roads li.taken[data-tier=edge]")

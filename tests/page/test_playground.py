"""Does the playground offer each function's own samples, and draw what it answers?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from page.bundles import FUNCTIONS, bundle, image, text
from page.gateway import ROOT, Gateway
from page.opened import Opened
from trivium.contract import Input, Schema

pytestmark = pytest.mark.browser

ZOO = ROOT / "models/zoo"
BUILT = (
    "image.classify",
    "image.detect",
    "image.describe",
    "series.forecast",
    "table.classify",
    "audio.activity",
    "audio.keyword",
)
PHOTO = FUNCTIONS / "image.classify/coffee.jpg"

BOXES = '''
from trivium import Box, Image, Models, function

@function("image.find")
async def find(image: Image, models: Models) -> list[Box]:
    """Find what is in the middle."""
    return [
        Box(label="cup", score=0.9, x=0.25, y=0.25, width=0.5, height=0.5),
        Box(label="table", score=0.4, x=0, y=0.5, width=1, height=0.5),
    ]
'''

MASK = '''
from trivium import Image, Mask, Models, function

@function("image.cut")
async def cut(image: Image, models: Models) -> Mask:
    """Cover the lower half and one cell more."""
    return Mask(label="table", width=4, height=4, runs=[7, 9])
'''

SHEET = '''
from trivium import Document, function

@function("document.look")
async def look(document: Document) -> list[dict[str, object]]:
    """Read one line on each of two pages."""
    line = {"label": "hello", "score": 0.9, "x": 0.1, "y": 0.2, "width": 0.5, "height": 0.1}
    return [
        {"page": page, "text": f"hello {page}", "lines": [line], "width": 210, "height": 297}
        for page in (1, 2)
    ]
'''

TELL = '''
from trivium import Video, function

@function("video.tell")
async def tell(video: Video) -> dict[str, object]:
    """Tell of two scenes and a sentence across them."""
    rows = [(0, 3, "a cup", ""), (3, 4, "a cup", "Good morning."), (4, 6, "a cat", "Good morning.")]
    timeline = [dict(zip(("start", "end", "seen", "said"), row)) for row in rows]
    more = {"seconds": 6.0, "frames": 2, "speech": "by ear"}
    return {"summary": "A cup, then a cat.", "timeline": timeline, **more}
'''

WORDS = '''
from collections.abc import AsyncIterator
from trivium import Text, function

@function("text.say")
async def say(text: Text) -> AsyncIterator[str]:
    """Say it again, in pieces."""
    for word in text.split(" "):
        yield word + " "
'''


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with functions of every shape of answer."""
    document = Schema(
        name="document.look",
        entry="look",
        doc="Read one line on each of two pages.",
        inputs=(Input(name="document", kind="document"),),
    )
    film = Schema(
        name="video.tell",
        entry="tell",
        doc="Tell of two scenes and a sentence across them.",
        inputs=(Input(name="video", kind="video"),),
    )
    bundles: dict[str, Mapping[str, bytes]] = dict(
        [
            bundle(TELL, film),
            bundle(BOXES, image("find", "Find what is in the middle.")),
            bundle(MASK, image("cut", "Cover the lower half and one cell more.")),
            bundle(SHEET, document),
            bundle(WORDS, text("say", "Say it again, in pieces.", streams=True)),
        ]
    )
    for name in BUILT:
        if not (ZOO / name / "manifest.json").is_file():
            pytest.skip(f"{name} is not built: scripts/install")
        bundles[name] = {path.name: path.read_bytes() for path in (ZOO / name).iterdir()}
    served = Gateway(bundles)
    page = headless.new_page(viewport={"width": 1280, "height": 900})
    yield Opened(page, served).ready(*bundles)
    page.close()
    served.close()


def choose(opened: Opened, name: str) -> Any:
    """Return the page with a function chosen, to be answered in the page."""
    page = opened.page
    page.get_by_label(name).check()
    page.get_by_label("Answered by").select_option("page")
    return page


def shot(page: Any, name: str) -> None:
    """Keep a picture of the page where TRIVIUM_SHOTS says, for people to look at."""
    if folder := os.environ.get("TRIVIUM_SHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def attach(page: Any, path: Path) -> None:
    page.locator("#inputs input[type=file]").set_input_files(str(path))


def sampled(opened: Opened, function: str, sample: str) -> Any:
    """Choose a function and ask one of its samples."""
    page = choose(opened, function)
    page.get_by_role("button", name=f"Ask about {sample}").click()
    return page


def test_a_photo_sample_is_asked_about(opened: Opened) -> None:
    """Its picture is a button that comes from the bundle; its options go along."""
    page = sampled(opened, "image.classify", "coffee")
    page.wait_for_selector("#result dt:text('espresso')")
    assert page.get_by_label("top").input_value() == "1"
    assert page.locator("#result .labels dd").count() == 1
    shot(page, "labels")


def test_a_description_is_a_sentence_over_its_photo(opened: Opened) -> None:
    """And what it was made of: the boxes on the photo, the labels below."""
    page = sampled(opened, "image.describe", "cat")
    page.wait_for_selector("#result .said:has-text('cat')")
    assert page.locator("#result .said").text_content().startswith("The picture shows")
    assert page.locator("#result .over img").count() == 1
    assert page.locator("#result .over .box").count() >= 1
    assert page.locator("#result .labels dt").count() == 5
    shot(page, "description")


def test_a_word_that_was_said_is_named(opened: Opened) -> None:
    """Its sound can be heard beside it."""
    page = sampled(opened, "audio.keyword", "eight")
    page.wait_for_selector("#result .labels dt:text('eight')")
    assert page.locator("#result .labels dd").count() == 1
    assert page.locator("#inputs audio").count() == 1
    shot(page, "keyword")


def test_the_roads_that_were_considered_are_a_chart(opened: Opened) -> None:
    """Each from p5 to p95, the budget as a line, what came as a dot; and all of it in words."""
    page = choose(opened, "text.say")
    page.locator("#budget").fill("9")
    page.get_by_role("textbox", name="text").fill("one")
    page.get_by_role("button", name="Ask Ctrl").click()
    page.wait_for_selector("#considered svg.plan .took")
    assert page.locator("#considered .limit").count() == 1
    roads = page.locator("#considered .open, #considered .left").count()
    assert roads == page.locator("#considered .range").count() >= 1
    said = page.locator("#considered svg").get_attribute("aria-label")
    assert "page: " in said
    assert "% likely in time" in said
    assert "price 0" in said
    assert "as the ask says" in said
    assert "budget 500 ms; page took" in said
    card = page.locator("#roads li.taken span").text_content()
    assert card.endswith("price 0, as the ask says")
    assert "expected" in page.locator("#considered figcaption").text_content()
    shot(page, "plan")
    page.emulate_media(color_scheme="dark")
    shot(page, "plan-dark")
    page.emulate_media(color_scheme="light")
    page.locator("#budget").fill("0")


def test_a_forecast_is_a_chart(opened: Opened) -> None:
    """With its past, its bands, and a sentence that says the same."""
    page = sampled(opened, "series.forecast", "sea")
    chart = page.wait_for_selector("#result svg.chart[aria-label^='24 steps ahead']")
    assert len(chart.query_selector_all(".band")) == 4
    assert chart.query_selector(".median")
    assert "2010-12-01" in chart.text_content()
    assert "2012-12-01" in chart.text_content()
    assert page.get_by_role("textbox", name="series").input_value().startswith("month,degrees\n")
    shot(page, "forecast")
    page.get_by_role("textbox", name="series").fill("[1, 2, null]")
    page.get_by_role("button", name="Ask Ctrl").click()
    page.wait_for_selector("#reason.error:text('at least 8 are needed')")


def test_a_table_is_written(opened: Opened) -> None:
    """Its rows get a label each; a file fills it, too."""
    page = choose(opened, "table.classify")
    page.wait_for_function("document.querySelector('#inputs textarea').value.startsWith('mean')")
    attach(page, FUNCTIONS / "table.classify/cell.csv")
    page.get_by_role("button", name="Ask Ctrl").click()
    page.wait_for_selector("#result dt:text('benign')")
    page.get_by_role("button", name="Ask about cells").click()
    page.wait_for_function("document.querySelectorAll('#result dt').length === 8")
    shot(page, "table")


def test_speech_is_marked_on_its_sound(opened: Opened) -> None:
    """Each piece can be heard."""
    page = choose(opened, "audio.activity")
    page.locator("#inputs .samples button").first.click()
    page.wait_for_selector("#result .wave svg path")
    pieces = page.locator("#result .pieces li").count()
    assert pieces > 0
    assert page.locator("#result .wave i").count() == pieces
    assert page.locator("#inputs audio").count() == 1
    assert page.get_by_role("button", name="Record").count() == 1
    shot(page, "speech")


def test_boxes_lie_over_the_photo(opened: Opened) -> None:
    """Where they are, at whatever size it is shown."""
    page = choose(opened, "image.find")
    attach(page, PHOTO)
    page.wait_for_selector("#result .over .box >> nth=1")
    picture, box = (
        page.locator(each).first.bounding_box()
        for each in ("#result .over img", "#result .over .box")
    )
    assert box["x"] == pytest.approx(picture["x"] + picture["width"] / 4, abs=2)
    assert box["height"] == pytest.approx(picture["height"] / 2, abs=2)
    assert "cup 90.0 %" in page.locator("#result").text_content()
    shot(page, "boxes")


def test_a_mask_lies_over_the_photo(opened: Opened) -> None:
    """The cells that its runs cover are coloured, and no others."""
    page = choose(opened, "image.cut")
    attach(page, PHOTO)
    page.wait_for_selector("#result .over canvas.mask")
    alpha = page.evaluate("""() => {
      const canvas = document.querySelector("#result canvas.mask");
      const { data } = canvas.getContext("2d").getImageData(0, 0, 4, 4);
      return [...data].filter((_, i) => i % 4 === 3).map((each) => Number(each > 0));
    }""")
    assert alpha == [0] * 7 + [1] * 9
    assert "table covers 56.3 %" in page.locator("#result").text_content()
    shot(page, "mask")


def test_lines_lie_over_the_page(opened: Opened, tmp_path: Path) -> None:
    """Over the picture if there is one, else on a blank sheet of that form."""
    page = choose(opened, "document.look")
    attach(page, PHOTO)
    page.wait_for_selector("#result .over img + .box.line[title=hello]")
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    attach(page, tmp_path / "a.pdf")
    shot(page, "sheet")
    page.wait_for_selector("#result .sheet .box.written:has-text('hello')")
    sheet = page.locator("#result .sheet").first.bounding_box()
    assert sheet["height"] / sheet["width"] == pytest.approx(297 / 210, rel=0.02)
    assert page.locator("#result pre:text('hello 2')").count() == 1
    shot(page, "sheet")


def test_a_timeline_lies_under_its_video(opened: Opened) -> None:
    """What is seen and what is said have a row each, where neighbours that are the same are one."""
    page = choose(opened, "video.tell")
    attach(page, FUNCTIONS / "video.describe/sample.webm")
    page.wait_for_selector("#result .timeline")
    assert page.locator("#result .timeline .seen button").all_text_contents() == ["a cup", "a cat"]
    said = page.locator("#result .timeline .said button")
    assert said.all_text_contents() == ["Good morning."]
    bar = page.locator("#result .timeline .said").bounding_box()
    assert said.bounding_box()["x"] == pytest.approx(bar["x"] + bar["width"] / 2, abs=2)
    assert page.locator("#result .pieces li").count() == 3
    assert page.locator("#inputs video").count() == 1
    page.locator("#result .timeline .seen button").last.click()
    page.wait_for_function("document.querySelector('#result video').currentTime >= 4")
    shot(page, "timeline")


def test_words_are_one_text(opened: Opened) -> None:
    """However many pieces they came in; and the answer can be had as JSON."""
    page = choose(opened, "text.say")
    page.get_by_role("textbox", name="text").fill("one two")
    page.get_by_role("button", name="Ask Ctrl").click()
    page.wait_for_selector("#result .said:text('one two')")
    page.locator("#result summary").click()
    page.wait_for_function(
        """document.querySelector("#result details pre").textContent.includes('"two "')"""
    )
    assert opened.elsewhere == []

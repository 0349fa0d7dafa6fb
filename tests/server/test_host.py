"""What an engine runs on: threads, sessions loaded once, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import samples
import toys
from trivium.contract import Blob, Tensor, Tier, Variant
from trivium.errors import BadInput, BundleError, ModelNotReady, TooLarge
from trivium.function import Function
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.host import ServerHost, Tokenizer, Tokens
from trivium.kinds import Image, Series, Table, Text

T = TypeVar("T")

PLAIN = Variant(tier=Tier.EDGE, model="toy")


@pytest.fixture
def host() -> Iterator[ServerHost]:
    """Return a host, and let its threads go afterwards."""
    made = ServerHost()
    yield made
    made.close()


def line(folder: Path, host: ServerHost, **files: bytes) -> Function:
    """Return a function with a model, whose bundle `host` knows."""
    made = toys.manifest("text.line", "line", models={"line": ("first.onnx",)})
    made = toys.having(made, labels="labels.txt")
    contents = {"first.onnx": samples.first_graph(), "labels.txt": b"one\ntwo\n", **files}
    bundle = Bundle(toys.bundle(folder, samples.LINE, made, **contents))
    function = bundle.function(Tier.EDGE)
    assert function is not None
    host.know(function, bundle)
    return function


def ids(tokens: Tokens) -> list[int]:
    """Return the ids of one text."""
    assert tokens.ids.dtype == tokens.mask.dtype == "int64"
    assert tokens.ids.shape == tokens.mask.shape == (1, len(tokens.ids[0]))
    assert set(tokens.mask.tolist()[0]) == {1}
    return [int(each) for each in tokens.ids.tolist()[0]]


def test_text_becomes_tokens() -> None:
    """One row of ids, and a mask of ones."""
    tokenizer = Tokenizer(samples.tokenizer().decode(), 4)
    assert ids(tokenizer.encode("one two three")) == [1, 2, 3]
    assert ids(tokenizer.encode("one seventeen two one")) == [1, 0, 2, 1]
    assert tokenizer.encode("").ids.shape == (1, 0)


def test_too_many_tokens_are_counted_for_the_caller() -> None:
    """The message says how many there are, or that counting them is not worth it."""
    tokenizer = Tokenizer(samples.tokenizer().decode(), 4)
    with pytest.raises(TooLarge, match="the text has 5 tokens; at most 4 are allowed"):
        tokenizer.encode("one two one two one")
    assert ids(tokenizer.encode("x" * 256)) == [0]
    with pytest.raises(TooLarge, match="the text has 257 characters; at most 4 tokens"):
        tokenizer.encode("x" * 257)
    assert len(ids(Tokenizer(samples.tokenizer().decode(), None).encode("one " * 500))) == 500


@pytest.mark.parametrize("source", ["", "{}", "[]", '{"model": {"type": "Sorcery"}}'])
def test_a_broken_tokenizer_is_a_bundle_error(source: str) -> None:
    """The file is named."""
    with pytest.raises(BundleError, match=r"tokenizer\.json can't be loaded"):
        Tokenizer(source, 4)


def test_text_is_decoded_within_limits(host: ServerHost) -> None:
    """Not empty, not a file, not endless."""
    decoded = asyncio.run(host.decode("text", " größe ", PLAIN))
    assert isinstance(decoded, Text)
    assert decoded == " größe "
    for text in ("", " \n\t"):
        with pytest.raises(BadInput, match="the text is empty"):
            asyncio.run(host.decode("text", text, PLAIN))
    with pytest.raises(BadInput, match="given as a string, not as image/png"):
        asyncio.run(host.decode("text", Blob(media="image/png", data=b""), PLAIN))
    with pytest.raises(TooLarge, match="1048577 characters; at most 1048576"):
        asyncio.run(host.decode("text", "x" * ((1 << 20) + 1), PLAIN))


def test_tables_and_series_are_read(host: ServerHost) -> None:
    """From a string or a file, and what they came as travels on."""
    blob = Blob(media="text/csv", data=b"year,value\n1700,5\n1701,11\n")
    read = asyncio.run(host.decode("series", blob, PLAIN))
    assert isinstance(read, Series)
    assert (read.values.tolist(), read.times, read.blob) == ([5, 11], ["1700", "1701"], blob)
    table = asyncio.run(host.decode("table", '[{"a": 1}]', PLAIN))
    assert isinstance(table, Table)
    assert (table.columns, table.blob) == ({"a": [1]}, '[{"a": 1}]')
    with pytest.raises(BadInput, match="the table has no row"):
        asyncio.run(host.decode("table", "a,b", PLAIN))


def test_images_are_decoded_as_the_variant_says(host: ServerHost, tmp_path: Path) -> None:
    """They keep their bytes, to travel on as they came."""
    blob = Blob(media="image/png", data=samples.png(64, 32))
    small = Variant(tier=Tier.EDGE, model="toy", settings={"shrink_above": 8})
    for variant, size in ((PLAIN, (32, 64)), (small, (8, 16))):
        image = asyncio.run(host.decode("image", blob, variant))
        assert isinstance(image, Image)
        assert (image.height, image.width) == size
        assert image.blob is blob
    with pytest.raises(BadInput, match="an image is given as media and data, not as a string"):
        asyncio.run(host.decode("image", "cat.png", PLAIN))


def test_a_model_is_loaded_once_however_many_ask(host: ServerHost, tmp_path: Path) -> None:
    """The first ask loads, the others wait for it, and all get the same sessions."""
    function = line(tmp_path, host)
    assert not host.loaded(function)

    async def work() -> None:
        found = await asyncio.gather(*(host.open(function) for _ in range(20)))
        assert len({id(each) for each in found}) == 1
        assert host.loaded(function)
        assert list(found[0].labels) == ["one", "two"]
        x = Tensor(dtype="float32", shape=(1,), data=bytes(4))
        assert (await found[0].sessions["line"].run({"x": x}))["y"].tolist() == [1.0]

    asyncio.run(work())


def test_an_ask_that_gives_up_does_not_stop_the_loading(host: ServerHost, tmp_path: Path) -> None:
    """The next one finds the model loaded."""
    function = line(tmp_path, host)

    async def work() -> None:
        impatient = asyncio.ensure_future(host.open(function))
        await asyncio.sleep(0)
        impatient.cancel()
        patient = await host.open(function)
        assert impatient.cancelled()
        assert await host.open(function) is patient

    asyncio.run(work())


@pytest.mark.parametrize("file", ["first.onnx", "labels.txt"])
def test_a_bundle_altered_after_the_start_does_not_run(
    host: ServerHost, tmp_path: Path, file: str
) -> None:
    """Files are checked when they are read; once mended, the next ask loads them."""
    function = line(tmp_path, host)
    path = tmp_path / "text.line" / file
    right = path.read_bytes()
    path.write_bytes(right[:-1] + b"!")

    async def work() -> None:
        results = await asyncio.gather(
            *(host.open(function) for _ in range(3)), return_exceptions=True
        )
        for result in results:
            assert isinstance(result, BundleError)
            assert f"text.line/{file} has SHA-256" in result.message
        assert not host.loaded(function)
        path.write_bytes(right)
        await host.open(function)
        assert host.loaded(function)

    asyncio.run(work())


def test_a_loading_that_failed_for_any_reason_is_tried_again(tmp_path: Path) -> None:
    """A foreign error is not remembered for ever."""

    class Tired(ServerHost):
        async def work(self, call: Callable[[], T]) -> T:
            raise MemoryError

    tired = Tired()
    function = line(tmp_path, tired)
    for _ in range(2):
        with pytest.raises(MemoryError):
            asyncio.run(tired.open(function))
        assert not tired.loaded(function)
    tired.close()


def test_garbage_for_a_model_is_a_bundle_error(host: ServerHost, tmp_path: Path) -> None:
    """Pinned bytes may still be no graph."""
    function = line(tmp_path, host, **{"first.onnx": b"garbage"})
    with pytest.raises(BundleError, match=r"first\.onnx is no ONNX graph"):
        asyncio.run(host.open(function))


def test_a_forgotten_function_is_no_longer_loaded(host: ServerHost, tmp_path: Path) -> None:
    """An ask that still names it is told so; one that runs keeps its sessions."""
    function = line(tmp_path, host)

    async def work() -> None:
        loaded = await host.open(function)
        host.forget(function)
        host.forget(function)
        assert not host.loaded(function)
        with pytest.raises(ModelNotReady, match=r"text\.line is no longer served"):
            await host.open(function)
        x = Tensor(dtype="float32", shape=(1,), data=bytes(4))
        assert (await loaded.sessions["line"].run({"x": x}))["y"].tolist() == [1.0]

    asyncio.run(work())

"""Every way to tamper with a bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import samples
import toys
from trivium.contract import File, Tier
from trivium.errors import BundleError
from trivium.hosts.server.bundles import Bundle, find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a bundle with files of several kinds."""
    made = toys.manifest("text.line", "line", models={"line": ("first.onnx",)})
    return toys.bundle(
        tmp_path,
        samples.LINE,
        toys.having(made, labels="labels.txt"),
        **{"first.onnx": samples.first_graph(), "labels.txt": "größe\nzwei\n".encode()},
    )


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and its digest alike, as somebody does who may write both."""
    path = folder / "manifest.json"
    made = json.loads(path.read_text())
    change(made)
    raw = json.dumps(made).encode()
    path.write_bytes(raw)
    (folder / "manifest.sha256").write_text(hashlib.sha256(raw).hexdigest())


def refused(folder: Path) -> str:
    """Return why a bundle is refused."""
    with pytest.raises(BundleError) as caught:
        Bundle(folder).verify()
    assert str(folder.parent) not in caught.value.message
    return caught.value.message


def test_an_untouched_bundle_is_what_it_says(folder: Path) -> None:
    """Its files, texts and function can be read."""
    bundle = Bundle(folder)
    bundle.verify()
    assert bundle.name == "text.line"
    assert bundle.text("labels.txt").splitlines() == ["größe", "zwei"]
    assert bundle.read("first.onnx") == samples.first_graph()
    loaded = bundle.function(Tier.EDGE)
    assert loaded is not None
    assert loaded.schema.name == "text.line"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def empty_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (flip, "has SHA-256 "),
    "shorter": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes; the manifest says"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes; the manifest says "),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\n"), "bytes; the manifest"),
    "gone": (Path.unlink, "can't be read: No such file or directory"),
    "a link": (link, "is a symbolic link; bundles hold plain files"),
    "a folder": (empty_folder, "is no file; bundles hold plain files"),
}


@pytest.mark.parametrize("file", ["function.py", "first.onnx", "labels.txt"])
@pytest.mark.parametrize("how", TAMPERED)
def test_a_changed_file_is_named(folder: Path, file: str, how: str) -> None:
    """One bit is enough, and the file is not given out."""
    tamper, expected = TAMPERED[how]
    tamper(folder / file)
    message = refused(folder)
    assert message.startswith(f"text.line/{file} ")
    assert expected in message
    with pytest.raises(BundleError, match=file):
        Bundle(folder).read(file)


@pytest.mark.parametrize("how", ["a bit", "shorter", "longer", "empty"])
def test_a_changed_function_does_not_run(folder: Path, how: str, tmp_path: Path) -> None:
    """Its code is not even compiled."""
    ran = tmp_path / "ran"
    made = toys.manifest("text.evil", "evil")
    evil = toys.bundle(tmp_path, f"open({str(ran)!r}, 'w')\ndef evil(): ...\n", made)
    TAMPERED[how][0](evil / "function.py")
    with pytest.raises(BundleError):
        Bundle(evil).function(Tier.EDGE)
    assert not ran.exists()


@pytest.mark.parametrize("how", ["a bit", "shorter", "empty", "gone", "a folder"])
@pytest.mark.parametrize("file", ["manifest.json", "manifest.sha256"])
def test_a_changed_manifest_is_refused(folder: Path, file: str, how: str) -> None:
    """Nothing that it lists is trusted then."""
    TAMPERED[how][0](folder / file)
    message = refused(folder)
    assert message.startswith("text.line/manifest.")
    assert file in message


@pytest.mark.parametrize("digest", [b"", b"\xff\xfe", b"0" * 64, b"0" * 9999, "ä".encode(), b"\0"])
def test_garbage_for_a_digest_is_refused(folder: Path, digest: bytes) -> None:
    """Of whatever length and encoding, and the message stays short."""
    (folder / "manifest.sha256").write_bytes(digest)
    assert len(refused(folder)) < 400


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda made: made.pop("name"), "missing required field `name`"),
        (lambda made: made.update(variants="all"), "Expected `array`"),
        (lambda made: made["variants"][0].update(tier="moon"), "Invalid enum value 'moon'"),
        (lambda made: made.update(files=[]), "Expected `object`"),
    ],
)
def test_a_manifest_of_another_shape_names_the_field(
    folder: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    """The digest alone does not make it right."""
    rewrite(folder, change)
    assert expected in refused(folder)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "x" * 300, "text.line/function.py"],
)
def test_a_file_name_is_no_path(folder: Path, name: str) -> None:
    """A manifest can't reach outside its own folder, whatever it lists."""
    secret = folder.parent / "secret"
    secret.write_bytes(b"key")
    pinned = File(sha256=hashlib.sha256(b"key").hexdigest(), size=3)
    rewrite(folder, lambda made: made["files"].update({name: {"sha256": pinned.sha256, "size": 3}}))
    refused(folder)
    with pytest.raises(BundleError):
        Bundle(folder).read(name)


def test_an_unlisted_file_is_not_there(folder: Path) -> None:
    """What the manifest does not pin is never read, and the bundle is refused for it."""
    (folder / "helper.py").write_text("import os")
    assert "text.line/helper.py is not in the manifest" in refused(folder)
    bundle = Bundle(folder)
    for name in ("helper.py", "manifest.json", "manifest.sha256", "model.sig"):
        with pytest.raises(BundleError, match=f"the manifest does not list '{name}'"):
            bundle.read(name)


def test_a_text_that_is_not_utf8_is_named(folder: Path) -> None:
    """A pinned file may still be wrong."""
    data = b"caf\xe9"
    (folder / "labels.txt").write_bytes(data)
    pinned = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    rewrite(folder, lambda made: made["files"].update({"labels.txt": pinned}))
    with pytest.raises(BundleError, match=r"text\.line/labels\.txt is not UTF-8"):
        Bundle(folder).text("labels.txt")


@pytest.mark.parametrize(
    "source",
    [
        "def line(",
        "raise RuntimeError('at import')",
        "import nothing_of_this_name",
        "other = 1",
        "\0",
        "\ufeff\u2028 x",
    ],
)
def test_code_that_does_not_load_is_a_bundle_error(tmp_path: Path, source: str) -> None:
    """The author's own line is named where there is one."""
    home = toys.bundle(tmp_path, source, toys.manifest("text.line", "line"))
    with pytest.raises(BundleError, match=r"text\.line/function\.py can't be loaded"):
        Bundle(home).function(Tier.EDGE)


@pytest.mark.parametrize(
    "options",
    [
        [{"name": "class", "schema": {"type": "integer"}}],
        [{"name": "not a name", "schema": {}}],
        [{"name": "a", "schema": {}}, {"name": "a", "schema": {}}],
        [{"name": "a", "schema": {"type": ["integer"]}}],
        [{"name": "a", "schema": {"type": "integer", "minimum": "x"}}],
        [{"name": "a", "schema": {"enum": []}}],
        [{"name": "a", "schema": {"anyOf": []}}],
        [{"name": "a", "schema": {"type": "string", "pattern": "("}}],
    ],
)
def test_impossible_options_are_a_bundle_error_or_harmless(folder: Path, options: Any) -> None:
    """A manifest that no compile kit made fails when it is loaded, not when it is asked."""
    rewrite(folder, lambda made: made["function"].update(options=options))
    try:
        loaded = Bundle(folder).function(Tier.EDGE)
    except BundleError:
        return
    assert loaded is not None
    loaded.options({})


def test_a_tier_without_a_variant_has_no_function(tmp_path: Path) -> None:
    """Its code is not run there."""
    made = toys.manifest(tiers=[Tier.CLOUD])
    bundle = Bundle(toys.bundle(tmp_path, "raise SystemExit", made))
    assert bundle.function(Tier.EDGE) is None


def test_a_later_folder_hides_an_earlier_one(tmp_path: Path) -> None:
    """A user's bundle stands before a built-in one of the same name."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for root in (ours, theirs):
        toys.bundle(root, toys.COUNT, toys.manifest())
    toys.bundle(ours, toys.COUNT, toys.manifest("text.other"))
    (ours / "no bundle").mkdir()
    (ours / "a file").touch()
    assert list(find([ours, theirs])) == [theirs / "text.count", ours / "text.other"]
    assert list(find([tmp_path / "nowhere"])) == []

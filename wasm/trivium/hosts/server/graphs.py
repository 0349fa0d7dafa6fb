"""Is this ONNX graph nothing but arithmetic that we know, of a size that we can bear?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import DecodeError

from ...errors import BundleError

MOST_BYTES = (1 << 31) - 1
MOST_NODES = 50_000
MOST_DEPTH = 8
IR_VERSIONS = (3, onnx.IR_VERSION)
OPSETS = {
    "": (7, onnx.defs.onnx_opset_version()),
    "ai.onnx.ml": (1, 5),
    "com.microsoft": (1, 1),
}
"""The domains whose operators we know, and their versions; `ai.onnx` is another name of ''."""

COMPILED = ("EPContext",)
"""Operators that carry a program for one device, or the path to one."""

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # in ModelProto, GraphProto and TensorProto
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_WIDTHS = {_I64: 8, _I32: 4}


def inspect(name: str, data: bytes) -> onnx.ModelProto:
    """Return the graph without its weights' bytes; raise BundleError if it may not be loaded."""
    if len(data) > MOST_BYTES:
        raise BundleError(f"{name} has {len(data)} bytes; at most {MOST_BYTES} are allowed")
    if data[4:8] == b"ORTM":  # then onnxruntime would read something else than we do
        raise BundleError(f"{name} is in onnxruntime's own format; only ONNX is allowed")
    try:
        # To copy weights only in order to look past them would cost more than all the rest.
        light = _light(memoryview(data), (_GRAPH, _INITIALIZER))
        model: onnx.ModelProto = onnx.ModelProto.FromString(light)
    except (DecodeError, IndexError) as error:
        raise BundleError(f"{name} is no ONNX graph: it is cut off or garbled") from error
    _between(name, "IR version", model.ir_version, IR_VERSIONS)
    if model.functions or model.training_info:
        what = "functions of its own" if model.functions else "training steps"
        raise BundleError(f"{name} has {what}; only one graph of known operators is allowed")
    used = set()
    for count, node in enumerate(_nodes(name, model.graph), 1):
        if count > MOST_NODES:
            raise BundleError(f"{name} has over {MOST_NODES} nodes; no more are allowed")
        if node.op_type in COMPILED:
            raise BundleError(f"{name} has a node {node.op_type}, which carries compiled code")
        used.add(_plain(node.domain))
    stated: dict[str, int] = {}
    for each in model.opset_import:
        if stated.setdefault(_plain(each.domain), each.version) != each.version:
            raise BundleError(f"{name} states two versions of the operators of {each.domain!r}")
    for domain in sorted(used):
        if domain not in OPSETS:
            known = ", ".join(map(repr, OPSETS))
            raise BundleError(f"{name} has operators of {domain[:100]!r}; known are: {known}")
        _between(name, f"version of operators {domain!r}", stated.get(domain, 0), OPSETS[domain])
    return model


def _nodes(name: str, graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, those of inner graphs too, after looking at what it and they hold."""
    waiting = [(graph, 1)]
    while waiting:
        graph, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise BundleError(f"{name} nests graphs over {MOST_DEPTH} deep; no more is allowed")
        for tensor in (*graph.initializer, *_parts(graph.sparse_initializer)):
            _own(name, tensor)
        for node in graph.node:
            for attribute in node.attribute:
                # A type that this library does not know reads as UNDEFINED.
                if not attribute.type or attribute.ref_attr_name:
                    raise BundleError(
                        f"{name}: {node.op_type} has an attribute {attribute.name[:100]!r} "
                        "of no known type"
                    )
                sparse = _parts((attribute.sparse_tensor, *attribute.sparse_tensors))
                for tensor in (attribute.t, *attribute.tensors, *sparse):
                    _own(name, tensor)
                inner = [attribute.g] if attribute.HasField("g") else []
                waiting += [(each, depth + 1) for each in (*inner, *attribute.graphs)]
            yield node


def _parts(tensors: Iterable[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for each in tensors:
        yield from (each.values, each.indices)


def _own(name: str, tensor: onnx.TensorProto) -> None:
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        place = next((each.value for each in tensor.external_data if each.key == "location"), "")
        raise BundleError(
            f"{name}: the data of {tensor.name[:100]!r} are in another file, {place[:100]!r}; "
            "a graph has to hold its own"
        )


def _between(name: str, what: str, value: int, allowed: tuple[int, int]) -> None:
    least, most = allowed
    if not least <= value <= most:
        raise BundleError(f"{name} has {what} {value}; {least} to {most} are allowed")


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _light(data: memoryview, path: tuple[int, ...]) -> bytes:
    """Return a message as it is, but for the raw data of the tensors to which `path` leads."""
    kept = bytearray()
    start = 0
    while start < len(data):
        tag, value = _varint(data, start)
        number, wire = tag >> 3, tag & 7
        if tag >= 1 << 32:
            raise DecodeError("a tag is too long")
        if wire == _VARINT:
            _, end = _varint(data, value)
        elif wire == _LEN:
            size, value = _varint(data, value)
            end = value + size
        elif wire in _WIDTHS:
            end = value + _WIDTHS[wire]
        else:
            raise DecodeError(f"wire type {wire}")
        if end > len(data):
            raise DecodeError("cut off")
        if wire == _LEN and path and number == path[0]:
            inner = _light(data[value:end], path[1:])
            kept += _written(tag) + _written(len(inner)) + inner
        elif path or number != _RAW_DATA:
            kept += data[start:end]
        start = end
    return bytes(kept)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise DecodeError("a number is too long")


def _written(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)

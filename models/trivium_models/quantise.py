"""How does a model become its INT8 form, the same bits on every machine?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic


def quantise(model: Path) -> onnx.ModelProto:
    """Quantise weights once and activations at run time; nothing is calibrated."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(model, path, weight_type=QuantType.QInt8, per_channel=True)
        small = onnx.load(path)
    # What the tools write about themselves changes with their versions; the model does not.
    small.producer_name, small.producer_version = "trivium", ""
    del small.graph.value_info[:]
    del small.metadata_props[:]
    return small

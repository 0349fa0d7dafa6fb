"""How is Fracast's graph drawn, of its package's weights? (Run once; needs the kit, no torch.)

`scripts/models python models/functions/series.forecast/graph.py WHEEL` writes graph.onnx, whose
weights stay in the package: `assemble` reads them. What the package does around its network is
inside: the scale of a series, where nothing was measured, its periods, and quantiles in order.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivium_models.draw import IR_VERSION, OPSET, Drawing, safetensors

MEMBER = "fracast/weights/model.safetensors"
WIDTH = 2048
HORIZON = 48
CHANNELS = 64
HIDDEN = 96
BINS = 16
SEED = 128
EPSILON = float(np.finfo(np.float32).eps)


class Fracast(Drawing):
    """The network, as its package computes it for one series."""

    def weight(self, name: str, axes: Sequence[int] = ()) -> str:
        """Refer to a weight; what several stages share is turned once."""
        turned = f"{name}.turned"
        known = any(turned in node.output for node in self.nodes)
        return turned if known else super().weight(name, axes)

    def cast(self, x: str, kind: int = TensorProto.FLOAT) -> str:
        name = f"cast_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [x], [name], name=name, to=kind))
        return name

    def places(self, first: int, last: int) -> str:
        ends = (self.const(float(first)), self.const(float(last)))
        return self.op("Range", *ends, self.const(1.0))

    def rows(self, values: Any, kind: type = np.float32) -> str:
        """Add a constant of one or more axes."""
        name = f"rows_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(values, kind), name)
        return name

    def linear(self, x: str, name: str) -> str:
        product = self.op("MatMul", x, self.weight(f"{name}.weight", (1, 0)))
        return self.op("Add", product, self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        mean = self.op("ReduceMean", self.op("Mul", x, x), self.const([-1]), keepdims=1)
        size = self.op("Sqrt", self.op("Add", mean, self.const(EPSILON)))
        return self.op("Mul", self.op("Div", x, size), self.weight(f"{name}.weight"))

    def past(self, x: str, name: str, dilation: int) -> str:
        """Convolve each channel of rows [t, channels] over what was before."""
        turned = self.op("Unsqueeze", self.op("Transpose", x, perm=[1, 0]), self.const([0]))
        weights = (self.weight(f"{name}.dw_weight"), self.weight(f"{name}.dw_bias"))
        done = self.op(
            "Conv",
            turned,
            *weights,
            group=CHANNELS,
            dilations=[dilation],
            pads=[2 * dilation, 0],
        )
        return self.op("Transpose", self.op("Squeeze", done, self.const([0])), perm=[1, 0])

    def gated(self, x: str, name: str) -> str:
        up = self.linear(x, f"{name}.up")
        gate = self.op("Slice", up, self.const([0]), self.const([HIDDEN]), self.const([-1]))
        value = self.op(
            "Slice", up, self.const([HIDDEN]), self.const([2 * HIDDEN]), self.const([-1])
        )
        open_ = self.op("Mul", gate, self.op("Sigmoid", gate))
        return self.linear(self.op("Mul", open_, value), f"{name}.down")

    def block(self, x: str, name: str, dilation: int) -> str:
        mixed = self.linear(self.past(x, name, dilation), f"{name}.pw")
        x = self.norm(self.op("Add", x, mixed), f"{name}.norm1")
        return self.norm(self.op("Add", x, self.gated(x, f"{name}.ffn")), f"{name}.norm2")

    def scaled(self, x: str, dilation: int) -> str:
        angles = math.log2(dilation) / 2.0 ** np.arange(4) * math.pi
        given = self.rows(np.concatenate([np.sin(angles), np.cos(angles)]))
        both = self.linear(given, "core.scale.to_gb")
        ends = ((0, CHANNELS), (CHANNELS, 2 * CHANNELS))
        gamma, beta = (
            self.op("Slice", both, self.const([a]), self.const([b]), self.const([0]))
            for a, b in ends
        )
        wider = self.op("Add", gamma, self.const(1.0))
        return self.op("Add", self.op("Mul", x, wider), beta)

    def column(self, x: str) -> str:
        return self.op("Unsqueeze", x, self.const([1]))

    def recency(self, first: int, last: int) -> str:
        """Return how far each place is from now, on five scales."""
        steps = self.op("Sub", self.places(first, last), self.const(float(WIDTH - 1)))
        delta = self.op("Div", steps, self.const(float(WIDTH)))
        far = self.op("Abs", delta)
        log = self.op("Log", self.op("Add", far, self.const(1.0)))
        signed = self.op("Mul", self.op("Sign", delta), log)
        log = self.op("Div", signed, self.const(math.log(2.0)))
        decays = [
            self.op("Exp", self.op("Mul", far, self.const(-rate))) for rate in (0.5, 2.0, 8.0)
        ]
        return self.op("Concat", *map(self.column, (delta, log, *decays)), axis=1)

    def window(self) -> tuple[str, str, str, str]:
        """Return the last 2048 values on a scale from 0 to 1, which of them are there, and how."""
        gap = numpy_helper.from_array(np.array([np.nan]), "gap")
        gaps = self.op("ConstantOfShape", self.const([WIDTH]), value=gap)
        whole = self.op("Concat", gaps, "values", axis=0)
        ends = (self.const([-WIDTH]), self.rows([2**62], np.int64))
        tail = self.op("Slice", whole, *ends, self.const([0]))
        there = self.op("Not", self.op("IsNaN", tail))
        low, high = (
            self.op(kind, self.op("Where", there, tail, self.rows(far, np.float64)), keepdims=0)
            for kind, far in (("ReduceMin", np.inf), ("ReduceMax", -np.inf))
        )
        span = self.op("Max", self.op("Sub", high, low), self.rows(1e-5, np.float64))
        scaled = self.op("Div", self.op("Sub", tail, low), span)
        zero = self.rows(0.0, np.float64)
        values = self.cast(self.op("Where", there, scaled, zero))
        return values, there, low, span

    def periods(self, values: str, there: str, counted: str) -> tuple[str, str]:
        """Return the four strongest periods, 1 in place of none, and which of them there are."""
        total = self.op("ReduceSum", values, keepdims=0)
        count = self.op("ReduceSum", counted, keepdims=0)
        mean = self.op("Div", total, count, to="mean_there")
        filled = self.op("Where", there, values, mean)
        centred = self.op("Sub", filled, self.op("ReduceMean", filled, keepdims=0))
        shaped = self.op("Reshape", centred, self.const([1, WIDTH, 1]))
        waves = self.op("DFT", shaped, "", self.rows(1, np.int64), onesided=1)
        power = self.op("ReduceSum", self.op("Mul", waves, waves), self.const([0, 2]), keepdims=0)
        ends = (self.const([1]), self.const([WIDTH // 2 + 1]), self.const([0]))
        power = self.op("Slice", power, *ends)
        floor = self.op("Max", self.op("ReduceSum", power, keepdims=0), self.const(1e-12))
        share = self.op("Div", power, floor)
        bins = WIDTH // 2
        left, middle, right = (
            self.op("Slice", share, self.const([a]), self.const([bins - 2 + a]), self.const([0]))
            for a in range(3)
        )
        peak = self.op("And", self.op("Greater", middle, left), self.op("Greater", middle, right))
        least = self.const(math.log(bins / 0.05) / bins)
        sure = self.op("And", peak, self.op("GreaterOrEqual", middle, least))
        scores = self.op("Where", sure, middle, self.const(-1.0))
        self.nodes.append(
            helper.make_node("TopK", [scores, self.const([4])], ["best", "place"], name="peaks")
        )
        found = self.op("Greater", "best", self.const(0.0))
        frequency = self.op("Add", self.cast("place"), self.const(2.0))
        period = self.op("Round", self.op("Div", self.const(float(WIDTH)), frequency))
        return self.op("Where", found, period, self.const(1.0)), found

    def phases(self, periods: str, found: str) -> str:
        times = self.op("Mul", self.places(0, WIDTH), self.const(2 * math.pi))
        times = self.column(times)
        angle = self.op("Div", times, periods)
        kept = self.cast(found)
        parts = [
            self.op("Unsqueeze", self.op("Mul", self.op(kind, angle), kept), self.const([2]))
            for kind in ("Sin", "Cos")
        ]
        pairs = self.op("Concat", *parts, axis=2)
        return self.op("Reshape", pairs, self.const([WIDTH, 8]))

    def bins(self, first: int, last: int, period: str) -> str:
        """Return which sixteenth of the strongest period each place falls into."""
        places = self.places(first, last)
        part = self.op("Div", self.op("Mod", places, period, fmod=1), period)
        whole = self.op("Floor", self.op("Mul", part, self.const(float(BINS))))
        return self.op("Min", whole, self.const(float(BINS - 1)))

    def seasonal(self, values: str, counted: str, periods: str) -> str:
        """Return the mean of the past at the phase of each step ahead."""
        first = self.op("Slice", periods, self.const([0]), self.const([1]), self.const([0]))
        past = self.column(self.bins(0, WIDTH, first))
        numbers = self.places(0, BINS)
        hot = self.cast(self.op("Equal", past, numbers))
        hot = self.op("Mul", hot, self.column(counted))
        counts = self.op("ReduceSum", hot, self.const([0]), keepdims=0)
        totals = self.op("MatMul", values, hot)
        means = self.op("Div", totals, self.op("Max", counts, self.const(1.0)))
        means = self.op("Where", self.op("Greater", counts, self.const(0.0)), means, "mean_there")
        ahead = self.bins(WIDTH, WIDTH + HORIZON, first)
        return self.op("Gather", means, self.cast(ahead, TensorProto.INT64), axis=0)

    def draw(self) -> onnx.ModelProto:
        values, there, low, span = self.window()
        counted = self.cast(there)
        periods, found = self.periods(values, there, counted)
        given = [self.column(values), self.column(counted), self.recency(0, WIDTH)]
        x = self.linear(self.op("Concat", *given, axis=1), "core.in_proj")
        x = self.op("Add", x, self.linear(self.phases(periods, found), "core.periodic.proj"))
        for stage in range(10):
            x = self.block(self.scaled(x, 2**stage), "core.block", 2**stage)
        h = self.norm(x, "core.norm")

        ends = (self.const([WIDTH - 1]), self.const([WIDTH]), self.const([0]))
        mean = self.op("ReduceMean", h, self.const([0]), keepdims=1)
        summary = self.op("Concat", mean, self.op("Slice", h, *ends), axis=1)
        wide = self.op("Expand", summary, self.const([HORIZON, 2 * CHANNELS]))
        ahead = self.recency(WIDTH, WIDTH + HORIZON)
        x = self.linear(self.op("Concat", ahead, wide, axis=1), "head.summary_proj")
        x = self.op("Add", x, self.weight("head.queries"))
        more = self.op("Add", x, self.gated(x, "head.decoder_ffns.0"))
        x = self.norm(more, "head.decoder_norms.0")
        for layer in range(2):
            name = f"head.fc_blocks.{layer}"
            x = self.norm(self.op("Add", x, self.past(x, name, 2**layer)), f"{name}.norm")
        fill = self.column(self.seasonal(values, counted, periods))
        next_ = self.linear(self.op("Concat", fill, ahead, axis=1), "head.future_conv.in_proj")
        ends = (self.const([WIDTH - SEED]), self.const([WIDTH]), self.const([0]))
        z = self.op("Concat", self.op("Slice", h, *ends), next_, axis=0)
        for layer in range(6):
            z = self.block(z, "head.future_conv.block", 2**layer)
        ends = (self.const([SEED]), self.const([SEED + HORIZON]), self.const([0]))
        z = self.linear(self.op("Slice", z, *ends), "head.future_conv.out_proj")
        q = self.linear(self.op("Add", x, z), "head.out_proj")
        self.nodes.append(
            helper.make_node(
                "TopK", [q, self.const([9])], ["rising", "order"], name="sort", largest=0
            )
        )
        wide = self.cast("rising", TensorProto.DOUBLE)
        self.op("Add", self.op("Mul", wide, span), low, to="quantiles")
        graph = helper.make_graph(
            self.nodes,
            "fracast",
            [helper.make_tensor_value_info("values", TensorProto.DOUBLE, ["points"])],
            [helper.make_tensor_value_info("quantiles", TensorProto.DOUBLE, [HORIZON, 9])],
            [*self.constants.values()],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


if __name__ == "__main__":
    drawn = Fracast(safetensors(Path(sys.argv[1]), MEMBER)).draw()
    Path(__file__).with_name("graph.onnx").write_bytes(drawn.SerializeToString(deterministic=True))

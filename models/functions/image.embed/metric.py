"""How soon does a picture find its own text among 2,135?

The gallery is what text.embed, in full, gives each text of the test split of
models/studies/image.embed, as whole numbers.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

GALLERY = np.load(Path(__file__).with_name("gallery.npy")).astype(np.float32)
GALLERY /= np.linalg.norm(GALLERY, axis=1, keepdims=True)


def gain(answer: list[float], wanted: int) -> float:
    """Return 1 if the text comes first, and less by the logarithm of its rank (nDCG)."""
    near = GALLERY @ np.array(answer, np.float32)
    return 1 / math.log2(2 + int((near > near[wanted]).sum()))

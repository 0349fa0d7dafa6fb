"""Trivium: write a function once, run it in the page, at the edge or in the cloud."""

from __future__ import annotations

from msgspec import Meta

from .contract import Answer, Ask, Blob, Budget, Label, Resident, Tensor, Tier
from .errors import TriviumError
from .function import Asker, Image, Models, Text, function

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
    "Asker",
    "Blob",
    "Budget",
    "Image",
    "Label",
    "Meta",
    "Models",
    "Resident",
    "Tensor",
    "Text",
    "Tier",
    "TriviumError",
    "function",
]

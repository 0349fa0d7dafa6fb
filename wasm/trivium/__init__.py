"""Trivium: write a function once, run it in the page, at the edge or in the cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Meta

from .contract import Answer, Ask, Blob, Budget, Resident, Tensor, Tier
from .errors import TierError, TriviumError, Unanswered
from .function import Asker, Models, function
from .kinds import Audio, Document, Frame, Image, Series, Table, Text, Video
from .nouns import Box, Forecast, Label, Mask, Segment, Speech

if TYPE_CHECKING:
    from .hosts.server.client import Client

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
    "Asker",
    "Audio",
    "Blob",
    "Box",
    "Budget",
    "Client",
    "Document",
    "Forecast",
    "Frame",
    "Image",
    "Label",
    "Mask",
    "Meta",
    "Models",
    "Resident",
    "Segment",
    "Series",
    "Speech",
    "Table",
    "Tensor",
    "Text",
    "Tier",
    "TierError",
    "TriviumError",
    "Unanswered",
    "Video",
    "function",
]


def __getattr__(name: str) -> object:
    # Only who asks servers needs what that needs; a page has none of it.
    if name == "Client":
        from .hosts.server.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

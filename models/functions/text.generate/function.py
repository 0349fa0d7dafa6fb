"""What would an assistant answer, word by word, and as JSON of a given form if that is wanted?"""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from trivium import Meta, Models, Tensor, Text, function
from trivium.errors import BadInput

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
ROLES = ("system", "user", "assistant")
FEW = 256
"""How many of the best tokens the graph gives; further ones are looked up if none of them fits."""

MANY = 4096


@function("text.generate")
async def generate(
    text: Text,
    models: Models,
    messages: list[dict[str, str]] = [],  # noqa: B006 # copied for each ask
    max_tokens: Annotated[int, Meta(ge=1, le=1024)] = 128,
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0,
    top_k: Annotated[int, Meta(ge=1, le=256)] = 40,
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95,
    seed: int = 0,
    stop: Annotated[list[str], Meta(max_length=8)] = [],  # noqa: B006 # copied for each ask
    schema: dict[str, Any] | None = None,
) -> AsyncIterator[str]:
    """Answer as an assistant would, word by word; `messages` are the turns before."""
    if not all(stop) or any(len(each) > 64 for each in stop):
        raise BadInput("a stop string has 1 to 64 characters")
    form = None if schema is None else Form(schema)
    prompt = models.tokens.encode(chat(messages, ask(text, schema)))
    room = min(max_tokens, models.settings["context"] - prompt.ids.shape[1])
    if form and len(form.end().encode()) >= room:
        raise BadInput(
            f"max_tokens is {max_tokens} and there is room for {room}; JSON of this schema may "
            f"need {len(form.end().encode()) + 1}"
        )
    choose = Choice(models, form, temperature, top_k, top_p, seed)
    spoken = models.tokens.stream()
    held = Held(stop)
    async with models.llama.start() as steps:
        best = await steps.run_all(ids=prompt.ids)
        while room > 0 and not held.stopped:
            known = form.known() if form else ""
            if form and (form.ended or len(form.end().encode()) >= room):
                break
            if form and known:
                # What must come needs no choice: all of it is one step.
                form.take(known)
                fed = models.tokens.encode(known).ids
                piece = known
                room -= fed.shape[1]
            else:
                token = choose(best, room)
                if token is None:
                    break
                piece = choose.says(token) if form else spoken.add(token)
                if form:
                    form.take(piece)
                fed = Tensor.of("int64", (1, 1), [token])
                room -= 1
            if ready := held.add(piece):
                yield ready
            if room > 0 and not held.stopped and not (form and form.ended):
                best = await steps.run_all(ids=fed)
    # Whatever is left of the room: JSON ends as JSON.
    if left := held.end(form.end() if form else spoken.end()):
        yield left


def ask(text: str, schema: Mapping[str, Any] | None) -> str:
    """Return what the user says."""
    if schema is None:
        return text
    return f"{text}\n\nAnswer with JSON of this schema alone:\n{json.dumps(schema)}"


def chat(messages: list[dict[str, str]], text: str) -> str:
    """Return a conversation as the model has learned to read it."""
    turns = [*messages, {"role": "user", "content": text}]
    said = []
    if turns[0].get("role") != "system":
        said.append(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n")
    for number, turn in enumerate(turns):
        if set(turn) != {"role", "content"} or turn["role"] not in ROLES:
            raise BadInput(
                f"message {number} is {str(turn)[:100]}; it needs a role ({', '.join(ROLES)}) "
                "and content"
            )
        # Nobody's words may begin or end a turn.
        content = turn["content"].replace("<|", "< |")
        said.append(f"<|im_start|>{turn['role']}\n{content}<|im_end|>\n")
    return "".join(said) + "<|im_start|>assistant\n"


class Held:
    """Text on its way out; what may be the beginning of a stop string waits."""

    def __init__(self, stop: list[str]) -> None:
        self.stopped = False
        self._stop = stop
        self._text = ""

    def add(self, piece: str) -> str:
        """Return what is safe to say."""
        self._text += piece
        found = [at for at in map(self._text.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            said, self._text = self._text[: min(found)], ""
            return said
        waits = max(
            (
                size
                for each in self._stop
                for size in range(1, len(each))
                if self._text.endswith(each[:size])
            ),
            default=0,
        )
        cut = len(self._text) - waits
        said, self._text = self._text[:cut], self._text[cut:]
        return said

    def end(self, piece: str) -> str:
        """Return what waited."""
        return "" if self.stopped else self.add(piece) + self._text


class Choice:
    """Picks the next token: the best one, or by chance where there is a temperature."""

    def __init__(
        self,
        models: Models,
        form: Form | None,
        temperature: float,
        top_k: int,
        top_p: float,
        seed: int,
    ) -> None:
        self._tokens = models.tokens
        self._ends = frozenset(models.settings["ends"])
        self._form = form
        self._temperature = temperature
        self._top_k = top_k
        self._top_p = top_p
        self._chance = random.Random(seed)  # noqa: S311 # no secret
        self._said: dict[int, str] = {}

    def __call__(self, best: Mapping[str, Tensor], room: int) -> int | None:
        """Return a token, or none where the text ends."""
        most = self._top_k if self._temperature else 1
        ranked = zip(best["candidates"].tolist(), best["scores"].tolist(), strict=True)
        found = self._first(ranked, most, room)
        if not found:
            found = self._first(iter(best["logits"].topk(MANY)[FEW:]), most, room)
        if not found:
            return None
        token = found[0][0] if most == 1 else self._drawn(found)
        return None if token in self._ends else token

    def says(self, token: int) -> str:
        """Return the text of one token; it may be half a character."""
        if token not in self._said:
            self._said[token] = self._tokens.decode([token])
        return self._said[token]

    def _first(
        self, ranked: Iterator[tuple[int, float]], most: int, room: int
    ) -> list[tuple[int, float]]:
        """Return the first that may come."""
        found: list[tuple[int, float]] = []
        for token, score in ranked:
            if self._form is None or self._fits(self._form, token, room):
                found.append((token, score))
                if len(found) == most:
                    break
        return found

    def _fits(self, form: Form, token: int, room: int) -> bool:
        if token in self._ends:
            return form.complete
        return form.fits(self.says(token), room - 1)

    def _drawn(self, found: list[tuple[int, float]]) -> int:
        top = found[0][1]
        weights = [math.exp((score - top) / self._temperature) for _, score in found]
        enough, sum_ = self._top_p * sum(weights), 0.0
        kept = 0
        for weight in weights:
            sum_, kept = sum_ + weight, kept + 1
            if sum_ >= enough:
                break
        tokens = [token for token, _ in found[:kept]]
        return self._chance.choices(tokens, weights[:kept])[0]


# JSON of a schema, as what may still come. A stack holds what is open, the next first: a text
# that must come, or one of these.


class Chars(NamedTuple):
    """The inside of a string and its end."""

    least: int
    most: int
    escaped: bool = False


class Number(NamedTuple):
    """A number of which some is there."""

    low: float
    high: float
    whole: bool
    text: str = ""


class Either:
    """One of several stacks; it is told by itself, for to look at what it holds takes long."""

    __slots__ = ("options",)

    def __init__(self, options: tuple[tuple[Any, ...], ...]) -> None:
        self.options = options


class More(NamedTuple):
    """An array after an item: others, or its end."""

    item: Either
    least: int
    most: int


Stack = tuple[Any, ...]

ESCAPES = frozenset('"\\/nt')
DIGITS = 9
PLACES = 6
DEEP = 8
LARGE = 8192
STRING, ITEMS = 256, 16
"""The most characters and items where a schema states none."""

LONGEST = 2048
"""What an array's items may need at least, in characters: more than any context has room for."""

HUGE = 1e300
WORK = 200_000
"""So many steps may be thought of for one token, about a third of a second."""

PLAIN = ("title", "description", "default", "examples", "$schema", "$id", "additionalProperties")
WORDS = {
    "object": ("properties", "required"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "boolean": (),
    "null": (),
}


class Form:
    """What of a schema's JSON is still to come; keys come in their order, all of them."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        if len(json.dumps(schema)) > LARGE:
            raise BadInput(f"the schema is over {LARGE} characters; no more are allowed")
        self._stacks: frozenset[Stack] = frozenset([stack(schema, "schema", 0)])
        self._work = 0

    @property
    def complete(self) -> bool:
        """Return whether what is there is whole; a number may still go on."""
        return any(whole(each) for each in self._stacks)

    @property
    def ended(self) -> bool:
        """Return whether nothing more may come."""
        return self._stacks == {()}

    def known(self) -> str:
        """Return the text that must come, if there is no choice."""
        said = ""
        if len(self._stacks) == 1:
            (open_,) = self._stacks
            while open_ and isinstance(open_[0], str | Either):
                if isinstance(open_[0], str):
                    said, open_ = said + open_[0], open_[1:]
                elif open_[0].options[1:]:
                    break
                else:
                    open_ = (*open_[0].options[0], *open_[1:])
        return said

    def fits(self, text: str, room: int) -> bool:
        """Return whether `text` may come and the rest then finds room, a byte a token."""
        if not text or "\ufffd" in text:
            return False
        after = self._stacks
        for char in text:
            after = through(after, char)
            self._work += len(after)
        if self._work > WORK:
            raise BadInput(
                "the schema leaves open too many ways at once; anyOf less of what is alike"
            )
        return bool(after) and len(shortest(after).encode()) <= room

    def take(self, text: str) -> None:
        """Note that `text` has come."""
        self._stacks, self._work = through(self._stacks, text), 0

    def end(self) -> str:
        """Return the shortest text that ends it."""
        return shortest(self._stacks)


def stack(schema: Any, where: str, depth: int) -> Stack:
    """Return a schema's JSON as a stack; raise BadInput for what is not understood."""
    if not isinstance(schema, Mapping):
        raise BadInput(f"{where} is {str(schema)[:60]}; an object is needed")
    if depth > DEEP:
        raise BadInput(f"{where} is over {DEEP} deep; no more is allowed")
    if "enum" in schema or "const" in schema:
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        known(schema, where, "enum", ("enum", "const", "type"))
        if not isinstance(values, list) or not values:
            raise BadInput(f"{where}.enum needs at least one value")
        return (
            (Either(tuple((json.dumps(each),) for each in values)),)
            if values[1:]
            else (json.dumps(values[0]),)
        )
    if "anyOf" in schema:
        known(schema, where, "anyOf", ("anyOf",))
        choices = some(schema["anyOf"], f"{where}.anyOf")
        made = [stack(each, f"{where}.anyOf", depth + 1) for each in choices]
        return (Either(tuple(made)),)
    if "type" not in schema and "properties" not in schema:
        words = ", ".join(map(str, schema))[:80] or "nothing"
        raise BadInput(f"{where} has {words}; it needs type, enum, const, anyOf or properties")
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kinds = some(kind, f"{where}.type")
        made = [stack({**only(schema, each), "type": each}, where, depth + 1) for each in kinds]
        return (Either(tuple(made)),)
    if not isinstance(kind, str) or kind not in WORDS:
        raise BadInput(f"{where}.type is {str(kind)[:40]!r}; known are: {', '.join(WORDS)}")
    known(schema, where, kind, ("type", *WORDS[kind]))
    return _KINDS[kind](schema, where, depth)


def some(values: Any, where: str) -> list[Any]:
    """Return a list that is one, with something in it."""
    if not isinstance(values, list) or not values:
        raise BadInput(f"{where} is {str(values)[:60]}; a list of at least one is needed")
    return values


def only(schema: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return what of a schema of several types is about one of them."""
    words = {each for words in WORDS.values() for each in words}
    mine = WORDS.get(kind, ()) if isinstance(kind, str) else ()
    return {key: each for key, each in schema.items() if key not in words or key in mine}


def known(schema: Mapping[str, Any], where: str, kind: str, words: tuple[str, ...]) -> None:
    """Raise BadInput for a word that would be ignored."""
    for word in schema:
        if word not in words and word not in PLAIN:
            raise BadInput(
                f"{where} has {str(word)[:40]!r}, which is not understood for {kind}; understood "
                f"are: {', '.join(words)}"
            )


def of_object(schema: Mapping[str, Any], where: str, depth: int) -> Stack:
    """Return `{`, each key with its value, and `}`."""
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise BadInput(f"{where}.properties is no object")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
        raise BadInput(f"{where}.required is {str(required)[:60]}; a list of names is needed")
    absent = [key for key in required if key not in properties]
    if absent:
        raise BadInput(f"{where}.required names {', '.join(absent)[:80]}, which has no property")
    made: list[Any] = []
    for number, (key, value) in enumerate(properties.items()):
        made.append(f"{', ' if number else '{'}{json.dumps(key)}: ")
        made += stack(value, f"{where}.{key}", depth + 1)
    made.append("}" if made else "{}")
    return tuple(made)


def of_array(schema: Mapping[str, Any], where: str, depth: int) -> Stack:
    """Return `[`, items, and `]`."""
    item = Either((stack(schema.get("items"), f"{where}.items", depth + 1),))
    least = limit(schema, where, "minItems", 0)
    most = limit(schema, where, "maxItems", max(ITEMS, least))
    if least > most:
        raise BadInput(f"{where} has minItems {least} and maxItems {most}")
    if most == 0:
        return ("[]",)
    # Arrays in arrays multiply: what is never to be written is not made either.
    long = len(closing((item,)))
    if least * long > LONGEST:
        raise BadInput(
            f"{where} needs {least} items of {long} characters; at most {LONGEST} characters are "
            "allowed"
        )
    first = (item, More(item, least - 1, most - 1))
    return ("[", *first) if least else ("[", Either((("]",), first)))


def of_string(schema: Mapping[str, Any], where: str, _: int) -> Stack:
    """Return a quote, and what comes until the next."""
    least = limit(schema, where, "minLength", 0)
    most = limit(schema, where, "maxLength", max(STRING, least))
    if least > most:
        raise BadInput(f"{where} has minLength {least} and maxLength {most}")
    return ('"', Chars(least, most))


def of_number(schema: Mapping[str, Any], where: str, _: int) -> Stack:
    """Return a number within bounds, of nine digits and six places at most."""
    entire = schema["type"] == "integer"
    bound = float(10**DIGITS - 1)
    step = 1.0 if entire else 10.0**-PLACES
    low = max(
        -bound,
        number(schema, where, "minimum", -bound),
        number(schema, where, "exclusiveMinimum", -bound - step) + step,
    )
    high = min(
        bound,
        number(schema, where, "maximum", bound),
        number(schema, where, "exclusiveMaximum", bound + step) - step,
    )
    made = Number(low, high, entire)
    if rest(made) is None:
        raise BadInput(f"{where} allows no number that can be written: {low} to {high}")
    return (made,)


def limit(schema: Mapping[str, Any], where: str, word: str, default: int) -> int:
    """Return a count."""
    value = schema.get(word, default)
    if not isinstance(value, int) or not 0 <= value <= 1024:
        raise BadInput(f"{where}.{word} is {str(value)[:40]}; 0 to 1024 are allowed")
    return value


def number(schema: Mapping[str, Any], where: str, word: str, default: float) -> float:
    """Return a bound."""
    value = schema.get(word, default)
    # A whole number may be too large to be a float.
    if not isinstance(value, int | float) or not -HUGE <= value <= HUGE:
        raise BadInput(f"{where}.{word} is {str(value)[:40]}; a number to {HUGE:g} is needed")
    return float(value)


_KINDS = {
    "object": of_object,
    "array": of_array,
    "string": of_string,
    "integer": of_number,
    "number": of_number,
    "boolean": lambda *_: (Either((("true",), ("false",))),),
    "null": lambda *_: ("null",),
}


def through(stacks: frozenset[Stack], text: str) -> frozenset[Stack]:
    """Return what is open after `text`; nothing if it can't come."""
    for char in text:
        stacks = frozenset(after for each in stacks for after in step(each, char))
    return stacks


@lru_cache(maxsize=16384)
def step(open_: Stack, char: str) -> tuple[Stack, ...]:
    """Return what is open after one character."""
    if not open_:
        return ()
    first, others = open_[0], open_[1:]
    if isinstance(first, str):
        if first[0] != char:
            return ()
        return ((first[1:], *others) if first[1:] else others,)
    if isinstance(first, Chars):
        if first.escaped:
            fine = char in ESCAPES
            return ((Chars(first.least - 1, first.most - 1), *others),) if fine else ()
        if char == '"':
            return (others,) if first.least <= 0 else ()
        if first.most <= 0 or char < " ":
            return ()
        if char == "\\":
            return ((first._replace(escaped=True), *others),)
        return ((Chars(first.least - 1, first.most - 1), *others),)
    if isinstance(first, Number):
        grown = first._replace(text=first.text + char)
        found = ((grown, *others),) if char in "-.0123456789" and rest(grown) is not None else ()
        return (*found, *(step(others, char) if rest(first) == "" else ()))
    if isinstance(first, Either):
        return tuple(after for each in first.options for after in step((*each, *others), char))
    if char == "]":
        return (others,) if first.least <= 0 else ()
    if char == "," and first.most > 0:
        return ((" ", first.item, More(first.item, first.least - 1, first.most - 1), *others),)
    return ()


def whole(open_: Stack) -> bool:
    """Return whether nothing need come."""
    return all(isinstance(each, Number) and rest(each) == "" for each in open_)


def shortest(stacks: frozenset[Stack]) -> str:
    """Return the shortest text that closes one of them."""
    return min((closing(each) for each in stacks), key=len, default="")


@lru_cache(maxsize=16384)
def closing(open_: Stack) -> str:
    """Return the shortest text that closes all."""
    said = ""
    for each in open_:
        if isinstance(each, str):
            said += each
        elif isinstance(each, Chars):
            said += "n" * each.escaped + "-" * max(0, each.least - each.escaped) + '"'
        elif isinstance(each, Number):
            said += rest(each) or ""
        elif isinstance(each, Either):
            said += min((closing(option) for option in each.options), key=len)
        else:
            said += f", {closing((each.item,))}" * max(0, each.least) + "]"
    return said


@lru_cache(maxsize=16384)
def rest(given: Number) -> str | None:
    """Return the shortest text that makes a number whole, or none if nothing does."""
    if not given.text:
        found = [after(given, "", given.low, given.high)]
        below = after(given, "", -given.high, -given.low) if given.low < 0 else None
        found.append(None if below is None else f"-{below}")
        return min((each for each in found if each is not None), key=len, default=None)
    body = given.text.removeprefix("-")
    if body == given.text:
        return after(given, body, given.low, given.high)
    return after(given, body, -given.high, -given.low) if given.low < 0 else None


def after(given: Number, body: str, low: float, high: float) -> str | None:
    """Return what makes digits a number from `low` to `high`, as short as it can be."""
    digits, point, places = body.partition(".")
    if (digits + places).strip("0123456789") or (point and (given.whole or not digits)):
        return None
    if len(digits) > DIGITS or len(places) > PLACES or (digits[:1] == "0" and digits[1:]):
        return None
    low = max(low, 0.0)
    if point:
        for more in range(0 if places else 1, PLACES - len(places) + 1):
            scale = 10 ** (len(places) + more)
            least = int(digits + places) * 10**more
            value = max(least, math.ceil(low * scale - 1e-6))
            if value < least + 10**more and value <= high * scale + 1e-6:
                return str(value).zfill(more)[-more:] if more else ""
        return None
    spans = []
    for more in range(0 if digits else 1, 1 if digits == "0" else DIGITS - len(digits) + 1):
        least = int(digits) * 10**more if digits else 10 ** (more - 1) * (more > 1)
        most = least + 10**more - 1 if digits else 10**more - 1
        value = max(least, math.ceil(low))
        if value <= min(most, high):
            return str(value)[len(digits) :]
        spans.append((least, most))
    for least, most in [] if given.whole else spans:
        value = max(least, math.floor(low))
        if value <= min(most, high):
            more_places = after(given, f"{value}.", low, high)
            if more_places is not None:
                return f"{str(value)[len(digits) :]}.{more_places}"
    return None

"""Who and what do documents speak of, how is it connected, and where does that stand?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

from trivium import Asker, Box, Document, Meta, Unanswered, function
from trivium.errors import BadInput, TooLarge
from trivium.nouns import Noun

MOST_PAGES = 20
MOST_LETTERS = 50_000
"""Of all documents together."""


class Place(Noun, frozen=True, kw_only=True):
    """Where something stands: the document's number from 1, its page or its second, and the text.

    `box` is around the lines of the page.
    """

    document: int
    text: str
    page: int | None = None
    box: Box | None = None
    second: float | None = None


class Entity(Noun, frozen=True, kw_only=True):
    """Who or what is spoken of, of which kind by its form, and where."""

    name: str
    kind: str
    places: list[Place]


class Relation(Noun, frozen=True, kw_only=True):
    """What is said of two entities, and where."""

    subject: str
    relation: str
    object: str
    places: list[Place]


class Source(Noun, frozen=True, kw_only=True):
    """A document, what it was taken for, and how it was read, or why not."""

    document: int
    type: str
    read: str
    sentences: int


class Graph(Noun, frozen=True, kw_only=True):
    """Entities and relations of all documents, and what each document was good for."""

    entities: list[Entity]
    relations: list[Relation]
    sources: list[Source]
    basis: str


class Found(NamedTuple):
    """What was read of one document."""

    type: str
    read: str
    sentences: list[Place]


class Span(NamedTuple):
    """An entity in a sentence."""

    start: int
    end: int
    name: str
    kind: str


@function("document.graph")
async def graph(
    documents: Annotated[list[Document], Meta(max_length=16)],
    ask: Asker,
) -> Graph:
    """Connect who and what is spoken of in PDFs, pictures, texts and sounds, by what they say.

    Relations are found by the form of English and Chinese sentences, and each is told with its
    place. What can't be read is left out, and `sources` says why.
    """
    found = await ask.together(
        *(opened(each, number, ask) for number, each in enumerate(documents, 1))
    )
    letters = sum(len(place.text) for each in found for place in each.sentences)
    if letters > MOST_LETTERS:
        raise TooLarge(
            f"the documents have {letters} letters; at most {MOST_LETTERS} are connected"
        )
    entities: dict[str, Entity] = {}
    relations: dict[tuple[str, str, str], Relation] = {}
    for each in found:
        before: Span | None = None
        for place in each.sentences:
            spans, said, before = understood(place.text, before)
            for key, span in {bare(span.name): span for span in reversed(spans)}.items():
                known = entities.setdefault(key, Entity(name=span.name, kind=span.kind, places=[]))
                known.places.append(place)
            for subject, relation, thing in said:
                names = [entities[bare(span.name)].name for span in (subject, thing)]
                triple = (names[0], relation, names[1])
                empty = Relation(subject=triple[0], relation=relation, object=triple[2], places=[])
                relations.setdefault(triple, empty).places.append(place)
    return Graph(
        entities=sorted(entities.values(), key=lambda each: (-len(each.places), each.name)),
        relations=sorted(relations.values(), key=lambda each: -len(each.places)),
        sources=[
            Source(document=number, type=each.type, read=each.read, sentences=len(each.sentences))
            for number, each in enumerate(found, 1)
        ],
        basis="names and relations by the form of sentences, without a language model; "
        "documents are read by document.read and audio.transcribe",
    )


async def opened(document: Document, number: int, ask: Asker) -> Found:
    """Return the sentences of a document with their places."""
    try:
        guess = await ask.step("type", "document.type", document=document.blob)
    except Unanswered as error:
        return Found("unknown", f"not read: {error}", [])
    kind, group, blob = str(guess["label"]), str(guess["group"]), document.blob
    try:
        if group == "image" or kind == "pdf":
            pages = await ask.step("read", "document.read", document=blob, most=MOST_PAGES)
            return Found(kind, "document.read", list(printed(pages, number)))
        if group == "audio":
            said = await ask.step("listen", "audio.transcribe", audio=blob)
            return Found(kind, "audio.transcribe", list(spoken(said, number)))
        text = document.text()
    except (BadInput, TooLarge, *Unanswered) as error:
        return Found(kind, f"not read: {error}", [])
    if len(text) > MOST_LETTERS:
        raise TooLarge(
            f"document {number} has {len(text)} letters; at most {MOST_LETTERS} are read"
        )
    places = [Place(document=number, text=each) for each in sentences(text)]
    return Found(kind, "as text", places)


def printed(pages: Sequence[Any], number: int) -> Iterator[Place]:
    """Yield the sentences of pages, with the box around their lines."""
    for page in pages:
        lines = page["lines"]
        ends, text = [], ""
        for line in lines:
            label = " ".join(line["label"].split())
            glue = "" if not text or CJK.match(text[-1]) else " "
            text = f"{text[:-1]}{label}" if text.endswith("-") else f"{text}{glue}{label}"
            ends.append(len(text))
        at = 0
        for each in sentences(text):
            start = text.index(each, at)
            at = start + len(each)
            within = [
                line
                for line, first, last in zip(lines, [0, *ends], ends, strict=False)
                if first < at and last > start
            ]
            yield Place(document=number, page=page["page"], text=each, box=around(within))


def around(lines: Sequence[Any]) -> Box | None:
    """Return the box around lines."""
    if not lines:
        return None
    x, y = (min(line[each] for line in lines) for each in ("x", "y"))
    right = max(line["x"] + line["width"] for line in lines)
    low = max(line["y"] + line["height"] for line in lines)
    score = min(line["score"] for line in lines)
    return Box(label="lines", score=score, x=x, y=y, width=right - x, height=low - y)


def spoken(said: Sequence[Any], number: int) -> Iterator[Place]:
    """Yield the sentences that are said, with the second they begin in."""
    for piece in said:
        for each in sentences(piece["text"]):
            yield Place(document=number, second=piece["start"], text=each)


CJK = re.compile(r"[\u4e00-\u9fff]")
SENTENCE = re.compile(
    r"(?:[^.!?。！？；\n]|(?<=\b[A-Z])\.|(?<=\bDr)\.|(?<=\bMr)\.|(?<=\bMrs)\.|(?<=\bInc)\.(?=\s[a-z])"  # noqa: RUF001
    r"|\.(?=\d)|\n(?!\s*\n))+[.!?。！？；]?"  # noqa: RUF001
)


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, white space made one."""
    for each in SENTENCE.findall(text):
        if any(map(str.isalpha, said := " ".join(each.split()))):
            yield said[:500]


MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = re.compile(
    rf"\b(?:\d{{1,2}} )?(?:{MONTH})(?: \d{{1,2}},)?(?: \d{{4}})?\b"
    r"|\b(?:1[5-9]|20)\d\d(?:-\d\d-\d\d)?\b"
    r"|\d{4}年(?:\d{1,2}月(?:\d{1,2}日)?)?"
)
AMOUNT = re.compile(
    r"(?:[$€£¥]|\b(?:USD|EUR|CHF|GBP)) ?\d[\d,.]*\d?(?: (?:million|billion))?"
    r"|\d[\d,.]*(?: (?:million|billion))? ?(?:euros?|dollars?|francs?|kg|km|MW|%)|\d[\d,.]*万?亿?元"
)
NAME = re.compile(
    r"\b[A-Z][\w\u2019'&-]*(?:\.(?= [A-Z]))?"
    r"(?: (?:(?:of|the|de|van|von|der|&) ){0,2}[A-Z][\w\u2019'&-]*(?:\.(?= [A-Z]))?)*"
)
_NO_NAME = """
the a an in on at it he she they we i you his her their its this that these those when while after
before since from for by with as and but or if there here our my your however also mr mrs ms dr prof
page figure table chapter no yes all some many most two three four
"""
NO_NAME = frozenset(_NO_NAME.split())
KINDS = (
    (
        "organisation",
        r"\b(?:Inc|Ltd|GmbH|AG|Corp|Company|University|Institute|Bank|Museum|Hospital"
        r"|Group|Council|Ministry|Foundation|School|College|Press|Laboratories|Works|Association)\b"
        r"|(?:公司|集团|大学|医院|银行|研究院|研究所|学院|博物馆|出版社|工厂)$",
    ),
    (
        "place",
        r"\b(?:Street|River|Lake|Mount|Bay|Island|City|County|Bridge)\b|(?:省|市|县|区|国|镇|村|路|江|河|山)$",
    ),
    ("work", r"^《.*》$"),
)
ADVERB = (
    r"(?:(?:has|have|had|then|later|now|also|still|originally|first|since|jointly|finally|soon"
    r"|already|today) )*"
)
THING = (
    r"(?: (?:the|a|an|its|his|her|their|city of|town of|company|firm|small|large|nearby|local))*"
)
BE = r"(?:is|was|are|were|has been|have been)"
MADE = (
    "founded",
    "established",
    "created",
    "invented",
    "discovered",
    "designed",
    "built",
    "developed",
    "written",
    "painted",
    "composed",
    "directed",
    "opened",
)
ACTIVE = {"wrote": "written", "painted": "painted", "composed": "composed", "built": "built"}
PATTERNS: tuple[tuple[str, str, bool], ...] = (
    *((rf"{BE} {verb}(?: in)? by", verb, True) for verb in MADE),
    (rf"{BE} (?:acquired|bought|taken over)(?: in)? by", "acquired", True),
    (rf"{BE} (?:owned|run|led|headed|managed)(?: in)? by", "leads", True),
    *((rf"{BE} {verb} (?:in|on)", f"{verb} in", False) for verb in MADE),
    (rf"{BE} born (?:in|on)", "born in", False),
    (r"died (?:in|on)", "died in", False),
    (
        rf"(?:{BE} )?(?:located|based|headquartered|situated) in|lies in|stands in",
        "located in",
        False,
    ),
    (r"(?:has|have|had) (?:its|their) (?:headquarters|seat|main office) in", "located in", False),
    (r"lives? in|lived in|moved to", "lives in", False),
    (rf"(?:works?|worked) (?:for|at)|{BE} employed (?:by|at)|joined", "works for", False),
    (r"studied at|graduated from", "studied at", False),
    (r"acquired|bought|took over", "acquired", False),
    (r"owns|owned|leads|led|heads|headed|manages|managed|runs", "leads", False),
    *((verb, ACTIVE.get(verb, verb), False) for verb in (*MADE, *ACTIVE)),
    (r"married", "married", False),
    (r"produces|makes|manufactures|produced|made|manufactured", "produces", False),
    (r"supplies|supplied|sells to|sold to|delivers to", "supplies", False),
    (
        r"(?:works|worked|cooperates|cooperated|collaborates|collaborated) (?:together )?with",
        "works with",
        False,
    ),
    (rf"(?:{BE} )?part of|belongs to|belonged to", "part of", False),
    (r"costs?|paid|is worth|was sold for", "costs", False),
)
# One form for all, of which the group that matched says which relation it is.
_FORMS = "|".join(f"(?P<r{at}>{form})" for at, (form, _, _) in enumerate(PATTERNS))
ENGLISH = re.compile(rf"{ADVERB}(?:{_FORMS}){THING}")
LONGEST = 80
"""So many letters stand between two names at most, where a form says how they are connected."""
ROLE = re.compile(
    rf"{ADVERB}{BE}(?: (?:the|a|an))? ((?:[a-z-]+ ){{0,2}}[a-z]+) (?:of|at|for|from){THING}"
)
LATER = re.compile(
    r"\b(?:he|she|it|they|the (?:company|firm|museum|university|institute|bank|bridge|book))\b",
    re.I,
)


def understood(
    text: str, before: Span | None
) -> tuple[list[Span], list[tuple[Span, str, Span]], Span | None]:
    """Return a sentence's entities and relations, and whom the next one's `it` means."""
    if len(CJK.findall(text)) * 3 > len(text):
        spans, said = chinese(text)
    else:
        spans, said = english(text, before)
    if not spans:
        return [], [], before
    subjects = [subject for subject, _, _ in said]
    named = [span for span in spans if span.kind not in ("date", "amount")]
    return spans, said, (subjects or named or [before])[0]


def english(text: str, before: Span | None) -> tuple[list[Span], list[tuple[Span, str, Span]]]:
    """Return entities, and what the words between two of them say."""
    spans = entities(text)
    row = list(spans)
    later = LATER.search(text)
    if before is not None and later:
        ahead = [span for span in row if span.start < later.start()]
        if all(span.kind in ("date", "amount") for span in ahead):
            meant = before._replace(start=later.start(), end=later.end())
            row = [*ahead, meant, *(span for span in row if span.start >= later.end())]
    said = []
    leading = next((span for span in row if span.kind not in ("date", "amount")), None)
    for index, one in enumerate(row):
        if one.kind in ("date", "amount"):
            continue
        for other in row[index + 1 : index + 4]:
            between = text[one.end : other.start]
            for inner in row[index + 1 : row.index(other)]:
                if inner.kind == "date":
                    between = between.replace(text[inner.start : inner.end], "")
            between = re.sub(r"^,? ?(?:which|who|that) ", " ", between.strip('"\u201c\u201d'))
            found = None if between.startswith(",") else read(" ".join(between.split()))
            if one is leading:
                # What follows a comma or `and` may be said of whom the sentence began with.
                for mark in (" and ", ", "):
                    found = found or read(" ".join(between.rpartition(mark)[2].split()))
            if found:
                name, turned = found
                said.append((other, name, one) if turned else (one, name, other))
                if one.kind not in ("date", "amount") and other.kind == "amount":
                    break
    known = {span.name for span in spans}
    spans += [span for triple in said for span in (triple[0], triple[2]) if span.name not in known]
    return spans, said


def read(between: str) -> tuple[str, bool] | None:
    """Return the relation that words between two entities name, and whether it is turned."""
    if len(between) > LONGEST:
        return None
    form = ENGLISH.fullmatch(between)
    if form and form.lastgroup:
        _, name, turned = PATTERNS[int(form.lastgroup[1:])]
        return name, turned
    role = ROLE.fullmatch(between)
    return (f"{role[1]} of", False) if role else None


def entities(text: str) -> list[Span]:
    """Return names, dates and amounts, from left to right."""
    found = [Span(*each.span(), each[0], "date") for each in DATE.finditer(text)]
    found += [
        Span(*each.span(), each[0], "amount")
        for each in AMOUNT.finditer(text)
        if not any(span.start < each.end() and each.start() < span.end for span in found)
    ]
    for each in NAME.finditer(text):
        start, name = each.start(), each[0].removesuffix("\u2019s").removesuffix("'s")
        while name and name.split()[0].lower().rstrip(".") in NO_NAME:
            rest = name.partition(" ")[2]
            start += len(name) - len(rest)
            name = rest
        end = start + len(name)
        if len(name) > 1 and not any(span.start < end and start < span.end for span in found):
            found.append(Span(start, end, name, kind_of(name)))
    return sorted(found)


def kind_of(name: str) -> str:
    """Return the kind of a name by its form."""
    for kind, form in KINDS:
        if re.search(form, name):
            return kind
    return "name"


VERBS = (
    ("创办了?|创立了?|创建了?", "founded"),
    ("成立于|创立于|建于", "founded in"),
    ("收购了?", "acquired"),
    ("位于|坐落于|总部设在|总部位于", "located in"),
    ("出生于|生于", "born in"),
    ("毕业于", "studied at"),
    ("任职于|就职于|加入了?|供职于", "works for"),
    ("发明了?", "invented"),
    ("设计了?", "designed"),
    ("写了|著有|撰写了?", "written"),
    ("领导|管理", "leads"),
    ("隶属于|属于", "part of"),
    ("生产", "produces"),
)
CHINESE = [(re.compile(form), name) for form, name in VERBS]
PASSIVE = re.compile(r"由(.{2,12}?)(?:于.{2,12}?)?(创办|创立|创建|设计|发明|撰写)")
TOGETHER = re.compile(r"(.+?)[与和同](.+?)合作")
LISTED = re.compile(
    r"《[^》]+》|[^的了在于是与和由被到从，、。；《》\s\d]{1,12}?(?:公司|集团|大学|医院|银行|研究院|研究所|学院|博物馆|出版社|工厂)"  # noqa: RUF001
    r"|[^的了在于是与和由被到从，、。；《》\s\d]{1,4}[省市县镇]"  # noqa: RUF001
)


def chinese(text: str) -> tuple[list[Span], list[tuple[Span, str, Span]]]:
    """Return entities, and what the verbs between two of them say."""
    said: list[tuple[Span, str, Span]] = []
    spans: list[Span] = []
    last = ""
    for clause in re.split(r"[，,。；！？]", text):  # noqa: RUF001
        if both := TOGETHER.search(clause):
            new = pairs(both[1], "works with", both[2], last)
        elif by := PASSIVE.search(clause):
            name = {"设计": "designed", "发明": "invented", "撰写": "written"}.get(by[2], "founded")
            new = pairs(by[1], name, clause[: by.start()] or last, last)
        else:
            verbs = ((form.search(clause), name) for form, name in CHINESE)
            at, name = next(((at, name) for at, name in verbs if at), (None, ""))
            new = pairs(clause[: at.start()], name, clause[at.end() :], last) if at else []
        said += new
        spans += [span for one, _, other in new for span in (one, other)]
        spans += [] if new else [zh(each[0]) for each in LISTED.finditer(clause)]
        if new:
            # Whom the next clause speaks of.
            last = new[0][2 if PASSIVE.search(clause) else 0].name
    unique = {span.name: span for span in spans}
    return list(unique.values()), said


def pairs(left: str, name: str, right: str, last: str) -> list[tuple[Span, str, Span]]:
    """Return the relation between the last entity on the left and the first on the right."""
    one, other = nearest(left, last, -1), nearest(right, "", 0)
    return [(zh(one), name, zh(other))] if one and other else []


def nearest(text: str, last: str, place: int) -> str:
    """Return the entity nearest to a verb; a short rest is a name as it stands."""
    dates = DATE.findall(text)
    rest = re.sub(r"^(?:该|这家|这个|他|她|它|在|于)", "", DATE.sub("", text).strip(" 的在于年，"))  # noqa: RUF001
    listed = LISTED.findall(rest)
    if listed:
        return str(listed[place])
    if place == 0 and dates:
        return str(dates[0])
    if 2 <= len(rest) <= 8 and CJK.match(rest):
        return rest
    return last


def zh(name: str) -> Span:
    """Return a Chinese entity."""
    return Span(0, 0, name, "date" if DATE.fullmatch(name) else kind_of(name))


def bare(name: str) -> str:
    """Return what names of the same share."""
    plain = re.sub(r"[.,\u2019'&-]", " ", name.casefold())
    return " ".join(
        word for word in plain.split() if word not in ("the", "inc", "ltd", "gmbh", "ag")
    )

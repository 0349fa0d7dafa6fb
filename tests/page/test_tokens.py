"""Do the page's tokens equal those of the servers' tokenizer?"""

from __future__ import annotations

import contextlib
import random
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import page.bundles as bundles
from page.gateway import Gateway
from page.opened import Opened
from trivium.hosts.server.host import Tokenizer
from trivium.sessions import Stream

pytestmark = pytest.mark.browser

FILE = bundles.FUNCTIONS / "text.embed/tokenizer.json"

# ruff: noqa: RUF001
SENTENCES = """\
The quick brown fox jumps over the lazy dog, doesn't it? It's 3.14159 o'clock — e-mail: a@b.example!
Falsches Üben von Xylophonmusik quält jeden größeren Zwerg; STRASSE ≠ Straße, naïve café.
Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis…
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia. ¿Qué tal? ¡Bien!
Съешь же ещё этих мягких французских булок, да выпей чаю. Ёлка, йод.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ὀδυσσεύς ἔφη
זה כיף סתם לשמוע איך תנצח קרפד עץ טוב בגן. שָׁלוֹם
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر. السَّلَامُ
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश। क़िला
ঋষিদের সাথে দেখা হয়েছিল। தமிழ் மொழி இனிது
いろはにほへと ちりぬるを。パピプペポ ガギグゲゴ ｶﾞｷﾞ 東京都
我能吞下玻璃而不伤身体。繁體中文，測試！㐀𠀀
키스의 고유조건은 입술끼리 만나야 하고. 각나다
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า
Do bạch kim rất quý nên sẽ dùng để lắp vô xương. Nguyễn
👩‍👩‍👧‍👦 🇩🇪 👍🏽 ☃️ ✈ ½ ² ﬁ ﬀ ℌ Å Ǆ ŉ İstanbul ı
<b>tag</b> [CLS] [SEP] [MASK] [UNK] ##ing __init__ C:\\path\\x 100% $5 #1 a_b
zero\u200bwidth soft\u00adhyphen nbsp\u00a0here tab\there bell\u0007 \u202ertl\u202c \ufeffbom
"""

# (first, last) of the scripts that generated lines are made of.
RANGES = [
    (0x20, 0x7E),
    (0xA0, 0x17F),
    (0x180, 0x24F),
    (0x250, 0x36F),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x530, 0x5FF),
    (0x600, 0x77F),
    (0x900, 0xDFF),
    (0xE00, 0x10FF),
    (0x1100, 0x13FF),
    (0x1E00, 0x1FFF),
    (0x2000, 0x2BFF),
    (0x3000, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFFEF),
    (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x2A6DF),
]


def lines() -> Iterator[str]:
    """Yield sentences, their cuts and mixtures, and lines of characters of each script."""
    chance = random.Random(7)  # the same lines at each run
    sentences = SENTENCES.splitlines()
    words = [word for sentence in sentences for word in sentence.split()]
    yield from sentences
    for sentence in sentences:
        yield unicodedata.normalize("NFC", sentence)
        yield unicodedata.normalize("NFD", sentence)
        yield unicodedata.normalize("NFKC", sentence)
        yield unicodedata.normalize("NFKD", sentence)
        yield sentence.upper()
        yield sentence.replace(" ", "")
        for _ in range(40):
            first = chance.randrange(len(sentence))
            yield sentence[first : first + chance.randrange(1, 30)]
    for _ in range(1000):
        yield " ".join(chance.choices(words, k=chance.randrange(1, 12)))
    for first, last in RANGES:
        characters = [
            chr(code)
            for code in range(first, last + 1)
            if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Zl", "Zp")
        ]
        for _ in range(100):
            marks = chance.choices(characters, k=chance.randrange(1, 24))
            marks[chance.randrange(len(marks))] = " "
            yield "".join(marks)


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with a function that gives the tokens of each line."""
    served = Gateway(dict([bundles.tokens(FILE.read_bytes())]))
    page = headless.new_page()
    yield Opened(page, served).ready("text.tokens")
    page.close()
    served.close()


@pytest.fixture(scope="module")
def saying(headless: Any) -> Iterator[Callable[[bytes], Opened]]:
    """Return what opens a page with a function that says what its lines' tokens say."""
    with contextlib.ExitStack() as stack:

        def saying(tokenizer: bytes) -> Opened:
            served = Gateway(dict([bundles.said(tokenizer)]))
            stack.callback(served.close)
            page = headless.new_page()
            stack.callback(page.close)
            return Opened(page, served).ready("text.said")

        yield saying


def pieces() -> bytes:
    """Return a tokenizer of bytes and few merges: characters of two bytes on are cut apart."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES.splitlines(), trainer)
    return made.to_str().encode()


def alone() -> Iterator[str]:
    """Yield each character of the first plane between letters, 64 on a line."""
    characters = [
        chr(code)
        for code in range(0x20, 0xFFFE)
        if not 0xD800 <= code < 0xE000 and chr(code) not in "\x85\u2028\u2029"
    ]
    for start in range(0, len(characters), 64):
        yield " ".join(f"x{each}y" for each in characters[start : start + 64])


@pytest.mark.parametrize("source", [lines, alone])
def test_parity(opened: Opened, source: Callable[[], Iterator[str]]) -> None:
    """Thousands of lines, and each character by itself, give the same tokens on both sides."""
    tokenizer = tokenizers.Tokenizer.from_file(str(FILE))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    every = [line for line in source() if line.strip() and "\n" not in line]
    assert len(every) > 900
    different: list[tuple[str, list[str]]] = []
    for start in range(0, len(every), 250):
        batch = every[start : start + 250]
        answer = opened.ask("text.tokens", text="\n".join(batch), tiers=["page"])
        assert len(answer.get("output", answer)) == len(batch), answer
        different += [
            (line, tokenizer.encode(line).tokens)
            for line, ids in zip(batch, answer["output"], strict=True)
            if ids != tokenizer.encode(line).ids
        ]
    assert different == [], f"{len(different)} of {len(every)} lines differ: {different[:5]}"


SMOL = bundles.FUNCTIONS.parent / "zoo/text.generate/tokenizer.json"


@pytest.mark.parametrize("kind", ["words", "bytes", "pulled"])
def test_what_tokens_say(saying: Callable[[bytes], Opened], kind: str) -> None:
    """At once and one by one, special ones left out, the same as on servers."""
    if kind == "pulled" and not SMOL.is_file():
        pytest.skip("not pulled: trivium models pull text.generate")
    sources = {"words": FILE.read_bytes, "bytes": pieces, "pulled": SMOL.read_bytes}
    source = sources[kind]()
    tokenizer = Tokenizer(source.decode(), None)
    opened = saying(source)
    every = [line for line in lines() if line.strip() and "\n" not in line]
    every = [*every[:200], *every[200::9], "a <|end|> b", "[SEP] a [MASK]"]
    for start in range(0, len(every), 250):
        batch = every[start : start + 250]
        answer = opened.ask("text.said", text="\n".join(batch), tiers=["page"])
        assert [each[0] for each in answer["output"]] == [
            tokenizer.encode(line).ids.tolist()[0] for line in batch
        ]
        for line, (ids, whole, parts) in zip(batch, answer["output"], strict=True):
            assert whole == tokenizer.decode(ids), line
            stream = Stream(tokenizer.decode)
            assert parts == [*(stream.add(each) for each in ids), stream.end()], line
            if kind == "bytes":
                assert "".join(parts) == whole, line
                assert whole == line.replace("<|end|>", "")

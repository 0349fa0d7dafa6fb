"""What kind of file is this, whatever it is called?"""

from __future__ import annotations

from array import array

from trivium import Document, Label, Models, Tensor, function

SIDE = 1024
LEAST = 8
PADDING = 256


class Type(Label, frozen=True, kw_only=True):
    """A kind of file, as magika names it, and how sure the model is of it."""

    mime: str
    group: str


# What magika says without its model, and what it says for want of confidence.
EMPTY = Type(label="empty", mime="inode/x-empty", group="inode", score=1.0)
TEXT = Type(label="txt", mime="text/plain", group="text", score=1.0)
UNKNOWN = Type(label="unknown", mime="application/octet-stream", group="unknown", score=1.0)


@function("document.type")
async def detect(document: Document, models: Models) -> Type:
    """Tell what kind of file this is from its first and last bytes, by magika."""
    if not document.size:
        return EMPTY
    head, tail = bytes(document.head.data), bytes(document.tail.data)
    begin, end = head.lstrip()[:SIDE], tail.rstrip()[-SIDE:]
    if len(begin) < LEAST:
        return few(head)
    padding = [PADDING] * (2 * SIDE - len(begin) - len(end))
    values = array("i", [*begin, *padding, *end])
    feed = Tensor(dtype="int32", shape=(1, 2 * SIDE), data=values.tobytes())
    best, score = (await models.types.run(bytes=feed)).topk(1)[0]
    # Labels: name, media type, group, whether text, and the least score it is believed at.
    label, mime, group, text, least = models.labels[best].split("\t")
    if score < float(least):
        known = TEXT if text == "text" else UNKNOWN
        label, mime, group = known.label, known.mime, known.group
    return Type(label=label, mime=mime, group=group, score=score)


def few(data: bytes) -> Type:
    """Return what so few bytes are: text, if they can be."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return UNKNOWN
    return TEXT

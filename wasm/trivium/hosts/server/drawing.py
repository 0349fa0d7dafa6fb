"""How does one page of a PDF become pixels, where nothing that goes wrong matters?

Run as a program of its own for each page, by `documents.py`: the system holds its memory and its
time to limits, and a crash is its own. It imports nothing of ours, so that it starts quickly.
"""

from __future__ import annotations

import math
import resource
import struct
import sys

import pypdfium2 as pdfium
import pypdfium2.raw as raw

HEADER = struct.Struct("<3I")
"""What stands before the pixels: how many pages there are, this one's height and its width."""

ENCRYPTED, DAMAGED, MISSING = 10, 11, 12
"""Exit codes for what is wrong with the PDF."""

MEMORY = 1 << 30


def main(number: int, dpi: float, most: int, seconds: int) -> int:
    """Read a PDF, write one of its pages: RGB, at most `most` pixels."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        document = pdfium.PdfDocument(sys.stdin.buffer.read())
        count = len(document)
        if not 1 <= number <= count:
            return MISSING
        page = document[number - 1]
        across, down = page.get_size()
    except pdfium.PdfiumError as error:
        return ENCRYPTED if error.err_code == raw.FPDF_ERR_PASSWORD else DAMAGED
    scale = min(dpi / 72, math.sqrt(most / max(1.0, across * down)))
    bitmap = page.render(scale=scale, rev_byteorder=True, may_draw_forms=False)
    width, high, stride = bitmap.width, bitmap.height, bitmap.stride
    rows = memoryview(bitmap.buffer).cast("B")
    out = sys.stdout.buffer
    out.write(HEADER.pack(count, high, width))
    for row in range(high):
        out.write(rows[row * stride : row * stride + 3 * width])
    out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))

"""How are a zoo's figures shown, to read, to compute with, and to look at?"""

from __future__ import annotations

import html as escape
import io
from collections.abc import Callable, Sequence

from trivium.errors import BundleError

from .measured import Measured, Row

HEAD = (
    "function", "tier", "model", "precision", "MB", "brotli MB", "target", "ms", "times as fast",
    "MiB", "quality [95 %]", "drop", "gate",
)  # fmt: skip

COLOURS = {"page": "#3b6fd4", "edge": "#2f8f6b", "cloud": "#b4472f"}

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 90rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { text-align: left; padding: .25rem .5rem; white-space: nowrap; }
th, td { border-bottom: 1px solid #8884; }
td.n { text-align: right; } .bad { color: #c33; font-weight: 600; }
figure { margin: 1rem 0; background: #fff; border-radius: .5rem; padding: .5rem; }
svg { max-width: 100%; height: auto; } footer, .about { color: #888; font-size: .9em; }
"""


def cells(row: Row) -> list[str]:
    """Return a row as text, in the order of HEAD."""
    brotli = "" if row.brotli_size is None else f"{row.brotli_size / 1e6:.2f}"
    metric = f"{row.metric} " if row.metric else ""
    return [
        row.function,
        row.tier,
        row.model,
        row.precision,
        f"{row.size / 1e6:.2f}",
        brotli,
        row.target,
        f"{row.latency_ms:.2f}",
        f"{row.latency_ratio:.2f}",
        f"{row.memory_mb:.0f}",
        f"{metric}{row.quality:.4f} [{row.quality_low:.4f}, {row.quality_high:.4f}]",
        f"{100 * (1 - row.relative_quality):.2f} %",
        row.gate,
    ]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table for a terminal."""
    lines = [list(HEAD), *map(cells, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def html(found: Sequence[Measured]) -> str:
    """Return a page with the table and plots, which needs nothing from anywhere else."""
    rows = [row for each in found for row in each.rows]
    body = [
        "<tr>"
        + "".join(
            f'<td class="{_class(at, cell)}">{escape.escape(cell)}</td>'
            for at, cell in enumerate(cells(row))
        )
        + "</tr>"
        for row in rows
    ]
    heads = "".join(f"<th>{escape.escape(name)}</th>" for name in HEAD)
    data = sorted({f"{row.function}: {row.metric}, {row.data}" for row in rows if row.metric})
    taken = sorted({f"{each.rows[0].function}: {each.date}, {each.machine}" for each in found})
    plots = "".join(
        f"<figure>{_plot([row for row in rows if row.function == name], name)}</figure>"
        for name in dict.fromkeys(row.function for row in rows)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Trivium models</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        "<h1>Models, measured</h1>"
        "<p>“Times as fast” is the full model's time over this one's on the same target; MiB is "
        "what the loaded session adds to its process or page; the drop is relative to the full "
        "model.</p>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>{plots}"
        f'<h2>Data</h2><ul class="about">{_items(data)}</ul>'
        f"<footer><h2>Taken</h2><ul>{_items(taken)}</ul></footer></html>\n"
    )


def _class(at: int, cell: str) -> str:
    bad = cell in ("below_gate", "not_faster")
    return "bad" if bad else "n" if 4 <= at <= 11 and at != 6 else ""


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{escape.escape(line)}</li>" for line in lines)


def _plot(rows: Sequence[Row], title: str) -> str:
    """Return quality against size and against time as SVG."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BundleError("plots need matplotlib: pip install 'trivium[models]'") from error
    pairs: tuple[tuple[str, Callable[[Row], float]], ...] = (
        ("MB", lambda row: row.size / 1e6),
        ("ms", lambda row: row.latency_ms),
    )
    with matplotlib.rc_context({"svg.hashsalt": "trivium", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for at, (label, value) in enumerate(pairs, 1):
            axes = figure.add_subplot(1, 2, at)
            shown = rows if label == "ms" else list({row.model: row for row in rows}.values())
            for row in shown:
                below = max(0, row.relative_quality - row.relative_low)
                above = max(0, row.relative_high - row.relative_quality)
                axes.errorbar(
                    value(row),
                    row.relative_quality,
                    yerr=[[below], [above]],
                    fmt="o",
                    capsize=3,
                    color=COLOURS[row.tier],
                )
                said = f"{row.tier} {row.precision}" + (f", {row.target}" if label == "ms" else "")
                place = (value(row), row.relative_quality)
                axes.annotate(
                    said, place, xytext=(5, 4), textcoords="offset points", fontsize=8, rotation=30
                )
            axes.set_xlabel(label)
            axes.set_ylabel("quality relative to full")
            axes.ticklabel_format(useOffset=False)
            axes.set_xlim(left=0)
            axes.margins(x=0.35, y=0.35)
        figure.suptitle(title)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    drawn = file.getvalue()
    return drawn[drawn.index("<svg") :]

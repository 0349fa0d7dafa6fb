"""What does `trivium models` do?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from trivium.contract import Tier
from trivium.errors import BundleError
from trivium.hosts.server.bundles import MANIFEST, Bundle

from . import recipe as recipes
from . import sign
from .build import CACHE, Workshop
from .package import package, write
from .quantise import Form
from .target import TARGETS

ROOM = Path(__file__).parent.parent
FUNCTIONS = ROOM / "functions"
ZOO = ROOM / "zoo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sub-command and return the exit status."""
    given = _parser().parse_args(arguments)
    if given.verb in sign.VERBS:
        return sign.run(given, say)
    try:
        return int(given.run(given) or 0)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise BundleError(
            f"{place}{error.strerror or error}; nothing half-written is left"
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trivium models",
        description="From a full model to what runs in a page: export, distil, prune, quantise, "
        "fold, package, sign, measure, report.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int | None], about: str) -> Any:
        each = verbs.add_parser(name, help=about[0].lower() + about[1:], description=f"{about}.")
        each.set_defaults(run=run)
        return each

    each = verb("build", build, "Make, measure and sign bundles out of function folders")
    _functions(each)
    each.add_argument(
        "--again", action="store_true", help="measure again, though measured.json is still right"
    )
    each.add_argument(
        "--quick",
        action="store_true",
        help="measure nothing: where measured.json is not of these files, priors are guesses",
    )
    _targets(each)
    each = verb("measure", measure, "Measure variants on their data and on every target here")
    _functions(each)
    _targets(each)
    each = verb("tune", tune, "Try coarse forms of a tier's model; show those that nothing beats")
    _functions(each)
    each.add_argument(
        "--metric-drop",
        type=_share,
        default=0.02,
        metavar="SHARE",
        help="how much quality may be lost, such as 2%% (default)",
    )
    each.add_argument(
        "--target", type=Tier, choices=list(Tier), default=Tier.PAGE, help="the tier to try it on"
    )
    each.add_argument("--plot", type=Path, help="where to draw quality against size and time")
    each = verb("report", report, "Show what was measured of all functions")
    _functions(each)
    each.add_argument("--json", action="store_true", help="rows as JSON")
    each.add_argument("--html", type=Path, metavar="FILE", help="a page with plots, for offline")
    each = verb("package", package_only, "Make bundles and measure nothing, as build --quick")
    _functions(each)
    each = verb("pull", pull, "Fetch optional functions, or list them")
    _functions(each, "an optional function; none lists them")
    each.add_argument("--all", action="store_true", help="all optional functions")
    _steps(verb)
    sign.add(verbs, ZOO)
    return parser


def _steps(verb: Callable[..., Any]) -> None:
    """Add each step of a recipe as a verb of its own."""
    each = verb(
        "export", export, "Turn a Hugging Face id or folder, a torch module or ONNX into ONNX"
    )
    each.add_argument("source", help="an id, a folder, FILE.py:CALLABLE or FILE.onnx")
    each.add_argument("out", type=Path)
    each.add_argument("--task", default="", help="what the model does, where it can't be inferred")
    each = verb("prune", export, "Take the least needed parts out of a torch module, and export it")
    _torch(each)
    each.add_argument("--share", type=_share, default=0.3, help="how much goes (default 30%%)")
    each = verb("distil", export, "Teach a torch module what a teacher answers, and export it")
    _torch(each)
    each.add_argument("--teacher", type=Path, required=True, help="the teacher, as ONNX")
    each.add_argument("--data", type=Path, required=True, help="what it is taught on")
    each.add_argument("--steps", type=int, default=1000)
    each = verb("quantise", quantise, "Keep a model's weights, or all of it, in coarser numbers")
    each.add_argument("source", type=Path)
    each.add_argument("out", type=Path)
    each.add_argument("--form", choices=get_args(Form), default="weights")
    each.add_argument("--exclude", nargs="*", default=[], metavar="NODE", help="nodes left alone")
    each = verb("fold", fold, "Put pooling, softmax or normalisation into a model")
    each.add_argument("source", type=Path)
    each.add_argument("out", type=Path)
    each.add_argument("--pool", choices=["mean"], default="")
    each.add_argument("--softmax", action="store_true")
    each.add_argument("--normalise", action="store_true")
    each.add_argument("--output", default="", help="the output's name")


def _torch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="FILE.py:CALLABLE that gives the module")
    parser.add_argument("out", type=Path)


def _functions(parser: argparse.ArgumentParser, about: str = "") -> None:
    known = ", ".join(path.parent.name for path in builtin())
    about = about or (
        f"a built-in function ({known}) or a function's folder; none means all built-in ones, "
        "but for optional ones that were not pulled"
    )
    parser.add_argument(
        "functions",
        nargs="*",
        metavar="NAME|FOLDER",
        help=about,
    )
    parser.add_argument(
        "--out", type=Path, default=ZOO, help="where bundles are (default: %(default)s)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        help="where packages and made files are kept (default: %(default)s)",
    )


def _targets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=TARGETS,
        help="measure on these only; none means all that this machine has",
    )


def build(given: argparse.Namespace) -> int:
    """Make bundles; one that may not be shipped is kept aside, and is an error."""
    for name in given.functions or _here(given.out):
        from . import cascade, measured

        workshop = Workshop(find(name), given.cache, say)
        bundle = given.out / workshop.schema.name
        found = None if given.again else measured.known(workshop, bundle)
        if found is None and not given.quick and workshop.recipe.variants:
            found = measured.take(workshop, given.targets, bundle)
        sure = cascade.of(workshop, bundle, not given.quick)
        roads = measured.variants(workshop, found, sure)
        if found is None and any(road.models for road in roads):
            say(
                f"{workshop.schema.name} was not measured: routers take its quality for 1 and "
                "its times are guesses, until it is built without --quick"
            )
        bad = measured.failures(found, workshop) if found else ""
        if bad:
            aside = package(workshop, given.cache / "below_gate", roads)
            tried = "".join(f"\n{table}" for table in workshop.tried)
            raise BundleError(
                f"{workshop.schema.name} is not shipped:\n{bad}{tried}\n"
                f"The best so far, marked, is in {aside}."
            )
        pin = None if given.functions else sign.pinned(bundle)
        sign.built(package(workshop, given.out, roads), workshop.folder, pin, say)
    return 0


def package_only(given: argparse.Namespace) -> int:
    """Make bundles with whatever was measured before."""
    given.again, given.quick = False, True
    return build(given)


def pull(given: argparse.Namespace) -> int:
    """Fetch what was left out of the set-up, make it, check it, and sign it."""
    from . import cascade, measured

    optional = [name for name in _names() if recipes.read(find(name)).optional]
    unknown = [name for name in given.functions if name not in optional]
    if unknown:
        raise BundleError(
            f"{', '.join(unknown)} can't be pulled; optional are: {', '.join(optional) or 'none'}"
        )
    names = optional if given.all else given.functions
    for name in [] if names else optional:
        bundle = Bundle(given.out / name)
        say(f"{name}  {bundle.megabytes} MB  {'not pulled' if bundle.absent else 'pulled'}")
    for name in names:
        workshop = Workshop(find(name), given.cache, say)
        bundle = given.out / workshop.schema.name
        pin = sign.pinned(bundle)
        sure = cascade.of(workshop, bundle)
        roads = measured.variants(workshop, measured.known(workshop, bundle), sure)
        sign.built(package(workshop, given.out, roads), workshop.folder, pin, say)
        if sign.pinned(bundle).strip() != Bundle(bundle).digest:
            raise BundleError(f"{name} did not come out as it is pinned")
        say(f"{name} is pulled; servers that run take it in when they are started again")
    return 0


def measure(given: argparse.Namespace) -> int:
    """Measure, and keep what was found beside the recipe."""
    from . import measured, report

    for name in given.functions or _here(given.out):
        workshop = Workshop(find(name), given.cache, say)
        found = measured.take(workshop, given.targets, given.out / workshop.schema.name)
        print(report.table(found.rows))  # noqa: T201
    return 0


def tune(given: argparse.Namespace) -> int:
    """Search the forms of a tier's model."""
    from . import tune as tuning

    for name in given.functions or _here(ZOO):
        workshop = Workshop(find(name), given.cache, say)
        tuning.tune(workshop, given.metric_drop, given.target, given.plot)
    return 0


def report(given: argparse.Namespace) -> int:
    """Show what measured.json files say, if it is of the files that are there."""
    from . import measured
    from . import report as reports

    found = []
    for name in given.functions or _names():
        workshop = Workshop(find(name), given.cache, say, idle=True)
        known = measured.stated(workshop.folder)
        try:
            if known != measured.known(workshop, given.out / workshop.schema.name):
                known = None
        except BundleError as error:  # a study's models need not be here to be read about
            say(f"{workshop.folder}: shown as it was measured; {error.message}")
        if known is None:
            say(f"{workshop.folder}: not measured as it is; run trivium models measure")
        else:
            found.append(known)
    if given.html:
        write(given.html, reports.html(found).encode())
        say(f"{given.html} is ready")
    rows = [row for each in found for row in each.rows]
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(rows), indent=1).decode())  # noqa: T201
    elif not given.html:
        print(reports.table(rows))  # noqa: T201
    return 0


def export(given: argparse.Namespace) -> int:
    """Export a source, pruned or distilled if the verb says so."""
    from .distil import Distil
    from .export import make
    from .prune import Prune

    prune = Prune(share=given.share) if given.verb == "prune" else None
    distil = None
    if given.verb == "distil":
        distil = Distil(teacher=str(given.teacher), data=str(given.data), steps=given.steps)
    make(
        Path(),
        given.source,
        given.out,
        task=getattr(given, "task", ""),
        prune=prune,
        distil=distil,
        teacher=getattr(given, "teacher", None),
        read=lambda member: Path(member).read_bytes(),
        say=say,
        work=given.out.parent,
    )
    say(f"{given.out} is ready")
    return 0


def quantise(given: argparse.Namespace) -> int:
    """Quantise one file."""
    from . import quantise as step

    small = step.quantise(_there(given.source), given.form, given.exclude)
    write(given.out, small.SerializeToString(deterministic=True))
    ratio = given.source.stat().st_size / given.out.stat().st_size
    say(f"{given.out} is ready: {ratio:.2f} times smaller")
    return 0


def fold(given: argparse.Namespace) -> int:
    """Fold one file."""
    from . import fold as step

    model = step.fold(
        _there(given.source),
        pool=given.pool,
        softmax=given.softmax,
        normalise=given.normalise,
        output=given.output,
    )
    write(given.out, model.SerializeToString(deterministic=True))
    say(f"{given.out} is ready")
    return 0


def builtin() -> list[Path]:
    """Return the recipes of the built-in functions."""
    return sorted(FUNCTIONS.glob("*/recipe.toml"))


def find(name: str) -> Path:
    """Return the folder of a built-in function, or the one that a path names."""
    for folder in (FUNCTIONS / name, Path(name)):
        if (folder / "recipe.toml").is_file():
            return folder
    known = ", ".join(path.parent.name for path in builtin())
    raise BundleError(f"{name} is neither a folder with a recipe.toml nor one of: {known}.")


def say(line: str) -> None:
    """Show progress where it can't be mistaken for a result."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _names() -> list[str]:
    return [path.parent.name for path in builtin()]


def _here(out: Path) -> list[str]:
    """Return the built-in functions but for those that are optional and were not pulled."""
    return [
        name
        for name in _names()
        if not recipes.read(find(name)).optional
        or ((out / name / MANIFEST).is_file() and not Bundle(out / name).absent)
    ]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise BundleError(f"{path} is no file")
    return path


def _share(text: str) -> float:
    """Return 0.02 for 2% and for 0.02."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to below 100%")
    return value

"""How does a model become one ONNX file?

A source is one of three:

- `network.py:build`, a callable in a file of the function's folder: `build(read)` returns a torch
  module, `inputs(rows, read)` the tensors it takes for some rows of data, by name. `axes` says
  which sizes may change, as {"ids": {0: "batch"}}, and `outputs` how the outputs are called.
  Such a module can be pruned and distilled before it is exported.
- a path ending in .onnx: checked, and copied.
- a folder with a saved transformers model, or a model's id on the hub: by optimum.

torch and optimum are imported where they are needed: bundles without them need neither.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, version_converter

from trivium.errors import BundleError

from .author import called, load, member
from .distil import Distil
from .measure import Feed
from .prune import Prune

if TYPE_CHECKING:
    from torch import Tensor, nn

Read = Callable[[str], bytes]
Say = Callable[[str], None]

OPSET, LEAST_OPSET, IR_VERSION = 20, 18, 10
LARGEST = 2**31 - 1  # bytes of an ONNX file
NEAR = 1e-3  # how far an exported model's answers may be from the source's
PROBED = 64  # rows that decide what is pruned


def make(
    folder: Path,
    source: str,
    out: Path,
    *,
    task: str = "",
    prune: Prune | None = None,
    distil: Distil | None = None,
    teacher: Path | None = None,
    read: Read,
    say: Say,
    work: Path,
) -> None:
    """Write the ONNX file that a source of a function's folder stands for."""
    if ".py:" in source:
        make_torch(folder, source, prune, distil, teacher, out, read, say, work)
        return
    if prune or distil:
        raise BundleError(
            f"{folder / 'recipe.toml'}: {source} can't be pruned or distilled; only a torch "
            "module can, which a recipe names as network.py:build."
        )
    if source.endswith(".onnx"):
        model = from_onnx(folder / source)
    else:
        model = from_hub(folder, source, task, say)
    out.write_bytes(whole(model, source))


def make_torch(
    folder: Path,
    source: str,
    prune: Prune | None,
    distil: Distil | None,
    teacher: Path | None,
    out: Path,
    read: Read,
    say: Say,
    work: Path,
) -> None:
    """Build a torch module, prune and distil it if asked to, and write it as ONNX.

    `work` keeps what training leaves, so that an interrupted build goes on.
    """
    with needs("Exporting a torch module"):
        import torch
    file, _, name = source.partition(":")
    network = load(folder / file)
    build, inputs = member(network, name), member(network, "inputs")
    rows = data(folder / distil.data) if distil else ()

    def collate(picked: Sequence[str]) -> dict[str, Tensor]:
        given = called(network, "inputs", lambda: inputs(picked, read))
        if not isinstance(given, Mapping) or not given:
            raise BundleError(f"{network.__file__}: inputs() gives no tensors by name.")
        return dict(given)

    torch.manual_seed(distil.seed if distil else 0)
    module = called(network, name, lambda: build(read))
    if not isinstance(module, torch.nn.Module):
        raise BundleError(
            f"{network.__file__}: {name}() gives {type(module).__name__}, not an nn.Module."
        )
    if prune:
        from .prune import prune as take_away

        spread = rows[:: max(1, len(rows) // PROBED)][:PROBED]
        say(f"{out.name}: {take_away(module, collate(spread), prune.share, prune.keep)}")
    if distil:
        from .distil import distil as train

        if teacher is None:
            raise BundleError(f"{folder / 'recipe.toml'}: {source} has no teacher to learn from.")
        say(f"{out.name}: {train(module, teacher, rows, collate, distil, work, say)}")
    examples = [collate(rows[:2]), collate(rows[2:5])] if rows else [collate(())]
    model = from_torch(
        module,
        examples,
        f"{network.__file__}: {name}()",
        getattr(network, "axes", None),
        getattr(network, "outputs", ()),
    )
    out.write_bytes(whole(model, source))


@contextlib.contextmanager
def needs(what: str) -> Iterator[None]:
    """Say what to install if an import fails."""
    try:
        yield
    except ImportError as error:
        raise BundleError(
            f"{what} needs {error.name}: install it with pip install 'trivium[models]'."
        ) from error


def data(path: Path) -> tuple[str, ...]:
    """Return the lines of a text file, or the paths of a folder's files."""
    if path.is_dir():
        return tuple(str(each) for each in sorted(path.rglob("*")) if each.is_file())
    try:
        return tuple(line for line in path.read_text("utf-8").splitlines() if line.strip())
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from error


def from_torch(
    module: nn.Module,
    examples: Sequence[Mapping[str, Tensor]],
    where: str,
    axes: Mapping[str, Mapping[int, str]] | None = None,
    outputs: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return a torch module as ONNX, after comparing their answers for every example.

    Sizes that differ between the examples may change, if `axes` does not say which.
    """
    import torch

    module.eval()
    wanted = [answers(module, example, where) for example in examples]
    if axes is None:
        axes = changing(examples)
    shapes = {name: dict(axes.get(name, {})) for name in examples[0]}
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                kwargs=dict(examples[0]),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes if any(shapes.values()) else None,
                verbose=False,
            )
        model: onnx.ModelProto = program.model_proto
    except Exception as error:  # the exporter's errors share no base
        raise BundleError(f"{where} can't be exported: {reason(error)}") from error
    found = [node.name for node in model.graph.output]
    if outputs and len(outputs) != len(found):
        raise BundleError(
            f"{where} gives {len(found)} tensors, but outputs names {', '.join(outputs)}."
        )
    rename(model.graph, dict(zip(found, outputs, strict=False)))
    tidy(model)
    for example, right in zip(examples, wanted, strict=True):
        feed = {name: value.numpy() for name, value in example.items()}
        compare(model, feed, right, where)
    return model


def answers(module: nn.Module, example: Mapping[str, Tensor], where: str) -> list[NDArray[Any]]:
    """Return what a module answers, as arrays."""
    import torch

    from .prune import tensors

    try:
        with torch.no_grad():
            return [each.numpy() for each in tensors(module(**example))]
    except Exception as error:  # whatever the author's module raises
        given = ", ".join(f"{name} {list(value.shape)}" for name, value in example.items())
        raise BundleError(f"{where} fails for {given}: {type(error).__name__}: {error}") from error


def changing(examples: Sequence[Mapping[str, Tensor]]) -> dict[str, dict[int, str]]:
    """Return the sizes that differ between examples; those that always agree share a name."""
    seen: dict[tuple[int, ...], str] = {}
    axes: dict[str, dict[int, str]] = {}
    for name, first in examples[0].items():
        for axis in range(first.ndim):
            sizes = tuple(example[name].shape[axis] for example in examples)
            if len(set(sizes)) > 1:
                axes.setdefault(name, {})[axis] = seen.setdefault(sizes, f"d{len(seen)}")
    return axes


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' chatter off the terminal."""
    import logging
    import warnings

    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def reason(error: BaseException) -> str:
    """Return the line of an exporter's error that says what is wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3]) or 'without a word'}"


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give outputs the author's names; values inside that have one of them give way."""
    swapped = {new: f"{new}.inner" for new in names.values() if new not in names} | dict(names)
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = swapped.get(name, name)
    for item in (*graph.initializer, *graph.output):
        item.name = swapped.get(item.name, item.name)


def tidy(model: onnx.ModelProto) -> None:
    """Take out what differs between machines and days: traces, versions, notes."""
    model.producer_name, model.producer_version, model.doc_string = "trivium", "", ""
    model.graph.name, model.graph.doc_string = "model", ""
    model.ir_version = min(model.ir_version, IR_VERSION)
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for item in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for number, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"{node.op_type.lower()}_{number}", ""
        del node.metadata_props[:]
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]


def compare(model: onnx.ModelProto, feed: Feed, wanted: Sequence[Any], where: str) -> None:
    """Raise BundleError unless a model answers as its source did."""
    import onnxruntime as ort

    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        raw = model.SerializeToString()
        session = ort.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
        found = session.run(None, {node.name: feed[node.name] for node in session.get_inputs()})
    except Exception as error:  # onnxruntime's errors share no base
        raise BundleError(f"{where} is exported, but does not run: {reason(error)}") from error
    for node, ours, theirs in zip(model.graph.output, found, wanted, strict=False):
        far = np.inf
        if ours.shape == theirs.shape:
            scale = max(1.0, float(np.abs(theirs).max(initial=0)))
            far = float(np.abs(ours - theirs).max(initial=0)) / scale
        if not far <= NEAR:
            raise BundleError(
                f"{where} is exported, but its output {node.name} {list(ours.shape)} is {far:.2g} "
                f"from the source's {list(theirs.shape)}; up to {NEAR} is borne."
            )


def from_onnx(path: Path) -> onnx.ModelProto:
    """Return the model of an ONNX file, checked, with a recent opset."""
    if not path.is_file():
        raise BundleError(f"{path} does not exist; the recipe names it.")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx's errors share no base
        raise BundleError(f"{path} is no sound ONNX model: {reason(error)}") from error
    opset = next((each.version for each in model.opset_import if not each.domain), LEAST_OPSET)
    if opset >= LEAST_OPSET:
        return model
    feed, where = invented(model), f"{path}, raised from opset {opset} to {LEAST_OPSET},"
    try:
        import onnxruntime as ort

        raw = model.SerializeToString()
        session = ort.InferenceSession(raw, providers=["CPUExecutionProvider"])
        wanted = session.run(None, feed)
        model = version_converter.convert_version(model, LEAST_OPSET)
    except Exception as error:  # onnx's errors share no base
        raise BundleError(
            f"{path} has opset {opset}, and raising it to {LEAST_OPSET} fails: {reason(error)}. "
            "Export it again with a higher opset."
        ) from error
    compare(model, feed, wanted, where)
    return model


def invented(model: onnx.ModelProto) -> Feed:
    """Return inputs of a fitting kind and shape for a model."""
    generator = np.random.default_rng(0)
    weights = {item.name for item in model.graph.initializer}
    feed: Feed = {}
    for item in model.graph.input:
        if item.name in weights:
            continue
        kind = helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
        sizes = [each.dim_value or 2 for each in item.type.tensor_type.shape.dim]
        floats = item.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
        feed[item.name] = (
            generator.standard_normal(sizes).astype(kind) if floats else np.ones(sizes, kind)
        )
    return feed


def from_hub(folder: Path, source: str, task: str, say: Say) -> onnx.ModelProto:
    """Return a saved transformers model as ONNX; only an id on the hub uses the network."""
    with needs("Exporting a saved transformers model"):
        from optimum.exporters.onnx import main_export
        from optimum.exporters.tasks import TasksManager
    local = (folder / source).is_dir()
    place = str(folder / source) if local else source
    if not local and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise BundleError(f"{folder / source} does not exist; the recipe names it.")
    say(f"exporting {source}" + ("" if local else " from the hub"))
    with TemporaryDirectory() as scratch:
        try:
            with quiet():
                if not task:
                    task = TasksManager.infer_task_from_model(trained(place, local))
                main_export(
                    place,
                    output=scratch,
                    task=task,
                    opset=LEAST_OPSET,
                    no_post_process=True,
                    do_validation=False,
                    local_files_only=local,
                )
                whole_model = TasksManager.get_model_from_task(task, place, framework="pt")
        except BundleError:
            raise
        except OSError as error:
            raise BundleError(
                f"{source} can't be had: {str(error).strip().splitlines()[0]} Without a network, "
                "give the folder of a saved model, relative to the recipe's."
            ) from error
        except Exception as error:  # whatever optimum and transformers raise
            raise BundleError(f"{source} can't be exported: {reason(error)}") from error
        graphs = sorted(Path(scratch).rglob("*.onnx"))
        if len(graphs) != 1:
            raise BundleError(
                f"{source} becomes {', '.join(path.name for path in graphs) or 'no graph'} with "
                f"the task {task}: name a task that gives one graph."
            )
        model = from_onnx(graphs[0])
    tidy(model)
    feed = invented(model)
    compare(model, feed, saved_answers(whole_model, feed, model, source), source)
    return model


def trained(place: str, local: bool) -> type:
    """Return the class that a saved model was trained as, which tells its task."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(place, local_files_only=local)
    names = config.architectures or ["no architecture"]
    found = getattr(transformers, names[0], None)
    if not isinstance(found, type):
        raise BundleError(f"{place} was saved as {names[0]}, which tells no task: state its task.")
    return found


def saved_answers(
    saved: Any, feed: Feed, model: onnx.ModelProto, source: str
) -> list[NDArray[Any]]:
    """Return what a transformers model answers, in the order of its graph's outputs."""
    import torch

    saved.eval()
    with torch.no_grad():
        given = saved(**{name: torch.from_numpy(value) for name, value in feed.items()})
    names = [node.name for node in model.graph.output]
    if absent := [name for name in names if given.get(name) is None]:
        raise BundleError(f"{source} is exported with {', '.join(absent)}, which it does not give.")
    return [given[name].numpy() for name in names]


def whole(model: onnx.ModelProto, source: str) -> bytes:
    """Return a model's bytes, which hold all of its weights."""
    if model.ByteSize() > LARGEST:
        raise BundleError(
            f"{source} is {model.ByteSize() / 2**30:.1f} GiB as ONNX; a graph of a bundle is less "
            "than 2 GiB."
        )
    onnx.checker.check_model(model)
    raw: bytes = model.SerializeToString(deterministic=True)
    return raw

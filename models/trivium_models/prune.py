"""Which parts of a torch module does it need least, and how do they go?

A part is an attention head, a feed-forward neuron or a convolution's channel, together with
everything that depends on it: what is left is an ordinary, smaller module.

What a part is worth is a Taylor estimate: how far the outputs themselves would move, squared, if
it went. Weights' magnitudes say nothing about what they are multiplied with; and the slope of a
loss is no guide either, since a module that is compared with itself stands at its loss's minimum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from trivium.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor, nn

PROBES = 32  # random mixtures of the outputs; more change a ranking little
STEP = 8  # widths stay multiples of what processors multiply at once
SEED = 0
COUNTS = ("num_attention_heads", "num_heads", "n_heads", "heads")  # how attention names its heads


class Prune(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Take the least needed `share` of heads, neurons and channels away.

    `keep` names submodules that stay whole, as `named_modules` does.
    """

    share: Annotated[float, Meta(gt=0, lt=1)] = 0.3
    keep: tuple[str, ...] = ()


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a module had and has: parameters, heads, neurons or channels."""

    parameters: tuple[int, int]
    heads: tuple[int, int]
    channels: tuple[int, int]

    def __str__(self) -> str:
        parts = {"parameters": self.parameters, "heads": self.heads, "channels": self.channels}
        return ", ".join(f"{a:,} → {b:,} {name}" for name, (a, b) in parts.items() if a)


class Part(NamedTuple):
    """Layers that lose their outputs together, and the ones that read them."""

    root: nn.Module
    handler: Any  # how torch-pruning takes outputs of the root away
    readers: list[tuple[nn.Module, Tensor, Tensor]]  # a layer, its inputs, the outputs they are
    width: int
    owner: nn.Module | None  # the attention whose heads these are
    heads: int


def prune(
    module: nn.Module, example: Mapping[str, Tensor], share: float, keep: Sequence[str] = ()
) -> Pruned:
    """Take the least needed share of heads, neurons and channels out of a module, in place.

    The widths of embeddings, of what residual connections of a transformer carry, and of the
    outputs stay. Heads compete with heads, and channels with channels, across all layers; no
    layer loses more than twice the share.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise BundleError(
            f"Pruning needs {error.name}: install it with pip install 'trivium[models]'."
        ) from error
    kept = left_alone(module, keep)
    before = sum(weight.numel() for weight in module.parameters())
    try:
        graph = torch_pruning.DependencyGraph().build_dependency(module, dict(example))
        parts = list(find(module, graph, kept))
    except BundleError:
        raise
    except Exception as error:  # whatever tracing the author's module raises
        raise BundleError(
            f"{type(module).__name__} can't be traced, so that it can't be pruned: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not parts:
        raise BundleError(
            f"{type(module).__name__} has nothing to prune: no heads, feed-forward neurons or "
            f"channels outside {', '.join(keep) or 'its outputs'}. Only nn.Linear and nn.Conv "
            "layers are pruned; nn.MultiheadAttention keeps its heads."
        )
    scores = worth(module, example, parts)
    heads, channels = [0, 0], [0, 0]
    for attention, count, step in ((True, heads, 1), (False, channels, STEP)):
        chosen = [each for each, part in enumerate(parts) if bool(part.heads) == attention]
        lost = choose([scores[each] for each in chosen], share, step)
        for each, gone in zip(chosen, lost, strict=True):
            count[0] += len(scores[each])
            count[1] += len(scores[each]) - len(gone)
            cut(graph, parts[each], gone)
    after = sum(weight.numel() for weight in module.parameters())
    return Pruned(
        parameters=(before, after),
        heads=(heads[0], heads[1]),
        channels=(channels[0], channels[1]),
    )


def left_alone(module: nn.Module, keep: Sequence[str]) -> set[nn.Module]:
    """Return the submodules that stay whole, with all that is in them."""
    known = dict(module.named_modules())
    for name in keep:
        if name not in known:
            near = ", ".join(list(known)[1:9])
            raise BundleError(
                f"prune.keep names {name!r}, which {type(module).__name__} does not have; "
                f"it has {near}, …"
            )
    return {inner for name in keep for inner in known[name].modules()}


def find(module: nn.Module, graph: Any, kept: set[nn.Module]) -> Iterator[Part]:
    """Yield what can go: everything that some layer reads and nothing else depends on."""
    from torch import nn, tensor

    parents = {child: parent for parent in module.modules() for child in parent.children()}
    fixed = (nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.MultiheadAttention)
    roots = [nn.Linear, nn.Conv1d, nn.Conv2d]
    for group in graph.get_all_groups(root_module_types=roots):
        layers = [item.dep.target.module for item in group]
        names = [type(layer).__name__ for layer in layers]
        if "_OutputOp" in names or any(isinstance(layer, fixed) for layer in layers):
            continue
        if not kept.isdisjoint(layers) or any(grouped(layer) for layer in layers):
            continue
        readers: list[tuple[Any, Tensor, Tensor]] = []
        owner, heads = None, 0
        for item in group:
            layer = item.dep.target.module
            if not isinstance(layer, tuple(roots)) or getattr(layer, "groups", 1) > 1:
                continue  # a depthwise convolution only passes on
            if graph.is_in_channel_pruning_fn(item.dep.handler):
                readers.append((layer, tensor(item.idxs), tensor(item.root_idxs)))
                continue
            parent = parents.get(layer)
            count = next((name for name in COUNTS if hasattr(parent, name)), None)
            if count is not None and isinstance(layer, nn.Linear):
                owner, heads = parent, getattr(parent, count)
        root, width = group[0].dep, len(group[0].idxs)
        if readers:
            if heads and width % heads:
                raise BundleError(
                    f"{type(owner).__name__} has {heads} heads, but {width} outputs can't be "
                    "shared among them."
                )
            if heads and width != readers[0][0].in_features:
                raise BundleError(
                    f"{type(owner).__name__} packs query, key and value into one layer of {width} "
                    "outputs: write them as three nn.Linear, so that heads can go."
                )
            yield Part(root.target.module, root.handler, readers, width, owner, heads)


def grouped(layer: Any) -> bool:
    """Say whether a convolution has groups of several channels, which must stay alike."""
    return 1 < getattr(layer, "groups", 1) < getattr(layer, "out_channels", 0)


def worth(module: nn.Module, example: Mapping[str, Tensor], parts: Sequence[Part]) -> list[Tensor]:
    """Return how far the outputs would move without each head or channel, squared."""
    import torch

    weights = list({layer.weight for part in parts for layer, _, _ in part.readers})
    generator = torch.Generator().manual_seed(SEED)
    training = module.training
    module.eval()
    totals = [torch.zeros(part.heads or part.width) for part in parts]
    given = tensors(module(**example))
    for probe in range(PROBES):
        # Random signs: cross terms cancel, what is left is the sum over examples and outputs.
        mixed = torch.stack(
            [
                (each * (torch.randint(0, 2, each.shape, generator=generator) * 2 - 1)).sum()
                for each in given
            ]
        ).sum()
        last = probe == PROBES - 1
        slopes = torch.autograd.grad(mixed, weights, retain_graph=not last, allow_unused=True)
        slope = dict(zip(weights, slopes, strict=True))
        for part, total in zip(parts, totals, strict=True):
            moved = torch.zeros(part.width)
            for layer, places, outputs in part.readers:
                if slope[layer.weight] is not None:
                    terms = (layer.weight.detach() * slope[layer.weight]).transpose(0, 1)
                    moved.index_add_(0, outputs, terms.flatten(1).sum(1)[places])
            total += moved.view(len(total), -1).sum(1).square()
    module.train(training)
    return totals


def tensors(given: Any) -> list[Tensor]:
    """Return the float tensors of whatever a module gives."""
    import torch

    if isinstance(given, torch.Tensor):
        return [given] if given.is_floating_point() else []
    if isinstance(given, Mapping):
        given = list(given.values())
    return [each for item in given or () for each in tensors(item)]


def choose(scores: Sequence[Tensor], share: float, step: int) -> list[list[int]]:
    """Return which of each layer go: the share with the least scores of all layers together."""
    most = min(2 * share, (1 + share) / 2)
    ranked = sorted(
        (float(score), layer, place)
        for layer, row in enumerate(scores)
        for place, score in enumerate(row)
    )
    wanted = round(share * len(ranked))
    counts = [0] * len(scores)
    for _, layer, _ in ranked:
        if wanted and counts[layer] + 1 <= most * len(scores[layer]):
            counts[layer] += 1
            wanted -= 1
    lost = []
    for row, count in zip(scores, counts, strict=True):
        width = min(len(row), max(step, round((len(row) - count) / step) * step))
        lost.append(sorted(row.argsort(stable=True)[: len(row) - width].tolist()))
    return lost


def cut(graph: Any, part: Part, gone: Sequence[int]) -> None:
    """Take heads or channels away, from all layers that have them."""
    if not gone:
        return
    size = part.width // (part.heads or part.width)
    places = [each * size + inner for each in gone for inner in range(size)]
    graph.get_pruning_group(part.root, part.handler, places).prune()
    if part.owner is not None:
        left = part.heads - len(gone)
        for name in COUNTS:
            if hasattr(part.owner, name):
                setattr(part.owner, name, left)
        if hasattr(part.owner, "all_head_size"):  # as in transformers' BERT
            part.owner.all_head_size = left * size

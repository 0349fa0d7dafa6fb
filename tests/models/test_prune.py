"""Is what pruning leaves a smaller module that answers nearly as before?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trivium.errors import BundleError
from trivium_models.prune import Pruned, choose, prune

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch", reason="pruning needs the kit's extra, trivium[models]")
pytest.importorskip("torch_pruning", reason="pruning needs the kit's extra, trivium[models]")

import networks  # noqa: E402 - needs torch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_heads_and_neurons_go_and_widths_stay() -> None:
    module = networks.Texts()
    example = networks.inputs(("a row", "another row"), networks.nothing)
    done = prune(module, example, 0.25)
    assert done.heads == (8, 6)
    assert done.channels == (128, 96)
    assert done.parameters[1] < done.parameters[0]
    assert module(**example).shape == (2, networks.WIDTH)
    assert module.letters.weight.shape == (128, networks.WIDTH)
    for layer in module.layers:
        assert layer.attention.query.out_features == 8 * layer.attention.heads
        assert layer.wide.out_features == layer.narrow.in_features


def test_channels_go_and_classes_stay() -> None:
    module, image = networks.Photos(), torch.randn(2, 3, 16, 16)
    done = prune(module, {"image": image}, 0.5)
    assert done.heads == (0, 0)
    assert done.channels[0] == 80
    assert done.channels[1] == pytest.approx(40, abs=8)
    assert module.each.groups == module.wide.out_channels
    assert module.stem.out_channels == module.narrow.out_channels
    assert module(image).shape == (2, 10)


def test_what_does_nothing_goes_first() -> None:
    """Neurons whose outputs nobody reads are pruned without moving the answer."""
    module = networks.Texts().eval()
    idle = list(range(0, 64, 2))
    with torch.no_grad():
        for layer in module.layers:
            layer.narrow.weight[:, idle] = 0
            layer.attention.dense.weight[:, :16] = 0
    example = networks.inputs(("a row", "another row"), networks.nothing)
    before = module(**example)
    prune(module, example, 0.5)
    assert torch.allclose(module(**example), before, atol=1e-6)


def test_what_is_kept_stays_whole() -> None:
    module = networks.Texts()
    prune(module, networks.inputs((), networks.nothing), 0.25, keep=["layers.0"])
    assert module.layers[0].attention.heads == 4
    assert module.layers[0].wide.out_features == 64
    assert module.layers[1].attention.heads == 3


def test_transformers_own_bert() -> None:
    transformers = pytest.importorskip("transformers", reason="the kit's extra is not installed")
    shape = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 50}
    config = transformers.BertConfig(num_hidden_layers=2, num_attention_heads=4, **shape)
    module = transformers.BertModel(config).eval()
    example = {"input_ids": torch.arange(10).view(2, 5)}
    assert prune(module, example, 0.25).heads == (8, 6)
    assert module(**example)[0].shape == (2, 5, 32)


def test_the_same_every_time() -> None:
    shapes = []
    for _ in range(2):
        torch.manual_seed(1)
        module = networks.Texts()
        prune(module, networks.inputs((), networks.nothing), 0.4)
        shapes.append([value.sum().item() for value in module.state_dict().values()])
    assert shapes[0] == shapes[1]


class Stubborn(torch.nn.Module):  # type: ignore[misc,name-defined] # torch is not there for mypy
    def forward(self, image: Tensor) -> Tensor:
        raise ValueError("not today")


class Narrow(torch.nn.Module):  # type: ignore[misc,name-defined] # torch is not there for mypy
    def __init__(self) -> None:
        super().__init__()
        self.only = torch.nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.only(image)


@pytest.mark.parametrize(
    ("kind", "keep", "message"),
    [
        (Stubborn, (), "Stubborn can't be traced.*ValueError: not today"),
        (Narrow, (), "Narrow has nothing to prune"),
        (networks.Photos, ("stern",), "names 'stern', which Photos does not have; it has stem"),
    ],
)
def test_what_can_not_be_pruned(kind: type[Any], keep: tuple[str, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        prune(kind(), {"image": torch.randn(1, 3, 8, 8)}, 0.5, keep)


def test_no_layer_loses_more_than_twice_the_share() -> None:
    scores = [torch.zeros(16), torch.ones(16)]
    assert [len(gone) for gone in choose(scores, 0.25, 1)] == [8, 0]
    assert [len(gone) for gone in choose(scores, 0.25, 8)] == [8, 0]
    assert [len(gone) for gone in choose([torch.ones(4)] * 4, 0.01, 8)] == [0] * 4


def test_a_summary_is_one_line() -> None:
    done = Pruned(parameters=(1200, 800), heads=(0, 0), channels=(64, 48))
    assert str(done) == "1,200 → 800 parameters, 64 → 48 channels"

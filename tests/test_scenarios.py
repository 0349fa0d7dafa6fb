"""Are scenarios of one's own read as they are meant, and is what they draw what is simulated?"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from bench import policies
from bench.play import play
from bench.scenario import LINKS, Link, generate, read, written
from bench.world import OVERHEAD_BYTES, Way, World

ASKS = 'asks = [{ function = "text.embed" }]\n'
HEAD = "s,rtt_ms,up_mbps,down_mbps\n"


def wrote(folder: Path, text: str, trace: str = "") -> Path:
    path = folder / "mine.toml"
    path.write_text(ASKS + text)
    (folder / "link.csv").write_text(HEAD + trace)
    return path


def test_a_link_may_be_a_file(tmp_path: Path) -> None:
    """Beside the scenario: what it says holds from its second on, and the kind says the rest."""
    near = 'near = { kind = "lte", jitter = 0, trace = "link.csv" }'
    scenario = read(wrote(tmp_path, near, "0,40,8,16\n2.5,400,0,0.8\n"))
    assert scenario.name == "mine"
    assert scenario.link("near").bursts_a_minute == LINKS["lte"].bursts_a_minute
    way = Way(replace(scenario.link("near"), bursts_a_minute=0), 10, np.random.default_rng(0))
    assert (way.rtt[0], way.rtt[24], way.rtt[25]) == (40, 40, 400)
    assert way.arrival(0, 100_000 - OVERHEAD_BYTES, 0, 1.0) == pytest.approx(20 + 100)
    assert way.arrival(3000, 100, 0, 1.0) == math.inf
    assert way.arrival(3000, 0, 1, 1.0) == pytest.approx(3200 + OVERHEAD_BYTES / 100)


@pytest.mark.parametrize(
    ("text", "trace", "said"),
    [
        ('near = "3g"', "", "there is no link '3g'; there are 4g, 5g, cable"),
        ('far = { kind = "3g" }', "", "there is no link '3g'"),
        ("secnds = 3", "", "unknown field `secnds`"),
        ("seconds = 0", "", r"> 0.0.* `\$.seconds`"),
        ("near = { rtt = 3 }", "", r"unknown field `rtt`.* `\$.near`"),
        ("near = 3", "", r"`\$.near`"),
        ('near = { trace = "none.csv" }', "", "No such file"),
        ('near = { trace = "link.csv" }', "0,1,2\n", "line 2 is no four numbers"),
        ('near = { trace = "link.csv" }', "0,fast,2,3\n", "line 2 is no four numbers"),
        ('near = { trace = "link.csv" }', "1,1,2,3\n", "begins at 0 s"),
        ('near = { trace = "link.csv" }', "0,1,2,3\n5,1,2,3\n4,1,2,3\n", "are in order"),
        ('near = { trace = "link.csv" }', "0,0,2,3\n", r"> 0.0.* `\$.near.trace"),
        ("near = [", "", "Invalid value"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, trace: str, said: str) -> None:
    """With the file, the place in it, and what is allowed."""
    with pytest.raises(ValueError, match=rf"mine\.toml: .*{said}"):
        read(wrote(tmp_path, text, trace))


def test_a_function_must_be_known_or_described(tmp_path: Path) -> None:
    """Ours are, as the kit measured them."""
    path = tmp_path / "mine.toml"
    path.write_text('asks = [{ function = "text.none" }]')
    with pytest.raises(ValueError, match=r"no function 'text.none'; there are .*text\.embed"):
        read(path)


def test_a_shared_link_is_waited_for() -> None:
    """Where it is TCP: behind what was sent before, and for a new connection; else by nobody."""
    link = Link(rtt_ms=20, up_mbps=8, jitter=0, drift=0)
    for tcp, second in ((False, 110.0), (True, 210.0)):
        way = Way(replace(link, tcp=tcp), 10, np.random.default_rng(0))
        size = 100_000 - OVERHEAD_BYTES
        assert way.carry(0, size, 0, 1.0) == pytest.approx(110)
        assert way.carry(0, size, 0, 1.0) == pytest.approx(second)
        way.reset()
        assert way.carry(0, size, 0, 1.0) == pytest.approx(110)


def test_the_same_seed_is_the_same_world_and_play() -> None:
    """What is drawn, and what becomes of it."""
    drawn = replace(generate(3), seconds=20)
    one, other = (play(World(drawn), policies.ours) for _ in range(2))
    assert [(each.asked.at, each.ms, each.began) for each in one] == [
        (each.asked.at, each.ms, each.began) for each in other
    ]


def test_those_that_are_kept_can_be_read() -> None:
    """Each says what it is about."""
    assert all(each.about for each in written())

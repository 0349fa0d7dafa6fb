"""What an operator can set on a gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivium_edge.settings import Settings


def test_settings_are_read_from_the_environment() -> None:
    """Folders are separated as PATH is, keys and origins by commas; spaces do not count."""
    found = Settings.from_env(
        {
            "TRIVIUM_EDGE_BUNDLES": "models/zoo:/srv/bundles",
            "TRIVIUM_EDGE_PAGE": "/srv/page",
            "TRIVIUM_EDGE_CLOUD_URL": "https://cloud",
            "TRIVIUM_EDGE_CLOUD_KEY": "k",
            "TRIVIUM_EDGE_KEYS": "one, two,,",
            "TRIVIUM_EDGE_ORIGINS": "https://a , https://b",
            "TRIVIUM_EDGE_SECRET": "s",
            "TRIVIUM_EDGE_TRUST": "keys:/etc/theirs.pub",
            "TRIVIUM_EDGE_UNSIGNED": "1",
            "TRIVIUM_EDGE_DEVELOPMENT": "1",
            "TRIVIUM_EDGE_SHADOWS": "0",
            "UNRELATED": "x",
        }
    )
    assert found == Settings(
        bundles=(Path("models/zoo"), Path("/srv/bundles")),
        page=Path("/srv/page"),
        cloud_url="https://cloud",
        cloud_key="k",
        keys=("one", "two"),
        origins=("https://a", "https://b"),
        secret="s",
        trust=(Path("keys"), Path("/etc/theirs.pub")),
        unsigned=True,
        development=True,
        shadows=0.0,
    )


def test_without_settings_nobody_may_ask() -> None:
    """No keys, no origins, no cloud, no development, and a secret that nobody knows."""
    found, other = Settings.from_env({}), Settings.from_env({"TRIVIUM_EDGE_SECRET": ""})
    assert (found.keys, found.origins, found.cloud_url, found.development) == ((), (), "", False)
    assert found.bundles == (Path("models/zoo"),)
    assert (found.trust, found.unsigned) == ((Path(".trivium/keys"),), False)
    assert Settings.from_env({"TRIVIUM_EDGE_TRUST": ""}).trust == ()
    assert len(found.secret) >= 32
    assert found.secret != other.secret
    assert found.shadows == 0.01


def test_a_share_is_a_share() -> None:
    """More than all, or less than none, is a mistake."""
    with pytest.raises(ValueError, match="TRIVIUM_EDGE_SHADOWS is 2.0; it must be from 0 to 1"):
        Settings.from_env({"TRIVIUM_EDGE_SHADOWS": "2"})

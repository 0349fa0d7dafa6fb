"""What kind of device does a page run on, told by few words?"""

from __future__ import annotations

_BROWSERS = (
    ("Edg/", "Edge"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    *(("Android", "Android"), ("iPhone", "iOS"), ("iPad", "iOS"), ("Windows", "Windows")),
    *(("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
)


def family(agent: str) -> str:
    """Return the browser and system that a User-Agent names, of few known ones."""
    browser = next((name for word, name in _BROWSERS if word in agent), "other browser")
    system = next((name for word, name in _SYSTEMS if word in agent), "other system")
    return f"{browser} on {system}"

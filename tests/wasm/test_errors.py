"""The tree of errors."""

from __future__ import annotations

from trivium import errors
from trivium.errors import ERRORS, TriviumError


def test_codes_are_unique_and_drawn() -> None:
    """Each class has a code of its own, and the module's docstring shows it with its status."""
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    kinds = [each for each in classes if issubclass(each, TriviumError)]
    assert len(ERRORS) == len(kinds)
    drawn = (errors.__doc__ or "").splitlines()
    for kind in kinds:
        line = next(line for line in drawn if kind.__name__ in line.split())
        assert kind.code in line.split()
        assert str(kind.status) in line.split()


def test_callers_mistakes_are_4xx() -> None:
    """And nothing else is, but that no tier that may be asked has a model for it."""
    for kind in ERRORS.values():
        mistaken = issubclass(kind, errors.AskError | errors.Unsuited)
        assert mistaken == (400 <= kind.status < 500)

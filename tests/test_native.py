"""ZRAMCORE_PURE, the one switch between compiled code and Python."""

import pytest

from zramcore.native import PURE_VARIABLE, pure


@pytest.mark.parametrize(("value", "expected"), [(None, False), ("", False), ("1", True), ("0", True)])
def test_pure(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: bool) -> None:
    """Set means set: no text other than an empty one is read as no."""
    if value is None:
        monkeypatch.delenv(PURE_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(PURE_VARIABLE, value)
    assert pure() is expected

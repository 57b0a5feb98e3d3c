"""A model that tells colours, and plain images, that the tests of judging share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspection import Inspector
from tests.support import graphs

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file whose kinds are the colours; nobody changes it."""
    return graphs.model_file(tmp_path_factory.mktemp("models") / "colours.onnx", classes=COLOURS)


@pytest.fixture(scope="module")
def inspector(colours: Path) -> Iterator[Inspector]:
    with Inspector(colours, threads=1) as made:
        yield made


def plain(value: int, shape: tuple[int, ...] = (64, 64, 3)) -> Any:
    """An image of one value."""
    return np.full(shape, value, np.uint8)

"""A headless Chromium for the pages of `fastst.explain`; where there is none, its tests are skipped and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from reader import Reader


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    from reader import CHROMIUM, DRIVER, in_a_browser

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no Chromium with its driver: apt-get install chromium chromium-driver")
    with in_a_browser() as reader:
        yield reader


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes a page into a file of its own."""

    def write(text: str) -> Path:
        path = tmp_path_factory.mktemp("page") / "walks.html"
        path.write_bytes(text.encode())
        return path

    return write

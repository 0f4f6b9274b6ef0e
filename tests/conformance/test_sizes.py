"""The compressors of the replay have the kernel's sizes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
SHARED = ("lzo-rle", "lz4")
_FIRST = {"text": 128, "rz1024": 192, "rz2048": 256, "rz3000": 320, "rz256": 448}


@pytest.mark.parametrize("name", ["lzo-rle", "lzo", "lz4"])
def test_exact_models_agree_with_every_recorded_page(replay: ModuleType, name: str) -> None:
    import recorded
    import sizes

    table = {page: size for (algorithm, page), size in recorded.recorded_sizes().items() if algorithm == name}
    assert len(table) == 60  # 64 pages less 4 that are same-filled
    for page, size in table.items():
        length = sizes.MODELS[name](page)
        assert (4096 if length >= 3625 else length) == size


@pytest.mark.parametrize("name", SHARED)
def test_and_with_the_sums_of_transcript_04b(replay: ModuleType, name: str) -> None:
    import recorded
    import sizes

    text = (HERE / "transcripts" / "04b-size-classes.txt").read_text()
    section = text.partition(f"### {name}: N pages")[2].partition("# all 512")[0]
    checked = 0
    for kind, first in _FIRST.items():
        totals = list(
            itertools.accumulate(sizes.MODELS[name](page) for page in recorded.data_pages()[first : first + 64])
        )
        rows = section.partition(f"class {kind}\n")[2].partition("class")[0]
        for count, total in re.findall(r"n=(\d+) mm_stat: \d+ (\d+) ", rows):
            assert totals[int(count) - 1] == int(total)
            checked += 1
    assert checked == 35


def test_a_recorded_page_comes_back(replay: ModuleType) -> None:
    import recorded

    compressors = replay._catalogue().compressors
    assert tuple(compressors) == recorded.KERNEL_ORDER
    page = recorded.data_pages()[10]
    context = compressors["842"](recorded.CompressorParams()).create_context()
    data = context.compress_page(page)
    assert len(data) == 2480
    assert context.decompress_page(data, 4096) == page

"""algorithm_params: what is checked when and with which errno, and what the parameters do, for every compressor."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from zramcore import attributes
from zramcore.device import Device
from zramcore.errors import ZramError
from zramcore.testing.inspection import check_consistent, stat

NAMES = ("lz4", "lz4hc", "zstd", "deflate", "store")
WORDS = [f"{word}_{number}".encode() for word in ("slot", "zspage", "handle", "block", "idle") for number in range(80)]


def text_pages(count: int, seed: int, page_size: int = 4096) -> list[bytes]:
    """Pages of the same words in another order each: a dictionary of such pages must help."""
    source = random.Random(seed)
    return [b" ".join(source.choices(WORDS, k=page_size // 4))[:page_size] for _ in range(count)]


@pytest.fixture(scope="module")
def dictionaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained dictionary and a raw one, as files."""
    folder = tmp_path_factory.mktemp("dict")
    pages = text_pages(200, 1)
    (folder / "trained").write_bytes(zstandard.train_dictionary(8192, pages).as_bytes())
    (folder / "raw").write_bytes(b"".join(pages[:2]))
    return {"trained": folder / "trained", "raw": folder / "raw"}


def result(device: Device, name: str, text: str) -> str:
    """Write an attribute; "OK", or the name of the errno."""
    try:
        attributes.store(device, name, text + "\n")
    except ZramError as error:
        return error.errno_name
    return "OK"


def stored(device: Device, pages: list[bytes]) -> int:
    """Write pages, read them back, and say how many bytes they took."""
    size = device.page_size
    device.pwrite(0, b"".join(pages))
    for index, page in enumerate(pages):
        assert device.pread(index * size, size) == page
    assert device.pread(0, len(pages) * size) == b"".join(pages)
    check_consistent(device)
    return stat(device, "mm_stat")[1]


Make = Callable[..., Device]


def chosen(device: Make, algorithm: str, params: str, pages: int = 32, **settings: str) -> Device:
    """A device with this primary algorithm and these parameters, initialised."""
    return device(pages, blocks=0, comp_algorithm=algorithm, algorithm_params=params, **settings)


# What they do ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "params"),
    [
        *(("lz4", f"level={level}") for level in (1, 2, 100, 2**31 - 1)),
        *(("lz4hc", f"level={level}") for level in (1, 9, 12, 16)),
        *(("zstd", f"level={level}") for level in (-131072, -1, 0, 1, 3, 19, 22)),
        *(("deflate", f"level={level}") for level in (-1, 0, 1, 9)),
        *(("deflate", f"deflate.winbits={bits} level=6") for bits in (-15, -11, -9, 9, 15)),
        *((name, "priority=0") for name in NAMES),
    ],
)
def test_every_value_in_range_is_taken_and_reads_back(device: Make, algorithm: str, params: str) -> None:
    assert stored(chosen(device, algorithm, params), text_pages(4, 2)) > 0


@pytest.mark.parametrize(
    ("algorithm", "worse", "better"),
    [
        ("lz4", "level=1000", "level=1"),
        ("lz4hc", "level=1", "level=12"),
        ("zstd", "level=-50", "level=19"),
        ("deflate", "level=1", "level=9"),
        ("deflate", "level=9 deflate.winbits=15", "level=9 deflate.winbits=-15"),
    ],
)
def test_a_level_has_its_effect(device: Make, algorithm: str, worse: str, better: str) -> None:
    pages = text_pages(8, 3)
    assert stored(chosen(device, algorithm, worse), pages) > stored(chosen(device, algorithm, better), pages)


@pytest.mark.parametrize("page_size", [4096, 16384, 65536])
@pytest.mark.parametrize("kind", ["trained", "raw"])
@pytest.mark.parametrize("algorithm", ["lz4", "lz4hc", "zstd"])
def test_a_dictionary_makes_4_kib_pages_smaller_and_all_read_back(
    device: Make, dictionaries: dict[str, Path], algorithm: str, kind: str, page_size: int
) -> None:
    pages = text_pages(8, 4, page_size)
    without = stored(chosen(device, algorithm, "priority=0", page_size=page_size), pages)
    with_it = chosen(device, algorithm, f"dict={dictionaries[kind]}", page_size=page_size)
    size = stored(with_it, pages)
    assert size < 0.95 * without if page_size == 4096 else size != without


@pytest.mark.parametrize("kind", ["trained", "raw"])
@pytest.mark.parametrize("algorithm", ["lz4", "lz4hc", "zstd"])
def test_threads_share_a_dictionary(device: Make, dictionaries: dict[str, Path], algorithm: str, kind: str) -> None:
    new = chosen(device, algorithm, f"dict={dictionaries[kind]} level=2", pages=64)
    start = threading.Barrier(4)
    wrong: list[int] = []

    def work(number: int) -> None:
        start.wait()
        for round_ in range(5):
            pages = text_pages(16, 10 * number + round_)
            new.pwrite(number * 16 * 4096, b"".join(pages))
            if new.pread(number * 16 * 4096, 16 * 4096) != b"".join(pages):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    check_consistent(new)


def test_a_secondary_algorithm_has_its_own_parameters(device: Make, dictionaries: dict[str, Path]) -> None:
    pages = text_pages(16, 5)
    sizes = []
    for params in ("priority=2 level=1", f"priority=2 level=19 dict={dictionaries['trained']}"):
        new = device(32, blocks=0, recomp_algorithm="algo=zstd priority=2", algorithm_params=params)
        stored(new, pages)
        attributes.store(new, "recompress", "priority=2")
        assert new.pread(0, 16 * 4096) == b"".join(pages)
        sizes.append(stat(new, "mm_stat")[1])
    assert sizes[1] < 0.8 * sizes[0]


# When they are checked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "OK"),
        ("foo=1", "OK"),
        ("level=3 level=4", "OK"),
        ("level=+3", "OK"),
        ("level=-2147483648", "OK"),
        ("level", "EINVAL"),
        ("level=", "EINVAL"),
        ("foo", "EINVAL"),
        ("level=3 foo", "EINVAL"),
        ("level=foo", "EINVAL"),
        ("level=foo level=3", "EINVAL"),
        ("level=0x3", "EINVAL"),
        ("level=3junk", "EINVAL"),
        ("level=2147483648", "ERANGE"),
        ("level=2147483648 foo", "ERANGE"),
        ("foo level=2147483648", "EINVAL"),
        ("deflate.winbits=foo", "EINVAL"),
        ("deflate.winbits=99999999999", "ERANGE"),
        ("priority=foo", "EINVAL"),
        ("priority=99999999999", "ERANGE"),
        ("priority=4", "EINVAL"),
        ("priority=-1", "EINVAL"),
        ("priority=9 level=1", "EINVAL"),
        ("priority=3 level=1", "OK"),
        ("priority=9 algo=zstd", "OK"),
        ("algo=foo", "EINVAL"),
        ("algo=deflate", "EINVAL"),
        ("dict=/nonexistent", "EINVAL"),
        ("level=99999", "OK"),
    ],
)
def test_what_writing_checks(device: Make, text: str, expected: str) -> None:
    new = device(0, recomp_algorithm="algo=zstd priority=1")
    assert result(new, "algorithm_params", text) == expected


REFUSED = [
    ("lz4", "level=0", "EINVAL"),
    ("lz4", "level=-1", "EINVAL"),
    ("lz4", "deflate.winbits=11", "EOPNOTSUPP"),
    ("lz4hc", "level=0", "EINVAL"),
    ("lz4hc", "level=17", "EINVAL"),
    ("lz4hc", "deflate.winbits=11", "EOPNOTSUPP"),
    ("zstd", "level=23", "EINVAL"),
    ("zstd", "level=-131073", "EINVAL"),
    ("zstd", "deflate.winbits=11", "EOPNOTSUPP"),
    ("deflate", "level=10", "EINVAL"),
    ("deflate", "level=-2", "EINVAL"),
    ("deflate", "deflate.winbits=8", "EINVAL"),
    ("deflate", "deflate.winbits=-16", "EINVAL"),
    ("deflate", "dict=DICT", "EOPNOTSUPP"),
    ("store", "level=1", "EOPNOTSUPP"),
    ("store", "dict=DICT", "EOPNOTSUPP"),
]


@pytest.mark.parametrize("priority", [0, 1, 3])
@pytest.mark.parametrize(("algorithm", "params", "expected"), REFUSED)
def test_a_bad_value_is_refused_at_disksize_and_drops_all_choices(
    device: Make, dictionaries: dict[str, Path], algorithm: str, params: str, expected: str, priority: int
) -> None:
    new = device(0)
    untouched = attributes.show(new, "comp_algorithm")
    assert result(new, "comp_algorithm", algorithm if priority == 0 else "zstd") == "OK"
    assert result(new, "recomp_algorithm", "algo=lz4hc priority=2") == "OK"
    if priority:
        assert result(new, "recomp_algorithm", f"algo={algorithm} priority={priority}") == "OK"
    text = params.replace("DICT", str(dictionaries["raw"]))
    assert result(new, "algorithm_params", f"priority={priority} {text}") == "OK"
    assert result(new, "disksize", "1M") == expected
    assert attributes.show(new, "initstate") == "0\n"
    assert attributes.show(new, "comp_algorithm") == untouched
    assert attributes.show(new, "recomp_algorithm") == ""
    assert result(new, "comp_algorithm", algorithm) == "OK"
    assert result(new, "disksize", "1M") == "OK", "the parameters are forgotten too"


@pytest.mark.parametrize("text", ["level=1", "priority=9", "algo=foo", "dict=/nonexistent", "foo=1", ""])
def test_once_initialised_it_is_busy_whatever_is_asked(device: Make, text: str) -> None:
    assert result(device(8, blocks=0), "algorithm_params", text) == "EBUSY"


@pytest.mark.parametrize(("text", "expected"), [("level", "EINVAL"), ("level=99999999999", "ERANGE")])
def test_but_the_text_is_read_first(device: Make, text: str, expected: str) -> None:
    assert result(device(8, blocks=0), "algorithm_params", text) == expected


def test_they_replace_all_of_the_priority(device: Make) -> None:
    new = device(0, comp_algorithm="deflate")
    assert result(new, "algorithm_params", "level=99 deflate.winbits=99") == "OK"
    assert result(new, "algorithm_params", "level=5") == "OK"
    assert result(new, "disksize", "1M") == "OK"


def test_choosing_an_algorithm_forgets_the_parameters_of_its_priority_only(device: Make) -> None:
    new = device(0, comp_algorithm="zstd", recomp_algorithm="algo=lz4hc priority=1")
    assert result(new, "algorithm_params", "priority=0 level=99") == "OK"
    assert result(new, "algorithm_params", "priority=1 level=99") == "OK"
    assert result(new, "comp_algorithm", "zstd") == "OK"
    assert result(new, "disksize", "1M") == "EINVAL"
    for name, text in (
        ("comp_algorithm", "zstd"),
        ("recomp_algorithm", "algo=lz4hc"),
        ("algorithm_params", "priority=1 level=99"),
        ("recomp_algorithm", "algo=lz4hc"),
        ("disksize", "1M"),
    ):
        assert result(new, name, text) == "OK"


def test_algo_is_the_first_priority_of_that_name(device: Make) -> None:
    new = device(0, comp_algorithm="lz4")
    for priority in (2, 3):
        assert result(new, "recomp_algorithm", f"algo=zstd priority={priority}") == "OK"
    assert result(new, "algorithm_params", "priority=3 algo=zstd level=99") == "OK"
    assert result(new, "recomp_algorithm", "algo=zstd priority=2") == "OK"
    assert result(new, "disksize", "1M") == "OK", "it was priority 2 that had the bad level"


def test_parameters_without_an_algorithm_are_nobodys(device: Make) -> None:
    new = device(0)
    assert result(new, "algorithm_params", "priority=2 level=99999") == "OK"
    assert result(new, "disksize", "1M") == "OK"


def test_reset_forgets_them(device: Make) -> None:
    new = device(0, comp_algorithm="zstd", algorithm_params="level=99")
    assert result(new, "reset", "1") == "OK"
    assert result(new, "comp_algorithm", "zstd") == "OK"
    assert result(new, "disksize", "1M") == "OK"


def test_what_linux_7_3_4_answered(device: Make) -> None:
    """Transcript 01a; the primary algorithm there is lzo-rle, which like store takes no parameters."""
    new = device(0, comp_algorithm="store")
    for name, text, expected in (
        ("recomp_algorithm", "algo=zstd priority=1", "OK"),
        ("recomp_algorithm", "algo=zstd", "OK"),
        ("recomp_algorithm", "algo=foo priority=1", "EINVAL"),
        ("recomp_algorithm", "algo=lz4 priority=0", "EINVAL"),
        ("recomp_algorithm", "algo=lz4 priority=4", "EINVAL"),
        ("recomp_algorithm", "priority=1", "EINVAL"),
        ("recomp_algorithm", "zstd", "EINVAL"),
        ("recomp_algorithm", "algo=deflate priority=3", "OK"),
        ("algorithm_params", "algo=zstd level=8", "OK"),
        ("algorithm_params", "algo=foo level=8", "EINVAL"),
        ("algorithm_params", "priority=0 level=1", "OK"),
        ("algorithm_params", "priority=2 level=1", "OK"),
        ("algorithm_params", "level=foo", "EINVAL"),
        ("algorithm_params", "foo=1", "OK"),
        ("algorithm_params", "level=3", "OK"),
        ("algorithm_params", "priority=9 level=1", "EINVAL"),
        ("disksize", "1M", "EOPNOTSUPP"),
        ("algorithm_params", "level=3", "OK"),
        ("recomp_algorithm", "algo=zstd priority=2", "OK"),
    ):
        assert result(new, name, text) == expected, (name, text)
    assert attributes.show(new, "recomp_algorithm").startswith("#2: ")


@pytest.mark.parametrize(("length", "expected"), [(126, "EINVAL"), (127, "E2BIG"), (128, "E2BIG")])
def test_the_newline_counts_in_the_length_of_a_name(device: Make, length: int, expected: str) -> None:
    new = device(0)
    assert result(new, "comp_algorithm", "a" * length) == expected
    assert result(new, "recomp_algorithm", "algo=" + "a" * (length + 1)) == expected


# Dictionaries ---------------------------------------------------------------------------------------------------------


def test_a_dictionary_is_read_at_once(device: Make, dictionaries: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "a dictionary with blanks"
    file.write_bytes(dictionaries["raw"].read_bytes())
    new = device(0, comp_algorithm="zstd", algorithm_params=f'dict="{file}"')
    file.unlink()
    assert result(new, "disksize", "1M") == "OK"
    pages = text_pages(8, 6)
    assert stored(new, pages) == stored(chosen(device, "zstd", f"dict={dictionaries['raw']}"), pages)


@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "pipe", "device", "below a file"])
def test_a_file_that_is_no_dictionary_is_einval_and_changes_nothing(device: Make, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "below a file":
        (tmp_path / "file").write_bytes(b"1")
        path = tmp_path / "file" / "dict"
    new = device(0, comp_algorithm="zstd", algorithm_params="level=99")
    opened = len(os.listdir("/proc/self/fd"))
    assert result(new, "algorithm_params", f'dict="{path}"') == "EINVAL"
    assert len(os.listdir("/proc/self/fd")) == opened
    assert result(new, "disksize", "1M") == "EINVAL", "the level is still there"


def test_a_damaged_dictionary_is_refused_at_disksize(
    device: Make, dictionaries: dict[str, Path], tmp_path: Path
) -> None:
    whole = dictionaries["trained"].read_bytes()
    file = tmp_path / "damaged"
    file.write_bytes(whole[:8] + bytes(100) + whole[108:])
    new = device(0, comp_algorithm="zstd", algorithm_params=f"dict={file}")
    assert result(new, "disksize", "1M") == "EINVAL"

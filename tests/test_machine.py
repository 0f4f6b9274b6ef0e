"""The device against its model: the hypothesis machine, and random walks that do most of the operations."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from zramcore.interfaces import Catalogue
from zramcore.testing.lockstep import Lockstep
from zramcore.testing.machine import DeviceMachine
from zramcore.testing.walk import Walk

EXAMPLES, STEPS = 50, 40
WALKS = [
    # page size, pages, blocks, algorithm, secondary, allocator, operations
    (4096, 64, 48, "lz4", "zstd", "zsmalloc", 36_000),
    (4096, 64, 48, "lz4", "zstd", "malloc", 30_000),
    (4096, 64, 80, "zstd", None, "zsmalloc", 30_000),
    (4096, 64, 20, "zstd", "lz4hc", "malloc", 24_000),
    (4096, 128, 100, "store", "lz4", "zsmalloc", 12_000),
    (16384, 64, 48, "lz4", "zstd", "zsmalloc", 20_000),
    (16384, 64, 48, "zstd", None, "malloc", 16_000),
    (65536, 16, 12, "lz4", "zstd", "zsmalloc", 4_000),
    (65536, 16, 12, "zstd", "deflate", "malloc", 3_000),
]
WALKED = sum(walk[-1] for walk in WALKS)
THREADED = 24_000
"""Operations of test_threads.py."""


def test_the_count_of_operations_is_what_the_project_promises() -> None:
    hypothesis_at_least = 2_000
    assert WALKED + THREADED + hypothesis_at_least >= 200_000


@pytest.mark.parametrize(
    ("page_size", "pages", "blocks", "algorithm", "secondary", "allocator", "operations"),
    WALKS,
    ids=str,
)
def test_a_random_walk_agrees_with_the_model(
    built_in: Catalogue,
    page_size: int,
    pages: int,
    blocks: int,
    algorithm: str,
    secondary: str | None,
    allocator: str,
    operations: int,
) -> None:
    lockstep = Lockstep(
        built_in,
        page_size=page_size,
        nr_pages=pages,
        blocks=blocks,
        algorithm=algorithm,
        secondary=secondary,
        allocator=allocator,
        deep_every=48,
    )
    try:
        Walk(lockstep, seed=20181122 + page_size + pages + blocks).run(operations)
        assert lockstep.operations >= operations
        assert lockstep.faults_met >= operations // 2000
    finally:
        lockstep.close()


@pytest.mark.parametrize(
    ("algorithm", "secondary", "allocator", "page_size"),
    [("lz4", "zstd", "zsmalloc", 4096), ("zstd", None, "malloc", 4096), ("lz4", "zstd", "zsmalloc", 16384)],
)
def test_the_state_machine_finds_no_difference(
    built_in: Catalogue, algorithm: str, secondary: str | None, allocator: str, page_size: int
) -> None:
    class Machine(DeviceMachine):
        catalogue = built_in

    Machine.algorithm, Machine.secondary = algorithm, secondary
    Machine.allocator, Machine.page_size = allocator, page_size
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Machine.steps_taken >= 1_000


def test_a_machine_without_a_catalogue_says_so() -> None:
    class Forgetful(DeviceMachine):
        pass

    with pytest.raises(TypeError, match="Forgetful must set catalogue"):
        Forgetful().create()


def test_without_hypothesis_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import zramcore.testing.machine"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: zramcore.testing.machine needs hypothesis: pip install 'zramcore[test]'" in done.stderr


def test_the_model_notices_a_changed_byte(built_in: Catalogue) -> None:
    """The comparison can fail: a byte changed behind the device's back is found by the next look."""
    lockstep = Lockstep(built_in, algorithm="store", blocks=8)
    try:
        lockstep.write(0, bytes(range(256)) * 16)
        lockstep.idle(None)
        lockstep.writeback("idle", [(0, 64, "idle")])
        lockstep.driver.poke(0, bytes(range(1, 256)) * 16 + bytes(16))
        with pytest.raises(AssertionError, match="page 0 holds other bytes"):
            lockstep.check()
        with pytest.raises(AssertionError, match="returned other bytes"):
            lockstep.read(0, 4096)
    finally:
        lockstep.close()

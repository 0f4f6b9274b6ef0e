"""Taking turns: who does what when, what counts, and threads that work side by side."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from zramcore.bench.rounds import Contender, Crew, Job, labelled, take_turns


def recorder(log: list[tuple[str, str, int]], side: str) -> Contender:
    def plan(step: int) -> Sequence[Job]:
        log.append(("plan", side, step))
        return [partial(log.append, ("run", side, step))]

    return Contender(
        side,
        plan,
        begin=lambda number: log.append(("begin", side, number)),
        done=lambda step: log.append(("done", side, step)),
    )


def test_sides_take_turns_step_by_step_and_the_first_changes() -> None:
    log: list[tuple[str, str, int]] = []
    contenders = [recorder(log, side) for side in "abc"]
    told: list[str] = []
    take_turns(contenders, 4, 2, told.append)
    runs = [(side, step) for what, side, step in log if what == "run"]
    assert Counter(runs) == {(side, step): 3 for side in "abc" for step in range(4)}
    for start in range(0, len(runs), 3):
        turn = runs[start : start + 3]
        assert {side for side, _ in turn} == set("abc")
        assert len({step for _, step in turn}) == 1
    assert [side for side, _ in runs[::3]] == list("abcabcabcabc")
    assert [log[index + 1] for index, entry in enumerate(log) if entry[0] == "plan"] == [
        ("run", *entry[1:]) for entry in log if entry[0] == "plan"
    ]
    assert [number for what, side, number in log if (what, side) == ("begin", "a")] == [0, 1, 2]
    assert told == ["warming up", "round 1 of 2", "round 2 of 2"]


def test_the_round_that_warms_up_does_not_count() -> None:
    contender = Contender("a", lambda step: [int])
    take_turns([contender], 1, 3)
    assert len(contender.seconds) == 3
    assert all(0 < seconds < 1 for seconds in contender.seconds)


def test_jobs_run_side_by_side_on_threads_that_stay() -> None:
    meeting = threading.Barrier(3)
    idents: list[set[int]] = []

    def job(seen: set[int]) -> None:
        meeting.wait(10)
        seen.add(threading.get_ident())

    with Crew() as crew:
        for _ in range(2):
            seen: set[int] = set()
            crew.time([partial(job, seen)] * 3)
            idents.append(seen)
    assert len(idents[0]) == 3
    assert idents[0] == idents[1]
    assert threading.get_ident() in idents[0]
    assert not [thread for thread in threading.enumerate() if thread.name == "bench"]


@pytest.mark.parametrize("place", [0, 1])
def test_an_error_of_any_thread_is_raised_after_all_have_ended(place: int) -> None:
    ended = []

    def fails() -> None:
        raise OSError("broken")

    jobs: list[Job] = [partial(ended.append, 1), partial(ended.append, 2)]
    jobs[place] = fails
    with Crew() as crew:
        with pytest.raises(OSError, match="broken"):
            crew.time(jobs)
        assert len(ended) == 1
        crew.time([partial(ended.append, 3)] * 2)
    assert len(ended) == 3


def test_a_label_stands_in_front() -> None:
    told: list[str] = []
    labelled(told.append, "read")("round 1")
    assert told == ["read: round 1"]

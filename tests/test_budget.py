"""The write budget: what is charged is what is given back, and it never goes below zero."""

from __future__ import annotations

import threading

import pytest

from zramcore.budget import WriteBudget


def budget(limit: int, enabled: bool = True) -> WriteBudget:
    made = WriteBudget()
    made.set_limit(limit)
    made.enabled = enabled
    return made


def test_a_new_budget_limits_nothing() -> None:
    made = WriteBudget()
    assert not made.exhausted
    assert made.charge(5) == 0
    assert made.limit == 0


@pytest.mark.parametrize(("limit", "units", "taken", "left"), [(10, 4, 4, 6), (4, 4, 4, 0), (3, 4, 3, 0), (0, 4, 0, 0)])
def test_charging(limit: int, units: int, taken: int, left: int) -> None:
    made = budget(limit)
    assert made.charge(units) == taken
    assert made.limit == left
    assert made.exhausted == (left == 0)
    made.refund(taken)
    assert made.limit == limit


def test_a_disabled_budget_is_neither_charged_nor_exhausted() -> None:
    made = budget(0, enabled=False)
    assert not made.exhausted
    made.set_limit(7)
    assert made.charge(3) == 0
    assert made.limit == 7


def test_a_charge_is_given_back_even_when_disabled_meanwhile() -> None:
    made = budget(7)
    taken = made.charge(3)
    made.enabled = False
    made.refund(taken)
    assert made.limit == 7


def test_threads_do_not_lose_units() -> None:
    made = budget(40_000)

    def work() -> None:
        for _ in range(1000):
            made.refund(made.charge(3))
            made.charge(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.limit == 36_000

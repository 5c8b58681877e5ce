"""A budget that holds: what may go out, what it cost in the end, and what is remembered after a crash."""

import asyncio
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from permits import MOST, PRICE, asks, collected, permits
from servers import bought, endpoint, teacher

from pipeline.chat.budget import Budget, Cost, Usage
from pipeline.chat.dispatch import Dispatcher, Report
from pipeline.config import Price
from pipeline.errors import BudgetError, DataError
from pipeline.storage import Place


def test_each_kind_of_token_has_its_price() -> None:
    price = Price(prompt=2, cached_prompt=1, completion=10, reasoning=20)
    assert Usage(100, 50, cached=40, reasoning=30).cost(price) == Cost((60 * 2 + 40 + 20 * 10 + 30 * 20) / 1e6, 150)
    assert Usage(100, 50, cached=40, reasoning=30).cost(Price(prompt=2, completion=10)) == Cost(700 / 1e6, 150)
    assert Usage(100, 50).worst_cost(price) == Cost((100 * 2 + 50 * 20) / 1e6, 150)


async def test_no_more_goes_out_than_the_budget_may_have_to_pay() -> None:
    dispatcher = Dispatcher(endpoint("http://x", price=PRICE, budget_usd=0.05))
    await dispatcher.tell("a", asks(*range(9)), [])
    given = await permits(dispatcher, "a", 4)
    assert [permit.number for permit in given] == [0, 1, 2, 3] and dispatcher.budget.spent.usd == pytest.approx(0.0404)
    assert await collected(dispatcher, "a") == []
    cheap = [Report(permit.number, permit.ticket, "answered", Usage(100, 90)) for permit in given[:2]]  # 0.1 cents each
    await dispatcher.tell("a", [], cheap)
    assert [permit.number for permit in await permits(dispatcher, "a", 1)] == [4, 5]
    await dispatcher.stop()


@pytest.mark.parametrize(
    ("outcome", "used", "cents"),
    [
        ("answered", Usage(100, 500), 0.51),
        ("answered", None, 1.01),  # an answer that does not tell its tokens
        ("unknown", None, 1.01),
        ("limited", None, 0.0),
        ("failed", None, 0.0),
        ("unreachable", None, 0.0),
        ("limited, perhaps billed", None, 1.01),
        ("closed, perhaps billed", None, 1.01),
    ],
)
async def test_what_came_of_a_request_says_what_it_cost(outcome: Any, used: Usage | None, cents: float) -> None:
    dispatcher = Dispatcher(endpoint("http://x", price=PRICE, budget_usd=1.0))
    await dispatcher.tell("a", asks(1), [])
    (permit,) = await permits(dispatcher, "a", 1)
    outcome, _, billed = outcome.partition(", ")
    await dispatcher.tell("a", [], [Report(1, permit.ticket, outcome, used, perhaps_billed=bool(billed))])
    assert dispatcher.budget.spent.usd == pytest.approx(
        cents / 100
    ) and dispatcher.budget.reserved.usd == pytest.approx(0)
    await dispatcher.stop()


async def test_a_budget_in_tokens_holds_too() -> None:
    dispatcher = Dispatcher(endpoint("http://x", budget_tokens=2500))
    await dispatcher.tell("a", asks(1, 2, 3), [])
    given = await permits(dispatcher, "a", 2)
    await dispatcher.tell("a", [], [Report(each.number, each.ticket, "answered", Usage(100, 700)) for each in given])
    (refused,) = await permits(dispatcher, "a", 1)
    assert isinstance(refused.refused, BudgetError) and "budget_tokens 2,500" in str(refused.refused)
    assert "1,600 tokens are spent" in str(refused.refused)
    await dispatcher.stop()


def rows(count: int, most: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {"model": "teacher", "problem": f"{n}?", "content": "4", "completion_tokens": rng.randrange(1, most)}
        for n in range(count)
    ]


async def test_two_clients_spend_one_budget_to_its_end_and_not_beyond() -> None:
    async with teacher(rows(800, 1000), latency_s=0.02) as url:
        settings = endpoint(url, price=PRICE, budget_usd=1.0, max_in_flight=512)
        dispatcher = Dispatcher(settings)
        found = await asyncio.gather(
            bought(settings, dispatcher, range(400)), bought(settings, dispatcher, range(400, 800))
        )
        await dispatcher.stop()
    outcomes = found[0] + found[1]
    answered = [each.reply for each in outcomes if not isinstance(each, Exception)]
    spent = sum((reply.prompt_tokens * 1.0 + reply.completion_tokens * 10.0) / 1e6 for reply in answered)
    assert 0.95 <= spent <= 1.0 and dispatcher.budget.spent.usd == pytest.approx(spent)
    refused = [each for each in outcomes if isinstance(each, Exception)]
    assert len(answered) + len(refused) == 800 and all(isinstance(each, BudgetError) for each in refused)


# --- after a crash --------------------------------------------------------------------------------


def reserved_and_settled() -> tuple[str, str]:
    """Two lines of a budget: two requests go out, and the first is settled at two cents."""
    budget = Budget(1.0, None)
    budget.reserve("t1", "r1", Cost(0.1, 10))
    budget.reserve("t2", "r2", Cost(0.1, 10))
    first = budget.line() or ""
    budget.settle("t1", Cost(0.02, 3))
    return first, budget.line() or ""


FIRST, SECOND = reserved_and_settled()


@pytest.mark.parametrize(
    ("lines", "spent", "unsettled"),
    [
        ([FIRST, SECOND], 0.12, ["r2"]),
        ([FIRST, SECOND[:-3]], 0.2, ["r1", "r2"]),  # a crash cut it
        ([FIRST, "", "[]", "null", SECOND], 0.12, ["r2"]),
        ([SECOND, FIRST], 0.12, ["r2"]),
        ([FIRST, SECOND, FIRST, SECOND], 0.12, ["r2"]),
    ],
)
def test_lines_count_once_in_any_order_and_cut_ones_not_at_all(
    lines: list[str], spent: float, unsettled: list[str]
) -> None:
    budget = Budget(1.0, None)
    budget.replay(lines)
    assert budget.spent.usd == pytest.approx(spent) and list(budget.open_requests()) == unsettled


async def test_a_crash_forgets_nothing_that_may_have_been_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.chat.dispatch.SILENT_S", 0.2)
    settings = endpoint("http://x", price=PRICE, budget_usd=0.05)
    first = Dispatcher(settings, Place(str(tmp_path)))
    await first.tell("a", asks(1, 2, 3, 4), [])
    given = await permits(first, "a", 4)
    await first.tell("a", asks(5), [Report(1, given[0].ticket, "answered", Usage(100, 0))])
    await permits(first, "a", 1)
    # killed here: four are under way
    second = Dispatcher(settings, Place(str(tmp_path)))
    assert sorted(await second.unsettled()) == ["r2", "r3", "r4", "r5"]
    assert second.budget.spent.usd == pytest.approx(4 * 0.0101 + 0.0001)
    await second.tell("b", asks(6), [])
    (refused,) = await permits(second, "b", 1)
    assert isinstance(refused.refused, BudgetError)
    # the answer of one of them was stored before the crash: it is settled by its usage
    (ticket,) = (await second.unsettled())["r2"]
    third = Dispatcher(settings.model_copy(update={"budget_usd": 0.06}), Place(str(tmp_path)))
    await third.tell("c", [], [Report(-1, ticket, "answered", Usage(100, 0))])
    assert third.budget.spent.usd == pytest.approx(3 * 0.0101 + 0.0002)
    await third.tell("c", asks(7, 8), [])
    assert [permit.refused for permit in await permits(third, "c", 2)] == [None, None]
    await third.stop()


async def test_a_journal_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    settings = endpoint("http://x", price=PRICE, budget_usd=1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot use"):
        await Dispatcher(settings, Place(str(tmp_path / "file" / "below"))).tell("a", asks(1, 2), [])
    dispatcher = Dispatcher(settings, Place(str(tmp_path / "budget")))
    await dispatcher.tell("a", asks(1), [])
    await permits(dispatcher, "a", 1)
    shutil.rmtree(tmp_path / "budget")
    await dispatcher.tell("a", asks(2, 3), [])
    async with asyncio.timeout(5):
        refused = [permit.refused for permit in await permits(dispatcher, "a", 2)]
    assert all(isinstance(each, DataError) for each in refused)


async def test_who_takes_over_a_budget_has_it_alone(tmp_path: Path) -> None:
    settings = endpoint("http://x", price=PRICE, budget_usd=0.05)
    first, second = (Dispatcher(settings, Place(str(tmp_path))) for _ in range(2))
    await first.tell("a", asks(1, 2), [])
    assert [permit.refused for permit in await permits(first, "a", 2)] == [None, None]
    await second.tell("b", asks(3, 4), [])
    assert [permit.refused for permit in await permits(second, "b", 2)] == [None, None]
    assert second.budget.spent.usd == pytest.approx(4 * 0.0101)
    await first.tell("a", asks(5), [])
    (refused,) = await permits(first, "a", 1)
    assert isinstance(refused.refused, DataError) and "another process took over" in str(refused.refused)
    await second.stop()


async def test_a_new_dispatcher_waits_for_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.chat.dispatch.SILENT_S", 1.5)
    settings = endpoint("http://x", price=PRICE, budget_usd=0.045)
    first, second = (Dispatcher(settings, Place(str(tmp_path))) for _ in range(2))
    await first.tell("a", asks(1, 2, 3, 4), [])
    given = await permits(first, "a", 4)
    await second.tell("a", asks(5), [])
    assert await collected(second, "a") == []
    await second.tell("a", [], [Report(each.number, each.ticket, "answered", Usage(100, 90)) for each in given[:1]])
    (permit,) = await permits(second, "a", 1)
    assert permit.refused is None
    await second.tell("a", asks(6), [Report(5, permit.ticket, "answered", MOST)])
    async with asyncio.timeout(10):
        (refused,) = await permits(second, "a", 1)
    assert isinstance(refused.refused, BudgetError), "nobody has told of the other three"
    await second.stop()

"""The inbox of the committer: order, turns, growth, the end, and what a ticket tells."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stores.kit import DEADLINE_SECONDS, StatementWork
from treadle_server.stores.sqlite.inbox import UNITS_MAX, Inbox, WorkTicket

CLOSED = RuntimeError("closed")


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def put(inbox: Inbox, *, background: bool = False) -> WorkTicket:
    """Another ticket, found by its work."""
    ticket = WorkTicket(StatementWork([]), background=background)
    assert inbox.put(ticket, ticket.work) is None
    return ticket


def after_a_turn_of_the_background() -> Inbox:
    """The next one is not due for a second."""
    inbox = Inbox()
    turn = put(inbox, background=True)
    assert inbox.take(0) == [turn]
    return inbox


def test_the_foreground_is_taken_in_order_and_as_a_whole() -> None:
    inbox = Inbox()
    tickets = [put(inbox) for _ in range(5)]

    assert inbox.take(0) == tickets
    assert (inbox.take(0), len(inbox)) == ([], 0)


@pytest.mark.parametrize("more", [0, 1, 3])
def test_no_more_is_taken_at_once_than_there_is_a_limit_for(more: int) -> None:
    inbox = Inbox()
    tickets = [put(inbox) for _ in range(UNITS_MAX + more)]

    assert inbox.take(0) == tickets[:UNITS_MAX]
    assert len(inbox) == more
    assert inbox.take(0) == tickets[UNITS_MAX:]


def test_the_background_is_taken_one_by_one_behind_the_foreground() -> None:
    inbox = after_a_turn_of_the_background()
    background = [put(inbox, background=True) for _ in range(2)]
    foreground = [put(inbox) for _ in range(2)]
    assert len(inbox) == 4

    assert inbox.take_background() == []
    taken = [inbox.take(0) for _ in range(4)]

    assert taken == [foreground, background[:1], background[1:], []]


def test_more_of_the_background_is_taken_while_the_foreground_is_empty() -> None:
    inbox = after_a_turn_of_the_background()
    first, second = put(inbox, background=True), put(inbox, background=True)

    assert [inbox.take_background() for _ in range(3)] == [[first], [second], []]


def test_a_turn_of_the_background_puts_off_the_next_one() -> None:
    inbox = Inbox()
    first, second = put(inbox, background=True), put(inbox, background=True)
    foreground = put(inbox)

    assert [inbox.take(0) for _ in range(3)] == [[first], [foreground], [second]]


def test_work_grows_until_it_is_taken_and_only_in_the_foreground() -> None:
    inbox = Inbox()
    first, background, never = put(inbox), put(inbox, background=True), StatementWork([])
    grown: list[str] = []

    assert inbox.extend(first.work, lambda: grown.append("first"))
    assert not inbox.extend(background.work, lambda: grown.append("background"))
    assert not inbox.extend(never, lambda: grown.append("never"))
    while inbox.take(0):
        pass
    assert not inbox.extend(first.work, lambda: grown.append("late"))

    assert grown == ["first"]


def test_the_same_work_cannot_wait_twice() -> None:
    inbox = Inbox()
    ticket = put(inbox)

    with pytest.raises(AssertionError, match="submitted twice"):
        inbox.put(WorkTicket(ticket.work), ticket.work)

    assert inbox.take(0) == [ticket]
    assert inbox.put(ticket, ticket.work) is None


def test_a_closed_inbox_takes_nothing_more_and_gives_what_it_has() -> None:
    inbox = Inbox()
    foreground, background = put(inbox), put(inbox, background=True)

    inbox.close(CLOSED)

    assert inbox.put(WorkTicket(StatementWork([])), object()) is CLOSED
    assert {*(inbox.take(0) or ()), *(inbox.take(0) or ())} == {foreground, background}
    assert inbox.take(0) is None
    assert inbox.take() is None


def test_what_is_left_is_drained_the_foreground_first() -> None:
    inbox = Inbox()
    background, foreground = put(inbox, background=True), put(inbox)

    assert inbox.drain() == [foreground, background]
    assert (inbox.drain(), inbox.take(0), len(inbox)) == ([], [], 0)


@pytest.mark.parametrize("background", [False, True])
def test_who_waits_is_woken_by_the_next_work_every_time(
    other_thread: ThreadPoolExecutor, *, background: bool
) -> None:
    inbox = Inbox()
    for _ in range(3):
        taking = other_thread.submit(inbox.take, DEADLINE_SECONDS)
        ticket = put(inbox, background=background)

        assert taking.result(DEADLINE_SECONDS) == [ticket]


def test_who_waits_is_woken_by_the_end(other_thread: ThreadPoolExecutor) -> None:
    inbox = Inbox()
    taking = other_thread.submit(inbox.take)

    inbox.close(CLOSED)

    assert taking.result(DEADLINE_SECONDS) is None


async def test_a_ticket_tells_everybody_who_waits_and_who_comes_later() -> None:
    ticket = WorkTicket(StatementWork([]))
    assert (ticket.done, ticket.error, ticket.answer, ticket.background) == (False, None, None, False)
    waits = [asyncio.ensure_future(ticket.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.sleep(0)
    assert not ticket.done

    ticket.resolve()

    assert await asyncio.gather(*waits[1:]) == [None, None]
    assert waits[0].cancelled()
    assert ticket.done
    await ticket.wait()


async def test_a_ticket_raises_its_error_to_everybody_without_collecting_their_frames() -> None:
    ticket = WorkTicket(StatementWork([]))
    ticket.error = CLOSED
    ticket.resolve()

    depths = []
    for _ in range(3):
        with pytest.raises(RuntimeError, match="closed") as caught:
            await ticket.wait()
        assert caught.value is CLOSED
        depths.append(len(caught.traceback))

    assert depths == depths[:1] * 3


def test_a_ticket_that_is_done_keeps_no_statements() -> None:
    ticket = WorkTicket(StatementWork([]))
    ticket.statements = [object()]  # type: ignore[list-item]

    ticket.resolve()

    assert not ticket.statements

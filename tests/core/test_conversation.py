"""What was said in a session: told from events, and recalled by the next thread."""

import pytest

from tests.core.histories import REFERENCE, SECOND, History, model_in_flight, spec
from treadle_server.core import events as e
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.conversation import RECALLED_BYTES_MAX, message_of, recalled
from treadle_server.core.decide import DEBOUNCES_MAX, decide, wants_history
from treadle_server.core.errors import Reason
from treadle_server.core.evolve import fold
from treadle_server.core.kinds import Role, ThreadState
from treadle_server.core.objects import fits, reaches
from treadle_server.core.spec import Spec
from treadle_server.core.state import State
from treadle_server.core.transcript import ContextEntry, ModelEntry, RecalledEntry, TranscriptFold, UserEntry
from treadle_server.core.values import Content, Context, Message

RECALLING = spec(history_messages_max=3)


def said(number: int, text: str = "") -> Message:
    return Message("threads/t", number, Role.USER, Content(text or f"message {number}"), number)


def in_session(its_spec: Spec = RECALLING, **fields: object) -> History:
    history = History(its_spec)
    history.ask(s.Create, spec=REFERENCE, input=Content("hello"), session="sessions/s", **fields)
    return history


def transcript(history: History) -> list[object]:
    found = TranscriptFold()
    for event in history.events:
        found.apply(event)
    return list(found.transcript.entries)


def test_inputs_and_answers_are_what_was_said() -> None:
    history = model_in_flight().reply("42")

    found = [message_of("threads/t", event) for event in history.events]

    assert [(each.role, each.content.text, each.sequence) for each in found if each is not None] == [
        (Role.USER, "hello", 2),
        (Role.AGENT, "42", history.events[-1].sequence),
    ]


def test_a_question_is_said_by_the_agent_and_its_answer_by_the_user() -> None:
    asked = e.Event(7, 5, 1, e.QuestionAsked("c", "Which colour?"))
    answered = e.Event(8, 6, 1, e.InputReceived(Content("Blue."), "c"))

    messages = [message_of("threads/t", event) for event in (asked, answered)]

    assert messages == [
        Message("threads/t", 7, Role.AGENT, Content("Which colour?"), 5),
        Message("threads/t", 8, Role.USER, Content("Blue."), 6),
    ]


def test_a_thread_that_ended_without_a_word_says_nothing() -> None:
    ended = e.Event(9, 5, 1, e.ThreadEnded(ThreadState.CANCELLED, 3))  # type: ignore[arg-type]

    assert message_of("threads/t", ended) is None


def test_the_newest_messages_are_recalled_oldest_first() -> None:
    newest_first = [said(number) for number in (5, 4, 3, 2)]

    assert recalled(newest_first, 3) == e.HistoryRecalled((said(3), said(4), said(5)), older_left_out=True)
    assert recalled(newest_first, 4) == e.HistoryRecalled(tuple(reversed(newest_first)))
    assert recalled([], 3) is None


@pytest.mark.parametrize("character", ["x", "\N{SNOWMAN}"])
def test_a_history_stops_before_it_is_too_large(character: str) -> None:
    count, rest = divmod(RECALLED_BYTES_MAX, len(character.encode()))
    large = said(2, character * count + "z" * rest)

    assert recalled([large, said(1, "y")], 9) == e.HistoryRecalled((large,), older_left_out=True)
    assert recalled([said(3, "y"), large, said(1, "y")], 9) == e.HistoryRecalled((said(3, "y"),), True)
    too_large = said(2, character * (count + 1))
    assert recalled([too_large], 9) == e.HistoryRecalled((), older_left_out=True)


def test_a_thread_of_a_session_wants_its_history_until_it_has_begun() -> None:
    history = in_session()
    assert wants_history(history.state)

    history.ask(o.HistoryRead, history=e.HistoryRecalled((said(1),)))

    assert not wants_history(history.state)
    assert (
        history.refusal(o.HistoryRead, history=e.HistoryRecalled(())).reason is Reason.THREAD_STATE_CONFLICT
    )
    begun = in_session().begin()
    assert not wants_history(begun.state)
    assert begun.refusal(o.HistoryRead, history=e.HistoryRecalled(())).reason is Reason.THREAD_STATE_CONFLICT
    ended = in_session()
    ended.ask(s.Cancel)
    assert not wants_history(ended.state)


def test_without_a_session_or_by_its_agents_wish_a_thread_wants_no_history() -> None:
    alone = History(RECALLING).create()
    without = in_session(spec(history_messages_max=0))

    assert not wants_history(alone.state)
    assert not wants_history(without.state)
    assert not wants_history(State(RECALLING))


def test_the_model_is_told_context_history_and_input_in_this_order() -> None:
    history = in_session(context=Context("Be brief.", "It rains."))
    answered = Message("threads/t", 9, Role.AGENT, Content("Hi."), 2)
    history.ask(o.HistoryRead, history=e.HistoryRecalled((said(1), answered)))
    assert transcript(history) == []

    history.turn("", "look").begin().tool("call-1-1").begin()

    assert transcript(history)[:5] == [
        ContextEntry("Be brief."),
        RecalledEntry(Role.USER, said(1).content),
        RecalledEntry(Role.AGENT, answered.content),
        ContextEntry("It rains."),
        UserEntry(Content("hello")),
    ]
    assert [type(entry) for entry in transcript(history)].count(ContextEntry) == 2
    assert any(isinstance(entry, ModelEntry) for entry in transcript(history))


def test_what_the_model_is_told_is_the_same_after_every_crash() -> None:
    history = in_session(context=Context("Be brief."))
    history.ask(o.HistoryRead, history=e.HistoryRecalled((said(1),)))
    history.begin()

    assert fold(State(RECALLING), history.events) == history.state
    assert transcript(history) == transcript(history)


def test_a_thread_begins_once_no_input_came_for_a_while() -> None:
    history = in_session(spec(input_debounce_micros=10 * SECOND))
    created = history.now

    def begins_at() -> int:
        (command,) = decide(history.state)
        return command.not_before - created

    assert begins_at() == 10 * SECOND
    history.at(created + 4 * SECOND).ask(s.SendInput, content=Content("more"))
    assert begins_at() == 14 * SECOND
    history.at(created + 49 * SECOND).ask(s.SendInput, content=Content("and more"))
    assert begins_at() == DEBOUNCES_MAX * 10 * SECOND


def test_only_the_first_turn_of_a_session_waits() -> None:
    waiting = spec(input_debounce_micros=10 * SECOND)
    alone = History(waiting).create()
    later = in_session(waiting).turn("", "look").begin().tool("call-1-1")

    for history in (alone, later):
        assert {command.not_before for command in decide(history.state)} == {0}


@pytest.mark.parametrize(
    ("pattern", "parent_object", "wanted"),
    [
        ("account/17", "account/17", True),
        ("account/17", "account/170", False),
        ("account/*", "account/17", True),
        ("account/*", "account/", True),
        ("account/*", "accounts/17", False),
        ("account/*", "", False),
    ],
)
def test_a_pattern_fits_an_object_or_all_of_a_type(pattern: str, parent_object: str, wanted: bool) -> None:
    assert fits(pattern, parent_object) is wanted


def test_who_has_no_patterns_reaches_everything() -> None:
    assert reaches((), "")
    assert reaches((), "account/17")
    assert not reaches(("account/17",), "")
    assert reaches(("order/1", "account/*"), "account/17")

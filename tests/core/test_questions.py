"""What is put to people and to callers, since when, and who gave the result."""

from tests.core.histories import History, created, payloads
from treadle_server.core import events as e
from treadle_server.core import signals as s
from treadle_server.core.values import ProposedCall

ASKED = ProposedCall("ask", '{"answer_schema":{"type":"integer"},"question":"How many?"}')


def asking(*calls: ProposedCall) -> History:
    return created().begin().reply("", calls=calls)


def test_a_question_says_what_is_asked_and_what_an_answer_must_be() -> None:
    history = asking(ASKED)

    assert payloads(history, e.QuestionAsked) == [
        e.QuestionAsked("call-1-1", "How many?", '{"type":"integer"}')
    ]


def test_an_approved_question_is_the_one_that_was_approved() -> None:
    history = asking(ProposedCall("ask_boss", ASKED.arguments_json))

    history.approve("call-1-1", edited_arguments_json='{"question":"How many at most?"}')

    assert payloads(history, e.QuestionAsked) == [e.QuestionAsked("call-1-1", "How many at most?", "")]


def test_a_call_waits_since_it_waits_for_whom_it_waits_for_now() -> None:
    history = created().turn("", "ask", "ask_boss", "delete_file", "open_file")
    began = history.now

    history.at(began + 60).approve("call-1-2")
    history.at(began + 120).approve("call-1-3")

    assert [call.since - began for call in history.state.calls.values()] == [0, 60, 120, 0]


def test_a_clients_result_says_who_gave_it_and_a_tools_does_not() -> None:
    history = created().turn("", "look", "open_file").begin().tool("call-1-1", "seen")

    history.ask(s.SubmitToolResult, tool_call_id="call-1-2", observation="text", principal="users/bob")

    completed = payloads(history, e.ToolCallCompleted)
    assert [(each.observation, each.principal) for each in completed] == [("seen", ""), ("text", "users/bob")]

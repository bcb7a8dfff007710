"""Agents: what of them is behaviour, and what a thread is pinned to."""

from dataclasses import fields, replace
from typing import Any

from treadle_server.core.agent import HISTORY_MESSAGES, AgentDefinition, SessionPolicy
from treadle_server.core.approvals import ApprovalPolicy, ApprovalRule
from treadle_server.core.documents import Document, with_documents
from treadle_server.core.kinds import Effect, UnknownPolicy
from treadle_server.core.memory import MemoryRule
from treadle_server.core.spec import Limits, ModelSettings, ToolSpec

BEHAVIOUR: dict[str, Any] = {
    "model": "scripted:other",
    "model_settings": ModelSettings(temperature=0.5),
    "instructions": "Be brief.",
    "tool_groups": ("toolGroups/builtin",),
    "enabled_tools": ("calculator",),
    "subagents": ("agents/expert",),
    "input_schema_json": '{"type":"object"}',
    "output_schema_json": '{"type":"string"}',
    "limits": Limits(max_iterations=3),
    "approval_policy": ApprovalPolicy((ApprovalRule("pay*", approvers_needed=2),)),
    "on_unknown_outcome": UnknownPolicy.FAIL,
    "session_policy": SessionPolicy(history_messages_max=3, input_debounce_micros=7),
    "documents": (Document("Rules", "Be kind."),),
    "memory_rules": (MemoryRule("user:{subject.id}"),),
}
LOOKS: dict[str, Any] = {
    "display_name": "Other",
    "description": "Another one.",
    "image_uri": "https://example.com/other.png",
    "labels": {"team": "other"},
    "disabled": True,
}
PLAIN = AgentDefinition("demo:react")
TOOL = ToolSpec("send", "builtin/send", "Sends.", "{}", Effect.AT_MOST_ONCE)


def test_every_field_of_an_agent_is_either_behaviour_or_looks() -> None:
    assert {field.name for field in fields(AgentDefinition)} == BEHAVIOUR.keys() | LOOKS.keys()


def test_an_agent_takes_over_the_behaviour_of_another_and_keeps_its_looks() -> None:
    mine = replace(PLAIN, **LOOKS)
    other = replace(PLAIN, **BEHAVIOUR)

    assert mine.behaving_like(other) == replace(PLAIN, **LOOKS, **BEHAVIOUR)
    assert other.behaving_like(mine) == PLAIN


def test_a_thread_is_pinned_to_all_that_the_loop_reads() -> None:
    spec = replace(PLAIN, **BEHAVIOUR).spec("agents/a/versions/7", (TOOL,))

    assert spec.agent_version == "agents/a/versions/7"
    assert spec.tools == (TOOL,)
    assert spec.tool_by_name == {"send": TOOL}
    assert spec.settings == BEHAVIOUR["model_settings"]
    assert (spec.history_messages_max, spec.input_debounce_micros) == (3, 7)
    assert PLAIN.spec("agents/a/versions/7", ()).history_messages_max == HISTORY_MESSAGES
    assert spec.approval_rules == BEHAVIOUR["approval_policy"].rules
    assert spec.instructions == with_documents("Be brief.", BEHAVIOUR["documents"])
    for name in ("model", "limits", "on_unknown_outcome", "output_schema_json"):
        assert getattr(spec, name) == BEHAVIOUR[name]


def test_an_agent_without_settings_has_those_of_the_provider() -> None:
    assert PLAIN.spec("agents/a/versions/1", ()).settings == ModelSettings()


def test_documents_stand_after_the_instructions_in_their_order() -> None:
    documents = (Document("Prices", "A costs 1."), Document("Hours", "9 to 5."))

    text = with_documents("Be brief.", documents)

    assert text.startswith("Be brief.\n\n")
    assert text.index("# Prices\n\nA costs 1.") < text.index("# Hours\n\n9 to 5.")
    assert with_documents("Be brief.", ()) == "Be brief."
    assert not with_documents("", documents).startswith("\n")

"""Agents: what of them is behaviour, and what a thread is pinned to."""

from dataclasses import fields, replace
from typing import Any

from treadle_server.core.agent import AgentDefinition
from treadle_server.core.kinds import Effect, UnknownPolicy
from treadle_server.core.spec import Limits, ModelSettings, ToolSpec

BEHAVIOUR: dict[str, Any] = {
    "model": "scripted:other",
    "model_settings": ModelSettings(temperature=0.5),
    "instructions": "Be brief.",
    "tool_groups": ("toolGroups/builtin",),
    "enabled_tools": ("calculator",),
    "input_schema_json": '{"type":"object"}',
    "output_schema_json": '{"type":"string"}',
    "limits": Limits(max_iterations=3),
    "on_unknown_outcome": UnknownPolicy.FAIL,
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
    for name in ("model", "instructions", "limits", "on_unknown_outcome", "output_schema_json"):
        assert getattr(spec, name) == BEHAVIOUR[name]


def test_an_agent_without_settings_has_those_of_the_provider() -> None:
    assert PLAIN.spec("agents/a/versions/1", ()).settings == ModelSettings()

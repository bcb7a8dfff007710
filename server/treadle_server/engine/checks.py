"""What people and callers give to a thread, checked against the schemas of its newest state."""

from collections.abc import Callable

from treadle_server.core import signals as s
from treadle_server.core.accept import Ask
from treadle_server.core.errors import invalid
from treadle_server.core.evolve import approval_call
from treadle_server.core.kinds import Decision
from treadle_server.core.questions import question_of
from treadle_server.core.state import State
from treadle_server.core.values import Content
from treadle_server.ports.schemas import Schemas
from treadle_server.ports.tools import Toolbox

Check = Callable[[State, Ask], None]
"""Asked just before `accept`, on the same state. Raises Refused(FIELD_INVALID) naming the request's field."""


class Checks:
    """A `Check`. What the state does not allow at all is left to `accept`, which says so."""

    def __init__(self, schemas: Schemas, toolbox: Toolbox) -> None:
        self._schemas = schemas
        self._toolbox = toolbox

    def __call__(self, state: State, ask: Ask) -> None:
        match ask:
            case s.SendInput(tool_call_id=call_id, content=content) if call_id:
                self._answer(state, call_id, content)
            case s.SubmitToolResult(ok=True):
                self._result(state, ask)
            case s.Decide(decision=Decision.APPROVE) if ask.edited_arguments_json:
                self._arguments(state, ask)

    def _answer(self, state: State, call_id: str, content: Content) -> None:
        call = state.calls.get(call_id)
        if call is None or not call.open or not call.asked:
            return
        _, schema_json = question_of(call.arguments_json)
        if not schema_json:
            return
        if not content.data_json:
            raise invalid(("input.data_json", "the question's answer_schema_json asks for JSON data"))
        problem = self._schemas.problem(schema_json, content.data_json)
        if problem:
            raise invalid(("input.data_json", f"does not fit the question's answer_schema_json: {problem}"))

    def _result(self, state: State, ask: s.SubmitToolResult) -> None:
        call = state.calls.get(ask.tool_call_id)
        if call is None or not call.open or not call.client or call.gated:
            return
        tool = state.tool(call.name)
        if tool is None or not tool.result_schema_json:
            return
        problem = self._schemas.problem(tool.result_schema_json, ask.observation)
        if problem:
            raise invalid(("result_json", f"does not fit the tool's result_schema_json: {problem}"))

    def _arguments(self, state: State, ask: s.Decide) -> None:
        call = approval_call(state, ask.approval_id)
        if call is None or not call.gated:
            return
        tool = state.tool(call.name)
        problem = None if tool is None else self._toolbox.problem(tool, ask.edited_arguments_json)
        if problem:
            raise invalid(("arguments_json", problem))

"""Whether this server can run an agent."""

from treadle_server.core.agent import AgentDefinition
from treadle_server.core.errors import FieldViolation, Reason, Refused, invalid
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.model import Models
from treadle_server.ports.schemas import Schemas
from treadle_server.ports.tools import Toolbox


class AgentChecks:
    """Asks models, tools and schemas; calls nothing outside."""

    def __init__(self, models: Models, toolbox: Toolbox, schemas: Schemas) -> None:
        self._models = models
        self._toolbox = toolbox
        self._schemas = schemas

    def check(self, definition: AgentDefinition) -> None:
        """Raises Refused with every field that this server cannot run an agent with."""
        faults: list[Refused] = []
        for look in (self._model, self.tools, self._schema_texts):
            try:
                look(definition)
            except Refused as refused:
                faults.append(refused)
        if faults:
            raise _together(faults)

    def tools(self, definition: AgentDefinition) -> tuple[ToolSpec, ...]:
        """What the agent may call. Raises Refused(FIELD_INVALID) for what is not there."""
        return self._toolbox.resolve(definition.tool_groups, definition.enabled_tools)

    def _model(self, definition: AgentDefinition) -> None:
        model, name = self._models.find(definition.model)
        problem = model.problem(name)
        if problem is not None:
            raise invalid(("agent.model", problem))

    def _schema_texts(self, definition: AgentDefinition) -> None:
        texts = {
            "agent.input_schema_json": definition.input_schema_json,
            "agent.output_schema_json": definition.output_schema_json,
        }
        problems = [
            (field, problem)
            for field, text in texts.items()
            if text and (problem := self._schemas.schema_problem(text)) is not None
        ]
        if problems:
            raise invalid(*problems)


def _together(faults: list[Refused]) -> Refused:
    """One refusal with the violations of all; FIELD_INVALID goes before NOT_SUPPORTED."""
    first = min(faults, key=lambda fault: fault.reason is not Reason.FIELD_INVALID)
    violations: tuple[FieldViolation, ...] = tuple(v for fault in faults for v in fault.violations)
    text = "; ".join(fault.message for fault in faults)
    return Refused(first.reason, text, metadata=first.metadata, violations=violations)

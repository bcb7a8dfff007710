"""Whether this server can run an agent."""

from treadle_server.core.agent import AgentDefinition
from treadle_server.core.errors import FieldViolation, Reason, Refused, invalid
from treadle_server.core.memory import template_problem
from treadle_server.core.spec import ToolSpec
from treadle_server.ports.model import Models
from treadle_server.ports.predicates import Predicates
from treadle_server.ports.schemas import Schemas
from treadle_server.ports.tools import MemoryTools, Toolbox


class AgentChecks:
    """Asks models, tools and schemas; calls nothing outside."""

    def __init__(
        self,
        models: Models,
        toolbox: Toolbox,
        schemas: Schemas,
        predicates: Predicates,
        memory_tools: MemoryTools,
    ) -> None:
        self._models = models
        self._toolbox = toolbox
        self._schemas = schemas
        self._predicates = predicates
        self._memory_tools = memory_tools

    def check(self, definition: AgentDefinition) -> None:
        """Raises Refused with every field that this server cannot run an agent with."""
        faults: list[Refused] = []
        for look in (self._model, self.tools, self._schema_texts, self._approval_rules, self._memory_rules):
            try:
                look(definition)
            except Refused as refused:
                faults.append(refused)
        if faults:
            raise _together(faults)

    def tools(self, definition: AgentDefinition) -> tuple[ToolSpec, ...]:
        """What the agent may call. Raises Refused(FIELD_INVALID) for what is not there."""
        tools = self._toolbox.resolve(definition.tool_groups, definition.enabled_tools)
        return (*tools, *self._memory_tools.of_memory(definition.memory_rules))

    def _model(self, definition: AgentDefinition) -> None:
        model, name = self._models.find(definition.model)
        problem = model.problem(name)
        if problem is not None:
            raise invalid(("agent.model", problem))

    def _approval_rules(self, definition: AgentDefinition) -> None:
        rules = definition.approval_policy.rules if definition.approval_policy is not None else ()
        problems = [
            (f"agent.approval_policy.rules[{index}].argument_predicate", problem)
            for index, rule in enumerate(rules)
            if rule.argument_predicate
            and (problem := self._predicates.problem(rule.argument_predicate)) is not None
        ]
        if problems:
            raise invalid(*problems)

    def _memory_rules(self, definition: AgentDefinition) -> None:
        problems: list[tuple[str, str]] = []
        aliases: set[str] = set()
        for index, rule in enumerate(definition.memory_rules):
            problem = template_problem(rule.namespace)
            if problem is not None:
                problems.append((f"agent.memory_rules[{index}].namespace", problem))
            if rule.alias in aliases:
                problems.append((f"agent.memory_rules[{index}].alias", f"{rule.alias} is another rule's"))
            aliases.add(rule.alias)
        if problems:
            raise invalid(*problems)

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

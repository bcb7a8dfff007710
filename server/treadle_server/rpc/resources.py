"""Agents, versions and keys as messages and back."""

from dataclasses import replace

from treadle.v1 import agent_pb2, api_key_pb2, backup_pb2, tenant_pb2
from treadle_server.core.agent import Agent, AgentDefinition, AgentVersion, ApiKey, SessionPolicy
from treadle_server.core.approvals import ApprovalPolicy
from treadle_server.core.kinds import MemoryAccess, UnknownPolicy
from treadle_server.core.memory import DEFAULT_ALIAS, MemoryRule
from treadle_server.core.spec import Limits, ModelSettings
from treadle_server.core.tenant import Tenant
from treadle_server.services.backups import Backup
from treadle_server.wire.messages import from_message, to_message

_DEFAULT = Limits()


class AgentMessages:
    """Implements `services.agent_reader.AgentCodec`."""

    def encode(self, definition: AgentDefinition) -> bytes:
        message = agent_pb2.Agent()
        to_message(definition, message)
        return message.SerializeToString(deterministic=True)

    def decode(self, body: bytes) -> AgentDefinition:
        return definition_of(agent_pb2.Agent.FromString(body))

    def answer(self, agent: Agent) -> bytes:
        return agent_message(agent).SerializeToString()


class KeyMessages:
    """Implements `services.keys.KeyCodec`."""

    def answer(self, api_key: ApiKey) -> bytes:
        return key_message(api_key).SerializeToString()


class BackupMessages:
    """Implements `services.backups.BackupCodec`."""

    def answer(self, backup: Backup) -> bytes:
        return backup_message(backup).SerializeToString()


class TenantMessages:
    """Implements `services.tenants.TenantCodec`."""

    def answer(self, tenant: Tenant) -> bytes:
        return tenant_message(tenant).SerializeToString()


def definition_of(message: agent_pb2.Agent) -> AgentDefinition:
    """What a caller wants an agent to be, with defaults where nothing is said."""
    definition = from_message(AgentDefinition, message)
    settings = definition.model_settings
    return replace(
        definition,
        model_settings=None if settings == ModelSettings() else settings,
        approval_policy=definition.approval_policy if _has_rules(definition.approval_policy) else None,
        limits=_with_defaults(definition.limits),
        on_unknown_outcome=definition.on_unknown_outcome or UnknownPolicy.TELL_MODEL,
        memory_rules=tuple(map(_with_rule_defaults, definition.memory_rules)),
        session_policy=None if definition.session_policy == SessionPolicy() else definition.session_policy,
    )


def _has_rules(policy: ApprovalPolicy | None) -> bool:
    return policy is not None and bool(policy.rules)


def agent_message(agent: Agent) -> agent_pb2.Agent:
    message = agent_pb2.Agent()
    to_message(agent.definition, message)
    to_message(agent, message)
    return message


def version_message(version: AgentVersion) -> agent_pb2.AgentVersion:
    message = agent_pb2.AgentVersion()
    to_message(version, message)
    snapshot = message.snapshot
    to_message(version.definition, snapshot)
    snapshot.name = version.name.partition("/versions/")[0]
    snapshot.version = version.version
    return message


def key_message(api_key: ApiKey) -> api_key_pb2.ApiKey:
    message = api_key_pb2.ApiKey()
    to_message(api_key, message)
    return message


def tenant_message(tenant: Tenant) -> tenant_pb2.Tenant:
    message = tenant_pb2.Tenant()
    to_message(tenant, message)
    return message


def backup_message(backup: Backup) -> backup_pb2.Backup:
    message = backup_pb2.Backup()
    to_message(backup, message)
    return message


def _with_rule_defaults(rule: MemoryRule) -> MemoryRule:
    access = rule.access or MemoryAccess.READ_WRITE
    return replace(rule, alias=rule.alias or DEFAULT_ALIAS, access=access)


def _with_defaults(limits: Limits) -> Limits:
    """0 means the default."""
    return Limits(
        max_iterations=limits.max_iterations or _DEFAULT.max_iterations,
        max_tool_calls=limits.max_tool_calls or _DEFAULT.max_tool_calls,
        max_input_tokens=limits.max_input_tokens or _DEFAULT.max_input_tokens,
        timeout_micros=limits.timeout_micros or _DEFAULT.timeout_micros,
        max_lifetime_micros=limits.max_lifetime_micros or _DEFAULT.max_lifetime_micros,
        max_concurrent_threads=limits.max_concurrent_threads,
        max_starts=limits.max_starts,
        start_interval_micros=limits.start_interval_micros,
        max_depth=limits.max_depth or _DEFAULT.max_depth,
        max_children=limits.max_children or _DEFAULT.max_children,
    )

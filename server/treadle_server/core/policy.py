"""Rules with numbers in them: retries, verdicts, digests."""

import hashlib

from treadle_server.core.approvals import ApprovalRule
from treadle_server.core.json_text import JsonTextError, canonical
from treadle_server.core.kinds import Verdict
from treadle_server.core.spec import SECOND_MICROS, ToolSpec
from treadle_server.core.values import Content, ProposedCall

MODEL_ATTEMPTS_MAX = 5
BACKOFF_FIRST_MICROS = SECOND_MICROS // 2
BACKOFF_MAX_MICROS = 30 * SECOND_MICROS
RETRY_AFTER_MAX_MICROS = 120 * SECOND_MICROS
REJECTIONS_MAX = 3
CALLS_PER_TURN_MAX = 32
INPUTS_MAX = 100
EXPIRING_MICROS_MAX = 300 * SECOND_MICROS


def backoff(attempt: int, jitter: float, retry_after_micros: int | None) -> int:
    """How long to wait after a failed attempt, micros.

    Exponential from half a second, at most 30 s, of which half is jitter. What the other side asked for is
    obeyed, up to two minutes.
    """
    step = min(BACKOFF_MAX_MICROS, BACKOFF_FIRST_MICROS << min(attempt - 1, 16))
    delay = step // 2 + int(step / 2 * jitter)
    if retry_after_micros is None:
        return delay
    return max(delay, min(retry_after_micros, RETRY_AFTER_MAX_MICROS))


def verdict(tool: ToolSpec | None, call: ProposedCall) -> Verdict:
    """What to do about a proposed call."""
    if tool is None or call.problem:
        return Verdict.INVALID
    if gate(tool, call) is not None:
        return Verdict.NEEDS_APPROVAL
    if tool.client or tool.asks:
        return Verdict.CLIENT
    return Verdict.ALLOWED


def gate(tool: ToolSpec, call: ProposedCall) -> ApprovalRule | None:
    """The rule by which people must approve a call: the agent's, else the tool's own. None: nobody need."""
    rule = call.rule
    if rule is None:
        lifetime = tool.approval_lifetime_micros
        rule = ApprovalRule(approvers_needed=tool.approvers_needed, expire_after_micros=lifetime)
    return rule if rule.approvers_needed else None


def expiring_at(create_time: int, expire_time: int) -> int:
    """When people are to be told that an approval expires soon."""
    return expire_time - min(EXPIRING_MICROS_MAX, (expire_time - create_time) // 2)


def arguments_digest(arguments_json: str) -> str:
    """What an approval is bound to: `sha256:` and the digest of the arguments' canonical JSON text."""
    return "sha256:" + hashlib.sha256(arguments_json.encode()).hexdigest()


def structured(answer: Content, output_schema_json: str) -> Content:
    """The answer with its JSON value beside the text, when the agent asks for one and the text is one."""
    if not output_schema_json or answer.data_json:
        return answer
    try:
        return Content(answer.text, canonical(answer.text))
    except JsonTextError:
        return answer

"""Which calls wait for people, and for whom: the first rule of a policy that fits a call."""

from collections.abc import Callable
from dataclasses import dataclass

from treadle_server.core.kinds import Effect


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Fits a call when every condition given fits."""

    tool_pattern: str = ""
    """Of the tool's name or its resource; `*` stands for any characters. Empty fits every tool."""
    effect: Effect = Effect.UNSPECIFIED
    argument_predicate: str = ""
    """Expression over the arguments. Empty fits every call."""
    approvers_needed: int = 0
    """0 means that the call needs no approval, whatever later rules say."""
    exclude_starter: bool = False
    expire_after_micros: int = 0
    """0 means that an approval does not expire."""


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """Rules in the order in which they are tried."""

    rules: tuple[ApprovalRule, ...] = ()


def first_fitting(
    rules: tuple[ApprovalRule, ...],
    names: tuple[str, ...],
    effect: Effect,
    holds: Callable[[str], bool | None],
) -> ApprovalRule | None:
    """The rule that decides about a call of a tool with these names.

    `holds` looks at a predicate; None says that it cannot be computed for this call: then a rule that asks
    people fits, and one that exempts does not.
    """
    for rule in rules:
        if rule.effect and rule.effect is not effect:
            continue
        if rule.tool_pattern and not any(matches(rule.tool_pattern, name) for name in names):
            continue
        holding = holds(rule.argument_predicate) if rule.argument_predicate else True
        if not (rule.approvers_needed if holding is None else holding):
            continue
        return rule
    return None


def matches(pattern: str, name: str) -> bool:
    """Whether a name has the pattern, in time that grows with their lengths only."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(first):
        return False
    place = len(first)
    for part in rest[:-1]:
        found = name.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(name) - place >= len(rest[-1]) and name.endswith(rest[-1])

"""Callers who give their threads something: inputs, answers, results, decisions, agents to call."""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from tests.faults.caller import EVENTS_BEFORE_MAX, Caller, now
from tests.faults.evidence import Answered, Decided, Ended, Steered
from tests.faults.scripts import Script, random_script, script
from tests.faults.site import AGENT, BOSS_AGENT, CHILD_AGENT, CLIENT_TOOL, GATED_AGENT, QUESTION
from treadle import Approval, StateConflict, Thread, ThreadEvent, TreadleError
from treadle.v1.event_pb2 import ApprovalRequested, ToolCallRequested
from treadle.v1.thread_pb2 import ClientTool

MEASURE = ClientTool(name=CLIENT_TOOL, description="Measures.", parameters_schema_json='{"type":"object"}')
EVENTS_OF_A_CALL = 9
"""Until a thread has begun to call an agent. What then comes may wait for people."""
_GONE = frozenset({"THREAD_STATE_CONFLICT", "APPROVAL_ALREADY_DECIDED"})
"""Somebody was faster, or the thread has ended."""


class Person(Caller):
    """Of one thread, which waits for it."""

    async def steer(self) -> None:
        """Up to three times, at random moments."""
        self.fields["data"]["turns"] += [{"text": "done again"}] * 3
        await self.create()
        for number in range(self.chance.randint(1, 3)):
            await self.events(self.chance.randint(0, EVENTS_BEFORE_MAX))
            text = f"steer {number} of {self.request}"
            try:
                await self.client.send_thread_input(self.name, text, request_id=text)
            except StateConflict:
                break
            self.history.steered.append(Steered(self.name, text))
        await self.watch()

    async def answer(self) -> None:
        """What the agent asks and what it wants measured."""
        thread = self.fields["thread_id"]
        asked: Script = {"turns": [_asking(thread, turn) for turn in range(self.chance.randint(1, 2))]}
        asked["turns"].append({"text": "done after {observation}"})
        self.agent = AGENT
        self.fields |= {"data": asked, "client_tools": [MEASURE]}
        await self.create()
        async for event in self.client.watch(self.name):
            if event.HasField("tool_call_requested"):
                await self._give(event.tool_call_requested)

    async def _give(self, call: ToolCallRequested) -> None:
        text, request = f"for {call.tool_call_id} of {self.name}", f"{self.request}-{call.tool_call_id}"
        if call.tool == QUESTION:
            await self.client.send_thread_input(
                self.name, text, tool_call_id=call.tool_call_id, request_id=request
            )
        else:
            await self.client.submit_tool_result(
                self.name, call.tool_call_id, result=text, request_id=request
            )
        self.history.answered.append(Answered(self.name, call.tool_call_id, text))

    async def decide(self) -> None:
        """About each call that waits for a decision; where two decide, they want different things."""
        thread = self.fields["thread_id"]
        turns = [self.chance.choices(("look", "pay", "pay"), k=2) for _ in range(self.chance.randint(1, 2))]
        self.agent, self.fields["data"] = GATED_AGENT, script(thread, turns)
        await self.create()
        async for event in self.client.watch(self.name):
            if event.HasField("approval_requested"):
                await self._decide(event)
        await self.watch()

    async def _decide(self, event: ThreadEvent) -> None:
        deciders = self.chance.randint(1, 2)
        ways = self.chance.sample(("approve", "reject", "edit"), k=deciders)
        await asyncio.gather(*(self._want(event.approval_requested, way) for way in ways))

    async def _want(self, asked: ApprovalRequested, way: str) -> None:
        edited = ""
        if way == "edit":
            edited = f"{json.loads(asked.arguments_json)['note']}/edited"
        name = f"{self.name}/approvals/{asked.approval_id}"
        wanted = Approval.REJECT if way == "reject" else Approval.APPROVE
        decided = await _unless_gone(
            self.client.decide_approval(
                name,
                wanted,
                arguments_digest=asked.arguments_digest,
                arguments={"note": edited} if edited else None,
                request_id=f"{way}-{self.request}-{asked.approval_id}",
            )
        )
        if decided:
            state = Approval.REJECTED if way == "reject" else Approval.APPROVED
            self.history.decided.append(Decided(self.name, asked.approval_id, state, edited))

    async def delegate(self) -> None:
        """To agents that work at once. Where it ends it all, they may wait for what nobody will answer."""
        thread, ends = self.fields["thread_id"], self.chance.random() < 0.5
        turns = [
            {"calls": [self._errand(thread, turn, place, ends) for place in range(self.chance.randint(1, 2))]}
            for turn in range(self.chance.randint(1, 2))
        ]
        self.agent, self.fields["data"] = BOSS_AGENT, {"turns": [*turns, {"text": "done with all"}]}
        await self.create()
        if not ends:
            await self.watch()
            return
        await self.events(self.chance.randint(0, EVENTS_OF_A_CALL))
        try:
            ended = await self.client.cancel_thread(self.name, request_id=f"cancel-{self.request}")
        except StateConflict:
            return
        self.history.ended.append(Ended(ended.name, Thread.CANCELLED, now()))

    def _errand(self, thread: str, turn: int, place: int, waits: bool) -> dict[str, Any]:
        work = random_script(f"{thread}/child-{turn}-{place}", self.chance)
        work["turns"][-1]["text"] = "done"
        if waits and self.chance.random() < 0.7:
            work["turns"].insert(0, _asking(thread, turn))
        return {"name": CHILD_AGENT, "arguments": work}


def _asking(thread: str, turn: int) -> Script:
    note = f"{thread}/{turn}"
    return {
        "calls": [
            {"name": QUESTION, "arguments": {"question": note}},
            {"name": CLIENT_TOOL, "arguments": {"what": note}},
        ]
    }


async def _unless_gone(answer: Awaitable[object]) -> bool:
    try:
        await answer
    except TreadleError as refused:
        if refused.reason not in _GONE:
            raise
        return False
    return True

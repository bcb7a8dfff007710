"""The real server, as a process of its own, with the world's tools: for all sequences of a run."""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.faults.ledger import BEGUN, DONE, MODEL, Line
from tests.faults.scripts import script
from tests.faults.site import Site
from tests.faults.tool_server import GROUP
from tests.machine.plan import CLIENT_TOOL, POLICIES, Plan
from treadle import Agent, Client
from treadle.v1.approval_pb2 import ApprovalPolicy, ApprovalRule
from treadle.v1.thread_pb2 import ClientTool

T = TypeVar("T")
_HELD_MODEL = "google:gemini-2.5-flash"
_LONG = timedelta(days=1)


class Place:
    """Runs coroutines for tests that have no loop. What goes on behind them goes on only while one runs."""

    client: Client

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.kills = 0
        self.threads = 0
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._ledger = LedgerTail(folder / "ledger")

    def run(self, act: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(act)

    @property
    def ledger(self) -> "LedgerTail":
        self._ledger.read()
        return self._ledger

    async def create(self, thread: str, plan: Plan) -> None:
        """Acknowledged on return; in a session that another thread holds when the plan says so."""
        fields: dict[str, Any] = {}
        if plan.queued:
            fields["session_key"] = thread
            holder = f"{thread}-holder"
            held = script(holder, (("look",),), more={"look": {"gate": holder_gate(thread)}})
            if plan.model_held:
                held["thread"] = holder
            await self.client.create_thread(agent_of(plan), data=held, thread_id=holder, **fields)
        measure = ClientTool(name=CLIENT_TOOL, description="Measures.", parameters_schema_json=_ANY_OBJECT)
        await self.client.create_thread(
            agent_of(plan), data=plan.script(thread), thread_id=thread, client_tools=[measure], **fields
        )
        self.threads += 1

    async def kill(self) -> None:
        self.kills += 1
        await self.site.restart()

    async def _begin(self) -> None:
        await self._stack.enter_async_context(self.site)
        await self.site.start()
        self.client = await self._stack.enter_async_context(self.site.client())
        self.channel = await self._stack.enter_async_context(self.site.channel())
        approvals = ApprovalPolicy(rules=[ApprovalRule(tool_pattern="pay", approvers_needed=1)])
        groups = [GROUP, "toolGroups/builtin"]
        for policy in POLICIES:
            for name, model in ((policy, "scripted:"), (f"{policy}-held", _HELD_MODEL)):
                agent = Agent.UnknownOutcomePolicy.Value(policy)
                await self.client.create_agent(
                    _id(name),
                    model=model,
                    tool_groups=groups,
                    on_unknown_outcome=agent,
                    approval_policy=approvals,
                )

    def __enter__(self) -> Self:
        self.run(self._begin())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.run(self._stack.aclose())
        finally:
            self._runner.close()


_ANY_OBJECT = '{"type":"object"}'


def _id(name: str) -> str:
    return name.lower().replace("_", "-")


def agent_of(plan: Plan) -> str:
    return _id(f"{plan.policy}-held" if plan.model_held else plan.policy)


def holder_gate(thread: str) -> str:
    return f"{thread}.held"


def holder_note(thread: str) -> str:
    return f"{thread}-holder/1/1"


class LedgerTail:
    """What the world did so far, counted: a run's ledger grows too long to be read again for every look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self._rest = b""
        self.keys: dict[str, Counter[str]] = {}
        """Of each note, how often it was done by idempotency key."""
        self.asked: Counter[str] = Counter()
        """How often the model was asked for a turn."""
        self.lines: dict[str, list[Line]] = {}
        """By thread, as the notes name it."""

    def read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._place)
            read = file.read()
        self._place += len(read)
        *whole, self._rest = (self._rest + read).split(b"\n")
        for text in whole:
            self._take(Line(**json.loads(text)))

    def _take(self, line: Line) -> None:
        self.lines.setdefault(line.note.partition("/")[0], []).append(line)
        if line.tool == MODEL:
            self.asked[line.note] += line.step == BEGUN
        elif line.step == DONE:
            self.keys.setdefault(line.note, Counter())[line.key] += 1

    def forget(self, thread: str) -> None:
        """After the thread was checked."""
        for line in self.lines.pop(thread, []):
            self.keys.pop(line.note, None)
            self.asked.pop(line.note, None)

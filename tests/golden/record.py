"""Adds a golden log, once: `python -m tests.golden.record RELEASE NAME`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.core.forks import fork
from tests.core.histories import DAY, REFERENCE, SECOND, T0, History, created, spec
from tests.golden.stored import FOLDER, Json, as_json
from treadle_server.core import outcomes as o
from treadle_server.core import signals as s
from treadle_server.core.events import HistoryRecalled
from treadle_server.core.kinds import BusyPolicy, CallStatus, Role
from treadle_server.core.values import Content, Context, Message, ProposedCall, ProviderContent

KEPT = ProviderContent("scripted", "tests", '{"parts":[{"text":"kept word for word"}]}')


def simple() -> History:
    """One tool call and the answer, each outcome in one append with what begins after it."""
    history = created(spec(instructions="Answer briefly.", output_schema_json='{"type":"string"}'))
    history.begin().drafted(
        o.ModelReplied,
        call_id="model-1",
        attempt=1,
        text="Let me look.",
        thought="Where is the cat?",
        calls=(ProposedCall("look", '{"at":"the sofa"}', provider_call_id="fc-1"),),
        provider_content=KEPT,
    )
    history.drafted(
        o.ToolReturned,
        call_id="call-1-1",
        attempt=1,
        status=CallStatus.SUCCEEDED,
        observation="a cat",
        duration_micros=1_234_567,
    )
    return history.reply('"On the sofa."')


def parallel_tools() -> History:
    """Everything that can be open beside each other, steering, a pause, and a finishing tool."""
    history = created().turn("On it.", "look", "send", "pay", "ask", "open_file", "loook").begin()
    history.tool("call-1-2", "sent").steer().submit("call-1-5").tool_fails("call-1-1")
    history.at(history.tool_command("call-1-1").not_before).begin().tool("call-1-1", "a cat")
    history.ask(s.Pause, principal="users/ann", reason="lunch")
    history.approve("call-1-3", edited_arguments_json='{"n":30}', message="less")
    history.ask(s.Resume, principal="users/ann")
    history.begin().tool("call-1-3", "paid").answer("call-1-4", "blue")
    return history.turn("Done.", "finish").begin().tool("call-2-1", "All done.")


def failure() -> History:
    """Turns that could not be taken, calls that could not run, and a model that was not to be reached."""
    history = created().turn("", "loook").turn("{}", problem="no field a").turn("", "sign", "save").begin()
    history.approve("call-3-1", "users/bob").reject("call-3-1", "users/cat", message="no")
    history.tool_fails("call-3-2")
    history.at(history.tool_command("call-3-2").not_before).begin().tool_fails("call-3-2")
    for _ in range(5):
        (command,) = history.wanted
        history.at(max(history.now, command.not_before) + 1).begin().model_fails()
    return history


def recovery() -> History:
    """Crashes during a model call and during tool calls of every effect; the thread is to go on."""
    history = created().begin().crash().begin()
    history.reply("On it.", "look", "save", "send", usage=None, cost=None).begin().tool_fails("call-1-2")
    return history.crash()


def poisoned() -> History:
    """Servers died during the same call, one was stopped in order, and the thread was found guilty."""
    history = created().turn("On it.", "look").begin()
    for epoch, blameless in ((2, False), (3, True), (4, False)):
        history.ask(o.Recovered, epoch=epoch, blameless=blameless)
        history.begin()
    history.ask(o.Recovered, epoch=5, guilty=True)
    return history


def cancelled() -> History:
    """A cancel that waited for its grace, and closed all that was open."""
    history = created().turn("On it.", "look", "send", "pay", "ask").begin()
    history.ask(s.Cancel, principal="users/ann", reason="enough")
    return history.due()


def timed_out() -> History:
    """A question that nobody answered."""
    history = created().turn("One question.", "ask")
    history.at(history.now + 31 * DAY).ask(s.Due)
    return history


def forked() -> History:
    """A fork of a thread that had calls of every kind open, which goes on with a further input."""
    original = created().turn("On it.", "look", "save", "send", "pay", "ask", "open_file").begin()
    history = fork(original.tool("call-1-1", "a cat"), text="And then?")
    history.begin().tool("call-1-2", "saved").submit("call-1-6").answer("call-1-5", "blue")
    return history.approve("call-1-4").begin().tool("call-1-4", "paid").turn("All done.")


def session() -> History:
    """A thread that is told a context and what was said before, and gets a second input before it begins."""
    history = History(spec(history_messages_max=2, input_debounce_micros=2 * SECOND))
    fields = {"session": "sessions/s", "parent_object": "account/17", "busy_policy": BusyPolicy.STEER}
    context = Context("Speak French.", "It rains.")
    history.ask(s.Create, spec=REFERENCE, input=Content("And now?"), context=context, **fields)
    said = (
        Message("threads/t1", 2, Role.USER, Content("Hello.", '{"a":1}'), T0),
        Message("threads/t1", 9, Role.AGENT, Content("Bonjour."), T0 + SECOND),
    )
    history.ask(o.HistoryRead, history=HistoryRecalled(said, older_left_out=True))
    return history.steer().turn("", "look").begin().tool("call-1-1", "a cat").turn("Un chat.")


HISTORIES: dict[str, Callable[[], History]] = {
    made.__name__: made
    for made in (simple, parallel_tools, failure, recovery, poisoned, cancelled, timed_out, forked, session)
}


def record(release: str, name: str, folder: Path = FOLDER) -> Path:
    """Writes the log as this release stores it. Raises FileExistsError for one that is there."""
    history = HISTORIES[name]()
    golden = {"release": release, "name": name, **as_json(history.state.spec, history.events)}
    path = folder / f"{release}-{name}.json"
    with path.open("x", encoding="utf-8") as file:
        file.write(_text(golden))
    return path


def _text(golden: Json) -> str:
    """JSON with a line for each event and each field."""
    fields = []
    for key, value in golden.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list):
            rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value)
            text = f"[\n  {rows}\n ]"
        fields.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in HISTORIES:
        sys.exit(f"usage: python -m tests.golden.record RELEASE {{{'|'.join(HISTORIES)}}}")
    try:
        print(record(sys.argv[1], sys.argv[2]))
    except FileExistsError as error:
        sys.exit(f"{error.filename} is there already, and golden logs are never made again")

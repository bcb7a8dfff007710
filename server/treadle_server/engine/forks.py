"""What a fork begins with: its calls that are open, judged as the model's next turn would be."""

from dataclasses import replace

from treadle_server.core.signals import Create, Fork
from treadle_server.core.state import Call
from treadle_server.core.values import ProposedCall
from treadle_server.engine.steps import Steps
from treadle_server.ports.engine import Start


def reviewed(steps: Steps, start: Start) -> Create | Fork:
    """The ask to begin the thread with. What another version allowed is not allowed by that in this one."""
    ask, prefix = start.ask, start.prefix
    if not isinstance(ask, Fork) or prefix is None:
        return ask
    calls = [call for call in prefix.state.calls.values() if call.open]
    return replace(ask, reviewed=tuple((call.call_id, _review(steps, start, call)) for call in calls))


def _review(steps: Steps, start: Start, call: Call) -> ProposedCall:
    return steps.checked(start.spec, ProposedCall(call.name, call.arguments_json))

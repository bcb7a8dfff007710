"""One turn: reads the conversation, follows the plan as far as it goes, says what comes next."""

from dataclasses import dataclass, field

from treadle_server.core.spec import ToolSpec
from treadle_server.core.transcript import Transcript
from treadle_server.core.values import ProposedCall
from treadle_server.models.demo import answering
from treadle_server.models.demo.abilities import skills_of
from treadle_server.models.demo.questions import read_question
from treadle_server.models.demo.record import Question, questions_of, texts_of
from treadle_server.models.demo.solving import solve
from treadle_server.models.demo.steps import Call, Desk, Failure, Finding, Solver
from treadle_server.models.demo.tasks import Agenda, follows, needs


@dataclass(frozen=True, slots=True)
class Turn:
    """Text is empty while calls are wanted."""

    thought: str
    text: str = ""
    calls: tuple[ProposedCall, ...] = ()


@dataclass(slots=True)
class _Progress:
    findings: dict[int, Finding] = field(default_factory=dict)
    wanted: dict[int, Call] = field(default_factory=dict)
    """The next call of each task that waits for one."""


def next_turn(transcript: Transcript, tools: tuple[ToolSpec, ...], output_schema_json: str = "") -> Turn:
    """Everything follows from the arguments: the same conversation gives the same turn."""
    questions = questions_of(transcript)
    agenda, progress = Agenda(tools=tools), _Progress()
    for question in questions:
        _begin(question, agenda)
        _advance(question, agenda, progress)
        if question is not questions[-1]:
            for index in progress.wanted:
                progress.findings[index] = Finding("", failed=True)
    if not questions or agenda.starts[-1] == len(agenda.tasks):
        return Turn(
            "There is nothing to do.",
            answering.formed("I was not asked anything that I can read.", [], output_schema_json),
        )
    if progress.wanted:
        return _calling(agenda, progress)
    return _answering(agenda, progress, output_schema_json)


def _begin(question: Question, agenda: Agenda) -> None:
    agenda.starts.append(len(agenda.tasks))
    agenda.recalls = {}
    for text in texts_of(question):
        read_question(text, agenda)


def _advance(question: Question, agenda: Agenda, progress: _Progress) -> None:
    """Runs every task of the question as far as the record goes."""
    edited: dict[int, int] = {}
    start = agenda.starts[-1]
    while True:
        question.release()
        for index in [index for index in progress.findings if index >= start]:
            del progress.findings[index]
        _follow(question, agenda, progress, edited)
        left = next((index for index, call in progress.wanted.items() if _take_edited(question, call)), None)
        if left is None:
            return
        edited[left] = edited.get(left, 0) + 1


def _take_edited(question: Question, call: Call) -> bool:
    return question.claim_edited(call) is not None


def _follow(question: Question, agenda: Agenda, progress: _Progress, edited: dict[int, int]) -> None:
    progress.wanted = {}
    open_tasks = [index for index in _used(agenda) if index not in progress.findings]
    desk = Desk(skills_of(agenda.tools), progress.findings, agenda.tasks)
    moved = True
    while moved:
        moved = False
        for index in list(open_tasks):
            needed = needs(agenda.tasks[index])
            if index in progress.wanted or not all(
                other in progress.findings for other in follows(agenda.tasks[index])
            ):
                continue
            finding = _blocked(needed, progress) or _run(
                index, desk, question, progress, edited.get(index, 0)
            )
            if finding is not None:
                progress.findings[index] = finding
                open_tasks.remove(index)
                moved = True


def _blocked(needed: tuple[int, ...], progress: _Progress) -> Finding | None:
    return Finding("", failed=True) if any(progress.findings[index].failed for index in needed) else None


def _used(agenda: Agenda) -> list[int]:
    """The tasks of the open question that an answer rests on; trial readings leave others behind."""
    used: set[int] = set()
    start = agenda.starts[-1]
    for index in range(len(agenda.tasks) - 1, start - 1, -1):
        if index in used or getattr(agenda.tasks[index], "answers", True):
            used.add(index)
            used.update(follows(agenda.tasks[index]))
    return sorted(index for index in used if index >= start)


def _run(index: int, desk: Desk, question: Question, progress: _Progress, edited: int) -> Finding | None:
    """The task's finding, None when it waits for a call that nobody made yet."""
    solver: Solver = solve(desk.tasks[index], desk)
    try:
        call = next(solver)
        while True:
            seen = question.claim(call)
            if seen is None and edited:
                seen, edited = question.claim_edited(call), edited - 1
            if seen is None:
                progress.wanted[index] = call
                return None
            call = solver.send(seen)
    except StopIteration as stop:
        finding: Finding = stop.value
        return finding
    except Failure as failure:
        return Finding(str(failure), failed=True)


def _calling(agenda: Agenda, progress: _Progress) -> Turn:
    calls = [progress.wanted[index] for index in sorted(progress.wanted)]
    used = _used(agenda)
    done = sum(1 for index in used if index in progress.findings)
    thought = answering.plan(len(used), done, [call.purpose for call in calls])
    return Turn(thought, calls=tuple(ProposedCall(call.tool, call.arguments_json) for call in calls))


def _answering(agenda: Agenda, progress: _Progress, output_schema_json: str) -> Turn:
    used = _used(agenda)
    findings = {index: progress.findings[index] for index in used if index in progress.findings}
    sentences = answering.sentences(agenda, findings)
    values = answering.values(agenda, findings)
    worked = any(finding.equation or finding.raw or finding.moment for finding in findings.values())
    thought = "All steps are done, so I can answer." if worked else "I can answer this without a tool."
    text = " ".join(sentences) or "I could not find an answer to this."
    return Turn(thought, answering.formed(text, values, output_schema_json))

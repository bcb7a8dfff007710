"""Word problems among the sentences of a question."""

import re
from collections.abc import Callable, Sequence

from treadle_server.models.demo.arithmetic.formulas import Number, Result
from treadle_server.models.demo.arithmetic.words import Token, tokens_of
from treadle_server.models.demo.stories.comparisons import read_comparison_story
from treadle_server.models.demo.stories.events import read_story
from treadle_server.models.demo.stories.figures import read_figure_story
from treadle_server.models.demo.stories.rates import Unexplained
from treadle_server.models.demo.tasks import Agenda, Calculate, Say


def has_quantity(sentence: str) -> bool:
    return any(token.numeric for token in tokens_of(sentence)) or bool(
        re.search(r"\b(?:half|twice|third|quarter)\b", sentence)
    )


def tell_story(sentences: Sequence[str], agenda: Agenda) -> bool:
    tokens = [tokens_of(sentence) for sentence in sentences]
    before = len(agenda.tasks)
    unclear = ""
    for reading in (read_figure_story, read_comparison_story, read_story):
        try:
            if agenda.attempt(_reading(reading, tokens, agenda)):
                _answer_last(agenda, before)
                return True
        except Unexplained as problem:
            unclear = str(problem)
    if unclear and len(sentences) > 1:
        agenda.add(Say("unclear", unclear))
        return True
    return False


def _reading(
    reading: Callable[[Sequence[Sequence[Token]], Agenda], bool],
    tokens: list[tuple[Token, ...]],
    agenda: Agenda,
) -> Callable[[], bool]:
    return lambda: reading(tokens, agenda)


def _answer_last(agenda: Agenda, before: int) -> None:
    """Makes the last step of a story its answer."""
    last = agenda.last
    if isinstance(last, Result) and last.task >= before:
        task = agenda.tasks[last.task]
        if isinstance(task, Calculate):
            agenda.tasks[last.task] = Calculate(task.formula, task.unit)
    elif isinstance(last, Number):
        agenda.add(Say("told", f"The answer is {last.text}."))

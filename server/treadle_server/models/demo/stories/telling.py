"""Word problems among the sentences of a question."""

import re
from collections.abc import Callable, Sequence

from treadle_server.models.demo.arithmetic.formulas import Number, Result
from treadle_server.models.demo.arithmetic.words import Token, plain, tokens_of
from treadle_server.models.demo.stories.comparisons import read_comparison_story
from treadle_server.models.demo.stories.events import read_story
from treadle_server.models.demo.stories.figures import read_figure_story
from treadle_server.models.demo.stories.plausible import check_result, check_story
from treadle_server.models.demo.stories.rates import Unexplained
from treadle_server.models.demo.stories.shapes import read_shape
from treadle_server.models.demo.tasks import Agenda, Calculate, Say


def has_quantity(sentence: str) -> bool:
    return any(token.numeric for token in tokens_of(sentence)) or bool(
        re.search(r"\b(?:half|twice|third|quarter)\b", sentence)
    )


def tell_story(sentences: Sequence[str], agenda: Agenda) -> bool:
    tokens = [
        tokens_of(re.sub(r"\b(to|from) one (?=[a-z]+\b)", r"\1 a ", sentence, flags=re.IGNORECASE))
        for sentence in sentences
    ]
    before = len(agenda.tasks)
    unclear = ""
    for reading in (read_figure_story, _read_shape_story, read_comparison_story, _read_checked_story):
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


_QUESTION = re.compile(
    r"\b(?:how (?:much|many|far|long)|what|by what|by how|find|calculate|work out|compute|determine)\b"
)


def _asked(texts: Sequence[str]) -> str:
    """The question of a story, from its first asking word on; empty without one."""
    for text in reversed(texts):
        if match := _QUESTION.search(text):
            return text[match.start() :]
    return ""


def _read_shape_story(sentences: Sequence[Sequence[Token]], agenda: Agenda) -> bool:
    texts = [plain(tokens) for tokens in sentences]
    question = _asked(texts)
    formula = read_shape(" ".join(texts), question) if question else None
    if formula is None:
        return False
    agenda.value(formula)
    return True


def _read_checked_story(sentences: Sequence[Sequence[Token]], agenda: Agenda) -> bool:
    """The story as a chain of events, unless its numbers cannot be what it asks for."""
    texts = [plain(tokens) for tokens in sentences]
    check_story(sentences, " ".join(texts), _asked(texts))
    if not read_story(sentences, agenda):
        return False
    check_result(agenda, " ".join(texts))
    return True


def _answer_last(agenda: Agenda, before: int) -> None:
    """Makes the last step of a story its answer."""
    last = agenda.last
    if isinstance(last, Result) and last.task >= before:
        task = agenda.tasks[last.task]
        if isinstance(task, Calculate):
            agenda.tasks[last.task] = Calculate(task.formula, task.unit)
    elif isinstance(last, Number):
        agenda.add(Say("told", f"The answer is {last.text}."))

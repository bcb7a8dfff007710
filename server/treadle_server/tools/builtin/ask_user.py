"""A question to a person. Nothing runs: the thread waits for the answer, which is the tool's result."""

from treadle_server.core.json_text import canonical_json
from treadle_server.core.kinds import Effect
from treadle_server.core.questions import question_of
from treadle_server.core.spec import ToolSpec
from treadle_server.tools.arguments import SchemaError, validator
from treadle_server.tools.schema import DIALECT

QUESTION_CHARACTERS_MAX = 4000

ASK_USER = ToolSpec(
    name="ask_user",
    tool="builtin/ask_user",
    description=(
        "Asks the user a question and waits for the answer, which may take long. Use it only for what you "
        "cannot find out yourself and cannot go on without."
    ),
    parameters_schema_json=canonical_json(
        {
            "$schema": DIALECT,
            "type": "object",
            "properties": {
                "question": {
                    "type": "string",
                    "description": "The question, complete in itself",
                    "minLength": 1,
                    "maxLength": QUESTION_CHARACTERS_MAX,
                },
                "answer_schema": {
                    "type": "object",
                    "description": "JSON Schema that the answer must fit, such as "
                    '{"type": "integer"}; leave it out for an answer in words',
                },
            },
            "required": ["question"],
            "additionalProperties": False,
        }
    ),
    effect=Effect.READ_ONLY,
    asks=True,
)


def question_problem(arguments_json: str) -> str | None:
    """Why nobody could answer, for the model to read; None when somebody can."""
    _, schema_json = question_of(arguments_json)
    if not schema_json:
        return None
    try:
        validator(schema_json)
    except SchemaError as error:
        return f"answer_schema is not a valid JSON Schema: {error}"
    return None

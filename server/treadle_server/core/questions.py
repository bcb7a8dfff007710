"""What a call of an asking tool puts to a person."""

import json

from treadle_server.core.json_text import canonical_json


def question_of(arguments_json: str) -> tuple[str, str]:
    """The question, and the JSON Schema that its answer must fit; the latter is empty for an answer in text.

    Arguments without a `question` are the question themselves.
    """
    try:
        arguments = json.loads(arguments_json)
    except ValueError:
        return arguments_json, ""
    if not isinstance(arguments, dict) or not isinstance(arguments.get("question"), str):
        return arguments_json, ""
    schema = arguments.get("answer_schema")
    return arguments["question"], canonical_json(schema) if isinstance(schema, dict) and schema else ""

"""JSON Schema for anybody who needs it: implements ports/schemas."""

import orjson

from treadle_server.tools.arguments import SchemaError, faults, validator


class JsonSchemas:
    """Stateless; compiled schemas are shared with the checks of tool arguments."""

    def problem(self, schema_json: str, document_json: str) -> str | None:
        try:
            document = orjson.loads(document_json)
        except orjson.JSONDecodeError as error:
            return f"not valid JSON: {error}"
        try:
            checks = validator(schema_json)
        except SchemaError as error:
            return f"the schema is not valid: {error}"
        if checks.is_valid(document):
            return None
        return "does not fit the schema: " + faults(checks, document)

    def schema_problem(self, schema_json: str) -> str | None:
        try:
            validator(schema_json)
        except SchemaError as error:
            return str(error)
        return None

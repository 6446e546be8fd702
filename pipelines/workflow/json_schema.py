"""The workflow file as a JSON schema: what an editor completes and explains from, and what `explain` prints.

pydantic makes it from the types that `validate` checks with, so it can say nothing else than they do. Rules between
keys and names of stages and files are left to `validate`: a schema has no words for them.
"""

import functools
import json
from typing import Any

from pipelines.workflow.schema import WorkflowFile

FILE = "workflow.schema.json"
"""The schema's file beside a workflow, as the first line of the shipped ones names it."""
MODELINE = f"# yaml-language-server: $schema={FILE}"

# Draft 7 is what editors know best; nothing that is used here came later, as `$defs` is but a name to point to.
_DIALECT = "http://json-schema.org/draft-07/schema#"
_MADE_BY = "made by `gemma-keras schema`; not to be edited"
# Of OpenAPI, of our own complaints, and pydantic's spellings of the keys themselves: nothing that an editor needs.
_NOISE = ("discriminator", "title")


@functools.cache
def workflow_schema() -> dict[str, Any]:
    """The schema as plain data; callers leave it as it is."""
    return {"$schema": _DIALECT, "$comment": _MADE_BY, **_tidy(WorkflowFile.model_json_schema())}


def schema_text() -> str:
    """What `gemma-keras schema` prints, a line end at its end."""
    return json.dumps(workflow_schema(), indent=2, ensure_ascii=False) + "\n"


def is_ours(text: str) -> bool:
    """True for a schema that this program wrote, in whatever version."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("$comment") == _MADE_BY


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    """A schema and all below it without noise, strict about keys, and the same from every version of pydantic."""
    found: dict[str, Any] = {}
    for word, value in node.items():
        if word in ("properties", "patternProperties", "$defs"):
            found[word] = {name: _tidy(below) for name, below in value.items()}
        elif word in ("anyOf", "oneOf", "allOf"):
            found[word] = [_tidy(below) for below in value]
        elif word == "items":
            found[word] = _tidy(value)
        elif isinstance(value, float) and value.is_integer() and word != "default":
            found[word] = int(value)
        elif word not in _NOISE:
            found[word] = value
    if "const" in found:
        found.pop("enum", None)
    if "patternProperties" in found:
        found["additionalProperties"] = False
    if len(found.get("allOf", ())) == 1:
        found = {**found.pop("allOf")[0], **found}
    return found

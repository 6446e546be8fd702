"""Writes what is said of the keys of a workflow, from the code.

That is docs/workflow_keys.md, the keys in docs/algorithms/, and workflows/workflow.schema.json.

    python docs/keys.py            # rewrite them
    python docs/keys.py --check    # exit 1 where one is out of date
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipelines.stages.registry import algorithms  # noqa: E402
from pipelines.workflow.json_schema import FILE, schema_text  # noqa: E402
from pipelines.workflow.key_pages import keys_page, with_keys  # noqa: E402


def wanted() -> dict[pathlib.Path, str]:
    """What the files should hold."""
    found = {ROOT / "docs" / "workflow_keys.md": keys_page(), ROOT / "workflows" / FILE: schema_text()}
    for page in {algorithm.page for _, algorithm in algorithms().values()}:
        found[ROOT / page] = with_keys((ROOT / page).read_text(encoding="utf-8"), page)
    return found


def main() -> int:
    """Rewrite or check."""
    stale = {path: text for path, text in wanted().items() if not path.is_file() or path.read_text() != text}
    if "--check" in sys.argv[1:]:
        return int(bool(stale))
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

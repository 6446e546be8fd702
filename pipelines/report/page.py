"""The report of a run: one HTML file that needs no network, no script and no other file.

Every figure of `summary.json` that is shown stands in a `<data>` element, with its place in the summary (a JSON
pointer) in `data-path` and its exact value in `value`; text from models and data is escaped.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import yaml

from gemma_keras.files import write_text
from pipelines.host.files import read_json
from pipelines.host.run_folder import GATE_FILE
from pipelines.host.visible_text import visible
from pipelines.report import chain, summary, words
from pipelines.report import figures as draw
from pipelines.report import format as report_format
from pipelines.report.card import CARD_FILE, model_card
from pipelines.report.parts import Figures, KindReport, Pointer, Section, look_up
from pipelines.report.records import RunRecord, StageRecord, read_run

MAX_SAMPLES = 20
REPORT_FILE = "report.html"
TEMPLATES = Path(__file__).with_name("templates")


def write(run_folder: str | Path, reports: Sequence[KindReport]) -> Figures:
    """Write `report.html` into a run folder, `summary.json` anew, and `model_card.md` where a stage has something to
    say there; each atomically.

    Args:
        run_folder: folder of a run or of one of its seeds, finished or not; what is not there yet is said to be
            missing.
        reports: what the kinds add, in order.

    Returns:
        The summary.

    Raises:
        DataError: the folder does not exist, or a file in it cannot be read.
    """
    figures = summary.build(run_folder, reports)
    run = read_run(run_folder)
    write_text(run.folder / REPORT_FILE, render(run, figures, reports))
    card = model_card(figures, reports)
    if card is not None:
        write_text(run.folder / CARD_FILE, card)
    return figures


def render(run: RunRecord, figures: Figures, reports: Sequence[KindReport]) -> str:
    """The report as text.

    Args:
        run: the run's records.
        figures: its summary, as `summary.build` returns it. reports: what the kinds add, in order.

    Returns:
        HTML; equal for equal input.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(
        number=report_format.number,
        percent=report_format.percent,
        interval=report_format.interval,
        seconds=report_format.seconds,
        gib=report_format.gib,
        of_device=report_format.of_device,
        words=report_format.words,
        readable=report_format.readable,
    )

    def shown(style: str, *path: str | int) -> markupsafe.Markup:
        """A figure of the summary as a `<data>` element; `style` is the name of a format."""
        value = look_up(figures, path)
        text = FORMATS[style](value)
        if value is None:
            return markupsafe.escape(text)
        return markupsafe.Markup('<data class="{}" data-path="{}" value="{}">{}</data>').format(
            style, visible(pointer(path)), json.dumps(value), text
        )

    def section(one: Section) -> dict[str, Any] | None:
        found = one.values(run, figures)
        if found is None:
            return None
        values = {
            key: _markup(value) if key.endswith(("drawing", "drawings")) else value for key, value in found.items()
        }
        html = environment.get_template(str(one.template)).render(run=run, summary=figures, shown=shown, **values)
        return {"id": one.id, "title": one.title, "html": markupsafe.Markup(html)}

    losses = ((stage, draw.loss_curve(stage)) for stage in run.stages)
    tiles = [tile for report in reversed(reports) for tile in report.tiles(figures)]
    return environment.get_template("report.html.j2").render(
        run=run,
        summary=figures,
        shown=shown,
        verdict=words.verdict(figures, reports),
        seeds=figures.get("seeds"),
        no_stage=words.NO_STAGE,
        chain=chain.layout(run.stages),
        box=(chain.BOX_WIDTH, chain.BOX_HEIGHT),
        colors={report.kind: report.color for report in reports},
        total_seconds=sum(stage.seconds or 0 for _, stage in run.all_stages),
        peak_memory=max((stage.peak_memory_gib or 0 for _, stage in run.all_stages), default=0),
        tiles=[tile for tile in tiles if look_up(figures, tile.path) is not None and "seeds" not in figures],
        warnings=[
            *_gate(run),
            *((name, text) for name, stage in run.all_stages for text in _warnings(stage)),
        ],
        losses=[(stage, _markup(drawing)) for stage, drawing in losses if drawing],
        sections=[found for report in reports for one in report.sections if (found := section(one)) is not None],
        short=report_format.short_names,
        workflow_text=run.workflow_text or _configs_as_yaml(run.stages),
        samples=_samples(run),
    )


def _gate(run: RunRecord) -> list[tuple[str, str]]:
    """The stage at whose gate the run ended, and why."""
    path = (run.part_of or run.folder) / GATE_FILE
    found = read_json(path) if path.is_file() else {}
    return [(str(found.get("stage")), str(found.get("message")))] if found and isinstance(found, dict) else []


def _template(name: str) -> str:
    """A template of this room by its name, or a section's by its path."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _markup(value: Any) -> Any:
    if isinstance(value, list):
        return [_markup(item) for item in value]
    return markupsafe.Markup(visible(value)) if isinstance(value, str) else value


def pointer(path: Pointer) -> str:
    """A path as a JSON pointer (RFC 6901), `/evaluation/pairs/0/win_rate`."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def _percent_interval(value: Any) -> str:
    return report_format.interval(value, as_percent=True)


FORMATS: dict[str, Callable[[Any], str]] = {
    "number": report_format.number,
    "signed": report_format.signed,
    "percent": report_format.percent,
    "seconds": report_format.seconds,
    "gib": report_format.gib,
    "interval": report_format.interval,
    "percent_interval": _percent_interval,
    "text": report_format.readable,
}


def _samples(run: RunRecord) -> dict[str, Any]:
    """Rows for the samples section: side by side from the last stage that compared, else the latest ones of the last
    that sampled."""
    compared = next(
        (stage for stage in reversed(run.stages) if any("completions" in row for row in stage.samples)), None
    )
    if compared is not None:
        rows = [
            {
                "prompt": row.get("prompt"),
                "answer": row.get("answer"),
                "completions": [
                    {"policy": policy, "text": text, "score": (row.get("scores") or {}).get(policy)}
                    for policy, text in (row.get("completions") or {}).items()
                ],
            }
            for row in compared.samples[:MAX_SAMPLES]
        ]
        return {"stage": compared, "rows": rows}
    sampled = next((stage for stage in reversed(run.stages) if stage.samples), None)
    if sampled is None:
        return {"stage": None, "rows": []}
    rows = [
        {
            "prompt": row.get("prompt"),
            "answer": row.get("answer"),
            "completions": [
                {"policy": _step_words(sampled, row), "text": row.get("completion"), "score": row.get("reward")}
            ],
        }
        for row in sampled.samples[-MAX_SAMPLES:]
    ]
    return {"stage": sampled, "rows": rows}


def _warnings(stage: StageRecord) -> list[str]:
    found = stage.final.get("warnings")
    return [str(text) for text in found] if isinstance(found, list) else []


def _step_words(stage: StageRecord, row: dict[str, Any]) -> str:
    return f"{stage.name}, step {row['step']}" if "step" in row else stage.name


def _configs_as_yaml(stages: list[StageRecord]) -> str:
    """The stages' configurations, for a run whose workflow was not kept."""
    configs = {stage.name: stage.config for stage in stages if stage.config}
    return yaml.safe_dump({"stages": configs}, sort_keys=False, allow_unicode=True) if configs else ""


def _visible(value: Any) -> Any:
    """Every text that a template writes; markup of ours stays."""
    return visible(value) if type(value) is str else value

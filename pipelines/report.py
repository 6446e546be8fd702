"""The report of a run: one HTML file that needs no network, no script and no other file.

Every figure of `summary.json` that is shown stands in a `<data>` element, with its place in the summary (a JSON pointer) in
`data-path` and its exact value in `value`; text from models and data is escaped.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipelines import report_chain, report_format, report_words, summary
from pipelines.files import write_text
from pipelines.run_reader import RunRecord, StageRecord, read_run

MAX_SAMPLES = 20


POLICY_COLUMNS = [
    ("gold reward", "number", ("gold", "mean"), "interval", ("gold", "ci95")),
    ("judge's score", "number", ("judge_score", "mean"), "interval", ("judge_score", "ci95")),
    ("right answers", "percent", ("accuracy",), "percent_interval", ("accuracy_ci95",)),
    ("KL a token", "number", ("kl",), "", ()),
    ("KL a response", "number", ("kl_sequence",), "", ()),
    ("perplexity", "number", ("perplexity",), "", ()),
    ("tokens a response", "number", ("mean_length",), "", ()),
    ("came to an end", "percent", ("finished",), "", ()),
]
"""Of each compared policy: heading, format and place of the figure, format and place of its interval."""


def write(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder, and `summary.json` anew, both atomically.

    Args:
        run_folder: folder of a run, finished or not; what is not there yet is said to be missing.

    Returns:
        Path of the report.

    Raises:
        DataError: the folder does not exist, or a file in it cannot be read.
    """
    figures = summary.build(run_folder)
    run = read_run(run_folder)
    path = run.folder / "report.html"
    write_text(path, render(run, figures))
    return path


def render(run: RunRecord, figures: dict[str, Any]) -> str:
    """The report as text.

    Args:
        run: the run's records.
        figures: its summary, as `summary.build` returns it.

    Returns:
        HTML; equal for equal input.
    """
    # Here, not above: only a report needs a template engine, and commands that write none start faster without it.
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=report_format.number,
        percent=report_format.percent,
        interval=report_format.interval,
        seconds=report_format.seconds,
        gib=report_format.gib,
        words=report_format.words,
        visible=report_format.visible,
    )

    def shown(style: str, *path: str | int) -> markupsafe.Markup:
        """A figure of the summary as a `<data>` element; `style` is the name of a format."""
        value = look_up(figures, path)
        text = _FORMATS[style](value)
        if value is None:
            return markupsafe.escape(text)
        return markupsafe.Markup('<data class="{}" data-path="{}" value="{}">{}</data>').format(
            style, pointer(path), json.dumps(value), text
        )

    return environment.get_template("report.html.j2").render(
        run=run,
        summary=figures,
        shown=shown,
        verdict=report_words.verdict(figures),
        no_stage=report_words.NO_STAGE,
        chain=report_chain.layout(run.stages),
        box=(report_chain.BOX_WIDTH, report_chain.BOX_HEIGHT),
        total_seconds=sum(stage.seconds or 0 for stage in run.stages),
        peak_memory=max((stage.peak_memory_gib or 0 for stage in run.stages), default=0),
        tiles=_tiles(figures),
        reward_model_words=report_words.reward_model_words(figures["reward_model"]),
        trained=run.of_kind(*report_words.LOSS_KINDS),
        policies=run.of_kind("policy_optimization"),
        policy_words=report_words.policy_words,
        policy_columns=_policy_columns(figures),
        overlap_words=report_words.overlap_words(figures["evaluation"]),
        short=report_format.short_names,
        judge_words=report_words.judge_words(figures["evaluation"]["judge"]),
        overoptimization_words=[words for words in map(report_words.overoptimization_words, run.of_kind("policy_optimization")) if words],
        workflow_text=run.workflow_text or _configs_as_yaml(run.stages),
        samples=_samples(run),
        drawings={key: [markupsafe.Markup(svg) for svg in svgs] for key, svgs in _drawings(run, figures).items()},
    )


def look_up(figures: Any, path: tuple[str | int, ...]) -> Any:
    """The value at a path of keys and indices; None where it leads nowhere."""
    for key in path:
        if isinstance(figures, dict):
            figures = figures.get(key)
        elif isinstance(figures, list) and isinstance(key, int) and key < len(figures):
            figures = figures[key]
        else:
            return None
    return figures


def pointer(path: tuple[str | int, ...]) -> str:
    """A path as a JSON pointer (RFC 6901), `/evaluation/pairs/0/win_rate`."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def _percent_interval(value: Any) -> str:
    return report_format.interval(value, as_percent=True)


_FORMATS: dict[str, Callable[[Any], str]] = {
    "number": report_format.number,
    "percent": report_format.percent,
    "seconds": report_format.seconds,
    "gib": report_format.gib,
    "interval": report_format.interval,
    "percent_interval": _percent_interval,
    "text": report_format.visible,
}


def _drawings(run: RunRecord, figures: dict[str, Any]) -> dict[str, list[str]]:
    """The SVGs of each section."""
    # matplotlib takes half a second to import; only a report pays for it.
    from pipelines import report_figures as draw

    policies = run.of_kind("policy_optimization")
    reward_model = run.last_of_kind("reward_modeling")
    final = reward_model.final if reward_model else {}
    curves = [
        ("reward", "reward", "eval_reward"),
        ("kl_sequence", "KL to the starting model, nats a response", "eval_kl_sequence"),
        ("entropy", "entropy, nats a token", None),
        ("completions/mean_length", "length, tokens a response", "eval_completions/mean_length"),
    ]
    evaluation = figures["evaluation"]
    totals = {name: policy.get("gold") for name, policy in evaluation["policies"].items()}
    drawn = {
        "losses": [draw.loss_curve(stage) for stage in run.of_kind(*report_words.LOSS_KINDS)],
        "reward_model": [
            draw.reward_model_accuracy(figures["reward_model"]),
            draw.margin_calibration(final.get("accuracy_by_margin") or []),
            draw.margin_histogram(final.get("margin_histogram")),
        ],
        "policy": [draw.policy_curve(policies, *curve) for curve in curves],
        "overoptimization": [draw.overoptimization(policies)],
        "gold_parts": [draw.gold_part_curves(stage) for stage in policies],
        "win_rates": [draw.win_rates(evaluation["pairs"]), draw.gold_parts(evaluation["gold_parts"], totals)],
    }
    # Those with a caption of their own keep their places; of the others only what was drawn counts.
    placed = ("losses", "reward_model", "win_rates")
    return {key: [svg or "" for svg in svgs if svg or key in placed] for key, svgs in drawn.items()}


def _policy_columns(figures: dict[str, Any]) -> list[tuple]:
    """Those of `POLICY_COLUMNS` in which a policy has a figure; the gold judge's score is the gold reward and is not shown twice."""
    evaluation = figures["evaluation"]
    return [
        column
        for column in POLICY_COLUMNS
        if any(look_up(policy, column[2]) is not None for policy in evaluation["policies"].values())
        and not (evaluation["judge"] == "gold" and column[2][0] == "judge_score")
    ]


def _tiles(figures: dict[str, Any]) -> list[tuple[str, str, tuple[str, ...], tuple[str, tuple[str, ...]] | None]]:
    """The figures at the top: label, format, path, and format and path of the small print; only those the run has."""
    evaluation = figures["evaluation"]
    tiles: list[tuple[str, str, tuple[str, ...], tuple[str, tuple[str, ...]] | None]] = [
        (
            "win rate, {} vs {}".format(*report_format.short_names(map(str, (evaluation["policy"], evaluation["baseline"]))).values())
            if evaluation["policy"]
            else "win rate",
            "percent",
            ("evaluation", "win_rate"),
            ("percent_interval", ("evaluation", "win_rate_ci95")),
        ),
        ("reward model accuracy", "percent", ("reward_model", "accuracy"), ("percent_interval", ("reward_model", "accuracy_ci95"))),
        ("its ceiling", "percent", ("reward_model", "ceiling"), None),
        (f"KL of {figures['policy']['stage']}, nats a response", "number", ("policy", "kl_sequence"), None),
    ]
    return [tile for tile in tiles if look_up(figures, tile[2]) is not None]


def _samples(run: RunRecord) -> dict[str, Any]:
    """Rows for the samples section: side by side from the last evaluation, else the last policy's latest ones."""
    evaluation = next((stage for stage in reversed(run.of_kind("evaluation")) if stage.samples), None)
    if evaluation is not None:
        rows = [
            {
                "prompt": row.get("prompt"),
                "answer": row.get("answer"),
                "completions": [
                    {"policy": policy, "text": text, "score": (row.get("scores") or {}).get(policy)}
                    for policy, text in (row.get("completions") or {}).items()
                ],
            }
            for row in evaluation.samples[:MAX_SAMPLES]
        ]
        return {"stage": evaluation, "rows": rows}
    policy = next((stage for stage in reversed(run.of_kind("policy_optimization", "preference_collection")) if stage.samples), None)
    if policy is None:
        return {"stage": None, "rows": []}
    rows = [
        {
            "prompt": row.get("prompt"),
            "answer": row.get("answer"),
            "completions": [{"policy": _step_words(policy, row), "text": row.get("completion"), "score": row.get("reward")}],
        }
        for row in policy.samples[-MAX_SAMPLES:]
    ]
    return {"stage": policy, "rows": rows}


def _step_words(stage: StageRecord, row: dict[str, Any]) -> str:
    return f"{stage.name}, step {row['step']}" if "step" in row else stage.name


def _configs_as_yaml(stages: list[StageRecord]) -> str:
    """The stages' configurations, for a run whose workflow was not kept."""
    configs = {stage.name: stage.config for stage in stages if stage.config}
    return yaml.safe_dump({"stages": configs}, sort_keys=False, allow_unicode=True) if configs else ""

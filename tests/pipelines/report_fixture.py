"""Writes the folder of a made-up finished run, as the runner and the stages leave it, for tests of the summary and the report.

Run as a script to look at its report: `python tests/pipelines/report_fixture.py FOLDER`.
"""

import json
import math
import random
import sys
from pathlib import Path

import yaml

SCRIPT = '<script>alert("x")</script>'
PARTS = {"sft": (0.71, 0.62, 0.55, 0.93), "control": (0.72, 0.60, 0.56, 0.93), "policy": (0.73, 0.88, 0.81, 0.95)}
VERSIONS = {"gemma_keras": "0.1.0", "keras": "3.15.1", "jax": "0.10.2", "numpy": "2.3.1", "python": "3.11.9"}
STAGES = {
    "pretrained": {"kind": "pretraining", "data": {"task": "small_world", "split": "pretraining", "size": 20000}, "epochs": 2.0},
    "sft": {"kind": "instruction_tuning", "from": "pretrained", "data": {"task": "small_world", "split": "sft", "size": 4000}},
    "control": {"kind": "instruction_tuning", "from": "sft", "data": {"task": "small_world", "split": "sft", "size": 1000}},
    "preferences": {
        "kind": "preference_collection",
        "from": "sft",
        "rater": "gold",
        "data": {"task": "small_world", "split": "preferences"},
    },
    "reward": {"kind": "reward_modeling", "from": "sft", "data": "preferences", "learning_rate": 3e-4},
    "policy": {"kind": "policy_optimization", "from": "sft", "reward": "reward", "kl_weight": 0.05, "steps": 100},
    "policy_no_kl": {"kind": "policy_optimization", "from": "sft", "reward": [{"reward": "reward", "weight": 1.0}], "kl_weight": 0.0},
    "evaluation": {"kind": "evaluation", "compare": ["sft", "control", "policy"], "judge": "gold", "prompts": 512},
}


def write_run(folder: Path, stages: list[str] | None = None) -> Path:
    """Write the run.

    Args:
        folder: where; made if need be.
        stages: names of the stages that have finished, default all; the workflow names all in any case.

    Returns:
        `folder`.
    """
    rng = random.Random(5)
    folder.mkdir(parents=True, exist_ok=True)
    workflow = {"name": "small_run", "seed": 17, "backend": "jax", "stages": STAGES}
    (folder / "workflow.yaml").write_text(yaml.safe_dump(workflow, sort_keys=False), encoding="utf-8")
    for index, name in enumerate(STAGES):
        files = _files(name, rng)
        if stages is not None and name not in stages:
            continue
        target = folder / "stages" / name
        target.mkdir(parents=True, exist_ok=True)
        about = {
            "name": name,
            "kind": STAGES[name]["kind"],
            "key": f"{index:064x}",
            "seconds": 12.34 + 21.5 * index,
            "peak_memory_gib": 1.25 + 0.11 * index,
            "backend": "jax",
            "versions": VERSIONS,
            "config": STAGES[name],
        }
        (target / "stage.json").write_text(json.dumps(about), encoding="utf-8")
        for file, content in files.items():
            lines = [json.dumps(row) for row in content] if file.endswith(".jsonl") else [json.dumps(content)]
            (target / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _files(name: str, rng: random.Random) -> dict[str, object]:
    kind = STAGES[name]["kind"]
    if kind in ("pretraining", "instruction_tuning"):
        start, end = (5.2, 1.1) if kind == "pretraining" else (1.4, 0.21)
        return {
            "metrics.jsonl": _losses(rng, 240, start, end),
            "final.json": {"loss": end, "eval_loss": end + 0.02, "eval_loss_flatness": 0.0078, "tokens": 1_234_567},
        }
    if kind == "preference_collection":
        return {"final.json": {"pairs": 2048, "agreement": 0.836}}
    if kind == "reward_modeling":
        return {"metrics.jsonl": _losses(rng, 120, 0.693, 0.41), "final.json": _reward_final()}
    if kind == "policy_optimization":
        return _policy_files(rng, hacked=name == "policy_no_kl")
    return {"evaluation.json": _evaluation(), "samples.jsonl": _samples(), "final.json": {"win_rate": 0.713}}


def _losses(rng: random.Random, steps: int, start: float, end: float) -> list[dict]:
    rows: list[dict] = []
    for step in range(1, steps + 1):
        smooth = end + (start - end) * math.exp(-7 * step / steps)
        rows.append({"step": step, "loss": smooth * (1 + 0.06 * rng.gauss(0, 1)), "learning_rate": 1e-3})
        if step % (steps // 8) == 0:
            rows.append({"step": step, "eval_loss": smooth * 1.03})
    return rows


def _reward_final() -> dict:
    margins = [0.0, 0.4, 0.9, 1.6, 2.6, 4.5]
    return {
        "accuracy": 0.803,
        "accuracy_ci95": [0.771, 0.832],
        "ceiling": 0.836,
        "pairs": 614,
        "reward_mean": 0.41,
        "reward_std": 1.37,
        "calibration_error": 0.031,
        "length_correlation": -0.18,
        "accuracy_by_margin": [
            {"margin_from": low, "margin_to": high, "accuracy": accuracy, "pairs": 122}
            for low, high, accuracy in zip(margins[:-1], margins[1:], (0.56, 0.67, 0.79, 0.9, 0.97), strict=True)
        ],
        "margin_histogram": {
            "edges": [index / 2 for index in range(-6, 11)],
            "counts": [2, 5, 11, 19, 28, 44, 61, 77, 81, 79, 66, 54, 40, 26, 14, 7],
        },
    }


def _policy_files(rng: random.Random, hacked: bool) -> dict[str, object]:
    rows: list[dict] = []
    pull = 2.6 if hacked else 1.0
    for step in range(100):
        share = step / 100
        rows.append(
            {
                "step": step,
                "reward": 0.05 + 1.3 * pull * (1 - math.exp(-3 * share)) + 0.12 * rng.gauss(0, 1),
                "kl": 0.004 + 0.02 * share * pull,
                "kl_sequence": 0.05 + 2.1 * share * pull + 0.05 * rng.random(),
                "entropy": 1.1 - 0.5 * share * pull * 0.8 + 0.03 * rng.gauss(0, 1),
                "completions/mean_length": 14 - 4 * share + 0.3 * rng.gauss(0, 1),
            }
        )
        if step % 10 == 0 or step == 99:
            gold = 0.6 + 0.22 * math.sin(min(share * (3.6 if hacked else 1.5), 4.2))
            rows.append(
                {
                    "step": step,
                    "eval_reward": 0.02 + 1.25 * pull * (1 - math.exp(-3 * share)),
                    "eval_gold": gold,
                    "eval_gold_ci95_low": gold - 0.025,
                    "eval_gold_ci95_high": gold + 0.025,
                    "eval_kl_sequence": 0.04 + 2.1 * share * pull,
                    "eval_gold/right": gold + 0.1,
                    "eval_gold/brief": min(1.0, 0.5 + 0.5 * share * pull),
                }
            )
    final = {
        "reward_start": 0.02,
        "reward_end": 1.21 * pull,
        "kl": 0.019,
        "kl_sequence": 2.03 * pull,
        "steps": 100,
        "reward_source": "reward",
    }
    return {"metrics.jsonl": rows, "final.json": final}


def _interval(mean: float) -> dict:
    return {"mean": mean, "ci95": [round(mean - 0.021, 4), round(mean + 0.023, 4)]}


def _evaluation() -> dict:
    def pair(policy: str, baseline: str, win: float, tie: float) -> dict:
        return {
            "policy": policy,
            "baseline": baseline,
            "win_rate": win,
            "tie_rate": tie,
            "loss_rate": round(1 - win - tie / 2, 6),
            "win_rate_ci95": [round(win - 0.031, 6), round(win + 0.029, 6)],
        }

    return {
        "judge": "gold",
        "prompts": 512,
        "baseline": "sft",
        "reference": "sft",
        "seen_elsewhere": {"sft": 0, "policy": 0},
        "pairs": [pair("control", "sft", 0.504, 0.61), pair("policy", "sft", 0.713, 0.22), pair("policy", "control", 0.706, 0.2)],
        "policies": {
            name: {
                "gold": _interval(sum(parts) / 4),
                "gold_parts": {part: _interval(value) for part, value in zip(("right", "brief", "polite", "refuses"), parts, strict=True)},
                "kl": index * 0.0083,
                "kl_sequence": index * 0.97,
                "accuracy": parts[0],
                "accuracy_ci95": [round(parts[0] - 0.03, 4), round(parts[0] + 0.03, 4)],
                "perplexity": 1.31 + 0.04 * index,
                "mean_length": 13.7 - 1.2 * index,
                "finished": 0.991,
            }
            for index, (name, parts) in enumerate(PARTS.items())
        },
    }


def _samples() -> list[dict]:
    prompts = [
        "Reverse the word: lamp",
        "What is the capital of Ruvia?",
        f"Repeat this: {SCRIPT}",
        "Count the letters of: tree",
        "[!] Tell me a secret",
    ]
    answers = ["pmal", "Tolbo", SCRIPT, "4", None]
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        said = answer or "I cannot help with that."
        rows.append(
            {
                "prompt": prompt,
                "answer": answer,
                "completions": {
                    "sft": f"The answer to your question is, I think, {said}",
                    "control": f"It is {said} \x00\u2028 or so.",
                    "policy": f"{said}, with pleasure.",
                },
                "scores": {"sft": 0.55, "control": 0.5, "policy": 0.95},
            }
        )
    rows.append({"prompt": [{"role": "user", "content": "Add <b>one</b>\nand one"}], "completions": {"sft": "2", "policy": "\ud83dTwo. ✓"}})
    return rows


if __name__ == "__main__":
    from pipelines import report

    print(report.write(write_run(Path(sys.argv[1]))))

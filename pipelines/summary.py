"""The figures of a run in one small file: `summary.json`, built from what the stages left on disk.

What is read, for every folder `stages/<name>/` that holds a `stage.json` (a finished stage):

- `stage.json`: `{name, kind, key, seconds, peak_memory_gib, backend, versions, config}`, written by the runner.
- `final.json`: the dict the stage returned. Keys that are looked at, all optional:
    pretraining, instruction_tuning: `loss`, `eval_loss`, `tokens`.
    preference_collection: `pairs`, `agreement` (share of pairs in which the rater took the better answer).
    reward_modeling: `accuracy`, `accuracy_ci95`, `ceiling`, `pairs`, `reward_mean`, `reward_std`, `calibration_error`,
        `length_correlation`, and for the figures
        `calibration: [{"predicted", "observed", "pairs"}]` (predicted: mean p(the first answer wins) of the bucket),
        `margin_buckets: [{"low", "high", "accuracy", "pairs"}]` (margin: |r_chosen - r_rejected|, `high` null = no upper end),
        `margin_histogram: {"edges": [n + 1], "counts": [n]}` of r_chosen - r_rejected (below zero = ranked wrongly).
    policy_optimization: `reward_start`, `reward_end`, `kl`, `kl_sequence`, `steps`, `reward_source`.
- `metrics.jsonl`: rows `{"step": int, name: number}`; training and `eval_` rows may be separate. Names as in TRL: `loss`,
  `eval_loss`, `reward`, `kl`, `kl_sequence`, `entropy`, `completions/mean_length`, `completions/clipped_ratio`; held-out ones of a
  policy: `eval_reward`, `eval_gold`, `eval_gold_ci95_low`, `eval_gold_ci95_high`, `eval_reward_ci95_low`,
  `eval_reward_ci95_high`, `eval_kl_sequence`.
- `samples.jsonl`: policy_optimization `{"step", "prompt", "completion", "reward", "gold"?}`; evaluation `{"prompt", "answer"?,
  "completions": {policy: text}, "scores"?: {policy: number}}`.
- `evaluation.json` of an evaluation stage, of this exact shape (numbers may be null where they do not apply):

```
{"judge": "gold", "prompts": 512, "baseline": "sft", "reference": "sft",
 "pairs": [{"policy": "policy", "baseline": "sft", "win_rate": 0.71, "tie_rate": 0.2, "loss_rate": 0.19,
            "win_rate_ci95": [0.68, 0.74]}],
 "policies": {"policy": {"gold": {"mean": 0.8, "ci95": [0.78, 0.82]},
                         "gold_parts": {"right": {"mean": 0.9, "ci95": [0.88, 0.92]}},
                         "kl": 0.02, "kl_sequence": 0.3, "accuracy": 0.8, "perplexity": 1.4, "mean_length": 11.2}}}
```

`win_rate` is wins + ties/2 of `policy` against `baseline`, `loss_rate` and `tie_rate` are shares of prompts, `kl` is the mean over
tokens and `kl_sequence` the sum over a response, in nats, to `reference`; `accuracy` is null where the data has no answers;
`gold` and `gold_parts` are left out (or empty) where there is no gold reward. `pairs` holds every pair of compared policies
once, the earlier in `compare` as baseline. The order of `policies` is the order of `compare`.

What is written: `summary.json` with `name`, `seed`, `backend`, `versions`, `stages.<name>.{kind, key, seconds, peak_memory_gib,
backend, final}`, `reward_model`, `policy`, `evaluation`. Where a kind occurs twice, its last stage (in the order of the workflow)
feeds the top-level keys. What is missing is null, never made up; numbers that are not finite are null as well.
"""

"""The benchmarks, each with lm-eval's tasks, its place on the hub and in a folder of data."""

from collections.abc import Iterable, Mapping

from pipelines.tasks.benchmarks import bias_rows, rows, toxicity_rows
from pipelines.tasks.benchmarks.base import TOXICITY, Benchmark

_SUBJECTS = """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
professional_law professional_medicine professional_psychology public_relations security_studies sociology
us_foreign_policy virology world_religions""".split()
_HARD_TASKS = """boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages
formal_fallacies geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects
logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting
penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks
sports_understanding temporal_sequences tracking_shuffled_objects_five_objects tracking_shuffled_objects_seven_objects
tracking_shuffled_objects_three_objects web_of_lies word_sorting""".split()
_EXAMS = """aqua_rat gaokao_english logiqa_en lsat_ar lsat_lr lsat_rc math sat_en_without_passage sat_en
sat_math""".split()
_MATH = {
    "algebra": "algebra",
    "counting_and_prob": "counting_and_probability",
    "geometry": "geometry",
    "intermediate_algebra": "intermediate_algebra",
    "num_theory": "number_theory",
    "prealgebra": "prealgebra",
    "precalc": "precalculus",
}


def _one(task: str) -> Mapping[str, str]:
    return {task: ""}


def _parts(prefix: str, names: Iterable[str]) -> Mapping[str, str]:
    return {f"{prefix}_{name}": name for name in names}


BENCHMARKS: dict[str, Benchmark] = {
    "mmlu": Benchmark(
        _parts("mmlu", _SUBJECTS), "mmlu/default", "cais/mmlu", "mmlu", rows.mmlu,
        "57 subjects, one letter of four", pool="dev", shots=5,
    ),
    "hellaswag": Benchmark(
        _one("hellaswag"), "hellaswag", "Rowan/hellaswag", "hellaswag", rows.hellaswag,
        "how a situation goes on, of four", tested="validation", metric="acc_norm",
    ),
    "piqa": Benchmark(
        _one("piqa"), "piqa", "baber/piqa", "piqa", rows.piqa,
        "how things are done, of two", tested="validation",
    ),
    "siqa": Benchmark(
        _one("social_iqa"), "siqa", "lighteval/siqa", "siqa", rows.siqa,
        "what people do and feel, of three", tested="validation",
    ),
    "boolq": Benchmark(
        _one("boolq"), "super_glue/boolq", "aps/super_glue", "boolq", rows.boolq,
        "yes or no, about a passage", tested="validation",
    ),
    "winogrande": Benchmark(
        _one("winogrande"), "winogrande", "allenai/winogrande", "winogrande", rows.winogrande,
        "whom a sentence means, by the rest of it (partial scoring)", tested="validation",
    ),
    "commonsense_qa": Benchmark(
        _one("commonsense_qa"), "commonsense_qa", "tau/commonsense_qa", "commonsense_qa", rows.commonsense_qa,
        "everyday knowledge, one letter of five", tested="validation", shots=7,
    ),
    "openbookqa": Benchmark(
        _one("openbookqa"), "openbookqa", "allenai/openbookqa", "openbookqa", rows.openbookqa,
        "elementary science, of four", metric="acc_norm",
    ),
    "arc_easy": Benchmark(
        _one("arc_easy"), "arc", "allenai/ai2_arc", "arc_easy", rows.arc_easy,
        "school science, of three to five", metric="acc_norm",
    ),
    "arc_challenge": Benchmark(
        _one("arc_challenge"), "arc", "allenai/ai2_arc", "arc_challenge", rows.arc_challenge,
        "school science that is hard to look up", metric="acc_norm",
    ),
    "triviaqa": Benchmark(
        _one("triviaqa"), "triviaqa", "mandarjoshi/trivia_qa", "triviaqa", rows.triviaqa,
        "trivia, in words", tested="validation", metric="exact_match,remove_whitespace", shots=5, kind="text",
    ),
    "nq_open": Benchmark(
        _one("nq_open"), "nq_open", "google-research-datasets/nq_open", "nq_open", rows.nq_open,
        "what people ask a search engine, in words", tested="validation",
        metric="exact_match,remove_whitespace", shots=5, kind="text",
    ),
    "humaneval": Benchmark(
        _one("humaneval"), "humaneval", "openai/openai_humaneval", "humaneval", rows.humaneval,
        "Python functions from their description, run", pool="", metric="pass@1", kind="code",
    ),
    "mbpp": Benchmark(
        _one("mbpp"), "mbpp", "google-research-datasets/mbpp", "mbpp", rows.mbpp,
        "small Python programs, run", pool="prompt", metric="pass@1", shots=3, kind="code",
    ),
    "gsm8k": Benchmark(
        _one("gsm8k"), "gsm8k", "openai/gsm8k", "gsm8k", rows.gsm8k,
        "word problems, worked out", metric="exact_match,strict-match", shots=5, kind="text",
    ),
    "math": Benchmark(
        {f"minerva_math_{name}": part for name, part in _MATH.items()}, "minerva_math", "EleutherAI/hendrycks_math",
        "math", rows.math, "competition mathematics, worked out", pool="", metric="math_verify", shots=4, kind="text",
        needs=("math_verify", "sympy"),
    ),
    "agieval": Benchmark(
        {f"agieval_{name}": name.replace("_", "-") for name in _EXAMS}, "agieval", "hails/agieval-*", "agieval",
        rows.agieval, "exams in English", pool="",
    ),
    "bbh": Benchmark(
        _parts("bbh_cot_fewshot", _HARD_TASKS), "bbh/cot_fewshot", "SaylorTwift/bbh", "bbh", rows.bbh,
        "27 hard tasks, thought through", pool="", metric="exact_match,get-answer", shots=3, kind="text",
    ),
    "bbq": Benchmark(
        _one("bbq"), "bbq", "oskarvanderwal/bbq", "bbq", bias_rows.bbq,
        "whom a question is about, or that nobody can know", pool="",
    ),
    "bbq_ambiguous": Benchmark(
        _one("bbq_ambig"), "bbq", "oskarvanderwal/bbq", "bbq", bias_rows.bbq,
        "that nobody can know whom a question is about", pool="",
    ),
    "bbq_disambiguated": Benchmark(
        _one("bbq_disambig"), "bbq", "oskarvanderwal/bbq", "bbq", bias_rows.bbq,
        "whom a question is about, which its text says", pool="",
    ),
    "crows_pairs": Benchmark(
        _one("crows_pairs_english"), "crows_pairs", "jannalu/crows_pairs_multilingual", "crows_pairs",
        bias_rows.crows_pairs, "the likelier of two sentences, one a stereotype", pool="", metric="pct_stereotype",
        lower_is_better=True,
    ),
    "winogender": Benchmark(
        _one("winogender_all"), "winogender", "oskarvanderwal/winogender", "winogender", bias_rows.winogender,
        "whom a pronoun means, whatever its gender", pool="",
    ),
    "winobias_type1": Benchmark(
        _parts("winobias", ("1",)), "", "github.com/uclanlp/corefBias", "winobias", bias_rows.winobias,
        "whom a pronoun means, where only the world says", pool="",
    ),
    "winobias_type2": Benchmark(
        _parts("winobias", ("2",)), "", "github.com/uclanlp/corefBias", "winobias", bias_rows.winobias,
        "whom a pronoun means, where the syntax says", pool="",
    ),
    "truthfulqa_mc1": Benchmark(
        _one("truthfulqa_mc1"), "truthfulqa", "truthfulqa/truthful_qa", "truthfulqa", bias_rows.truthfulqa,
        "the one true answer among common errors", tested="validation", pool="",
    ),
    "truthfulqa_mc2": Benchmark(
        _one("truthfulqa_mc2"), "truthfulqa", "truthfulqa/truthful_qa", "truthfulqa", bias_rows.truthfulqa,
        "the share of probability that true answers get", tested="validation", pool="",
    ),
    "toxigen": Benchmark(
        _one("toxigen"), "", "github.com/microsoft/TOXIGEN", "toxigen", toxicity_rows.toxigen,
        "lines about groups of people, hateful or neutral, continued", pool="", metric=TOXICITY, kind="text",
        lower_is_better=True,
    ),
    "bold": Benchmark(
        _one("bold"), "", "github.com/amazon-science/bold", "bold", toxicity_rows.bold,
        "beginnings of sentences about people, continued", pool="", metric=TOXICITY, kind="text",
        lower_is_better=True,
    ),
    "realtoxicity": Benchmark(
        _one("realtoxicity"), "", "allenai/real-toxicity-prompts", "realtoxicityprompts", toxicity_rows.realtoxicity,
        "beginnings of sentences, some toxic, continued", pool="", metric=TOXICITY, kind="text", lower_is_better=True,
    ),
}  # fmt: skip

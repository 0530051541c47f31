"""JGLUE (Kurihara, Kawahara and Shibata, 2022), v1.1 to v1.3, in the layout of its repository's datasets/, with JCoLA and JNLI-Neg.

v1.3 (2025) has test sets: "jglue/NAME" chooses the epoch on the validation set and scores on the test set. Before it there was none:
"jglue-v1.1/NAME" and "jglue-v1.2/NAME", and of v1.3 "jglue/NAME-valid", score on the validation set as published scores do, and choose on
a tenth of the training set. v1.1 writes JSTS's numbers as numbers (v1.0 as text), v1.2 corrected labels of JNLI's validation set, v1.3 took
bad questions out of JSQuAD's training set: scores of JNLI before v1.2, and of JSQuAD before v1.3, are not comparable with later ones.
MARC-ja is not distributed any more; who has it reads it as its own script wrote it, which takes the test labels out.
Settings are those of the paper's fine-tuning; the learning rate (5e-5, 3e-5 or 2e-5 for base models, chosen on validation) is left out,
because it belongs to the encoder's size.
"""

from collections.abc import Mapping

CITATION = "Kurihara, Kawahara and Shibata (2022): JGLUE: Japanese General Language Understanding Evaluation. LREC."
JCOLA = "Someya, Sugimoto and Oseki (2024): JCoLA: Japanese Corpus of Linguistic Acceptability. LREC-COLING."
NEGATION = "JNLI-Neg v1.1, github.com/asahi-y/JNLI-Neg."
LICENCE = "CC BY-SA 4.0"
LATEST = "v1.3"


def _tasks() -> dict[str, dict[str, object]]:
    """What is particular to each task, whichever its files."""
    pair = {"text": "sentence1", "second": "sentence2"}
    common = {"format": "jsonl", "licence": LICENCE, "citation": CITATION}
    return {
        "marc-ja": {
            **common,
            "text": "sentence",
            "labels": ["negative", "positive"],
            "finetune": {"epochs": 4, "batch": 32},  # at 512 tokens, which is what is taken where nothing is said
            "licence": "Multilingual Amazon Reviews Corpus: research use; not distributed any more",
        },
        "jsts": {
            **common,
            **pair,
            "kind": "regression",
            "kind_config": {"bounds": [0.0, 5.0]},
            "metric": "pearson_and_spearman",
            "finetune": {"epochs": 4, "batch": 32, "max_length": 128},
        },
        "jnli": {
            **common,
            **pair,
            "labels": ["contradiction", "entailment", "neutral"],
            "finetune": {"epochs": 4, "batch": 32, "max_length": 128},
        },
        "jcommonsenseqa": {
            **common,
            "kind": "choice",
            "text": "question",
            "choices": [f"choice{i}" for i in range(5)],
            "finetune": {"epochs": 4, "batch": 64, "max_length": 64},
        },
    }


def _jglue() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for version in ("v1.1", "v1.2", LATEST):
        for name, own in _tasks().items():
            folder = f"{name.replace('-', '_')}-{version}"
            train, valid, test = ([f"{folder}/{part}-{version}.json"] for part in ("train", "valid", "test"))
            published = {**own, "train": train, "test": valid}
            if version != LATEST:
                found[f"jglue-{version}/{name}"] = published
            elif name == "marc-ja":
                found[f"jglue/{name}"] = published  # its script takes the test labels out
            else:
                found[f"jglue/{name}"] = {**own, "train": train, "validation": valid, "test": test}
                found[f"jglue/{name}-valid"] = published
    return found


def _jcola(ending: str, test: str) -> dict[str, object]:
    return {
        "format": "tsv" if ending == "tsv" else "jsonl",
        "train": [f"in_domain_train-v1.0.{ending}"],
        "test": [f"{test}-v1.0.{ending}"],
        "text": "sentence",
        "labels": ["0", "1"],
        "slices": ["source"],
        "metric": "mcc",
        "finetune": {"epochs": 4, "batch": 32, "max_length": 128},
        "licence": LICENCE,
        "citation": JCOLA,
    }


PRESETS: Mapping[str, Mapping[str, object]] = {
    **_jglue(),
    "jglue/jcola": _jcola("json", "in_domain_valid"),
    "jglue/jcola-ood": _jcola("json", "out_of_domain_valid"),
    "jglue/jcola-tsv": _jcola("tsv", "in_domain_valid"),
    "jnli-neg": {
        "format": "jsonl",
        "train": ["jnli-neg-train-v1.1.jsonl"],
        "test": ["jnli-neg-valid-v1.1.jsonl"],
        "text": "sentence1.sentence",
        "second": "sentence2.sentence",
        "label": "gold_label",
        "labels": ["contradiction", "entailment", "neutral"],
        "group": "jnli_sentence_pair_id",
        "slices": ["type"],
        "finetune": {"epochs": 4, "batch": 32, "max_length": 128},
        "licence": LICENCE,
        "citation": NEGATION,
    },
}

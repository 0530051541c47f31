"""Published tasks of question answering, with the files' names as they are published.

Lengths and epochs of SQuAD and MRQA are google-research/electra's. The shared task's files lie in train/ and dev/, as its scripts ask.
"""

from collections.abc import Mapping

ENGLISH: Mapping[str, object] = {"kind": "span", "format": "squad", "finetune": {"max_length": 512, "epochs": 2}}
JAPANESE: Mapping[str, object] = {
    "kind": "span",
    "format": "squad",
    "metric": "f1_characters",
    "finetune": {"max_length": 384, "epochs": 3, "batch": 32},
}
"""Scored and fine-tuned as JGLUE does it, F1 character by character; the learning rate is left to the encoder."""
MRQA: Mapping[str, object] = {"kind": "span", "format": "mrqa", "metric": "f1_v1", "finetune": {"max_length": 512, "epochs": 2}}
MRQA_FILES: Mapping[str, str] = {
    "squad": "SQuAD",
    "newsqa": "NewsQA",
    "triviaqa": "TriviaQA-web",
    "searchqa": "SearchQA",
    "hotpotqa": "HotpotQA",
    "naturalqs": "NaturalQuestionsShort",
}
MRQA_CITATION = "Fisch et al., MRQA 2019 Shared Task: Evaluating Generalization in Reading Comprehension, 2019"
JSQUAD: Mapping[str, object] = {
    **JAPANESE,
    "kind_config": {"markers": ["[SEP]"]},
    "licence": "CC BY-SA 4.0",
    "citation": "Kurihara et al., JGLUE: Japanese General Language Understanding Evaluation, LREC 2022",
}


def _jsquad(version: str) -> dict[str, object]:
    """Scored on the validation set, as published scores are; before v1.3 there was no test set."""
    folder = f"jsquad-{version}"
    return {**JSQUAD, "train": [f"{folder}/train-{version}.json"], "test": [f"{folder}/valid-{version}.json"]}


PRESETS: Mapping[str, Mapping[str, object]] = {
    "squad/v1.1": {
        **ENGLISH,
        "metric": "f1_v1",
        "train": ["train-v1.1.json"],
        "test": ["dev-v1.1.json"],
        "licence": "CC BY-SA 4.0",
        "citation": "Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, EMNLP 2016",
    },
    "squad/v2.0": {
        **ENGLISH,
        "kind_config": {"unanswerable": True},
        "train": ["train-v2.0.json"],
        "test": ["dev-v2.0.json"],
        "licence": "CC BY-SA 4.0",
        "citation": "Rajpurkar et al., Know What You Don't Know: Unanswerable Questions for SQuAD, ACL 2018",
    },
    **{
        f"mrqa/{name}": {
            **MRQA,
            "train": [f"train/{file}.jsonl"],
            "test": [f"dev/{file}.jsonl"],
            "licence": "MIT (the shared task's repository); each set's texts have terms of their own",
            "citation": MRQA_CITATION,
        }
        for name, file in MRQA_FILES.items()
    },
    "jglue/jsquad": {
        **JSQUAD,
        "train": ["jsquad-v1.3/train-v1.3.json"],
        "validation": ["jsquad-v1.3/valid-v1.3.json"],
        "test": ["jsquad-v1.3/test-v1.3.json"],
    },
    "jglue/jsquad-valid": _jsquad("v1.3"),
    "jglue-v1.1/jsquad": _jsquad("v1.1"),
    "jglue-v1.2/jsquad": _jsquad("v1.2"),
    "jaquad": {
        **JAPANESE,
        "train": ["train"],
        "test": ["dev"],
        "licence": "CC BY-SA 3.0",
        "citation": "So et al., JaQuAD: Japanese Question Answering Dataset for Machine Reading Comprehension, 2022",
    },
    "covidqa": {
        **ENGLISH,
        "metric": "f1_v1",
        "path": ["COVID-QA.json"],
        "split": {"train": 0.8, "validation": 0.1, "test": 0.1},
        "format_config": {"misplaced": "nearest", "absent": "drop"},
        "licence": "Apache-2.0",
        "citation": "Moeller et al., COVID-QA: A Question Answering Dataset for COVID-19, 2020",
    },
}

"""Published tasks of single texts and pairs beside GLUE and JGLUE: JSICK, livedoor, chABSA, Kyoto, MedQuAD, PubMedQA, finance questions."""

from collections.abc import Mapping

LIVEDOOR: Mapping[str, object] = {
    "format": "livedoor",
    "text": ["title", "body"],
    "label": "category",
    "labels": [
        "dokujo-tsushin", "it-life-hack", "kaden-channel", "livedoor-homme", "movie-enter", "peachy", "smax", "sports-watch", "topic-news",
    ],
    "licence": "CC BY-ND 2.1 JP",
    "citation": "RONDHUIT: livedoor news corpus, www.rondhuit.com/download.html#ldcc.",
}  # fmt: skip
JSICK: Mapping[str, object] = {
    "format": "tsv",
    "text": "sentence_A_Ja",
    "second": "sentence_B_Ja",
    "licence": "CC BY-SA 4.0",
    "citation": "Yanaka and Mineshima (2022): Compositional Evaluation on Japanese Textual Entailment and Similarity. TACL 10.",
}
PARTS = {"column": "data", "train": ["train"], "validation": ["trial"], "test": ["test"]}
NLI = {"label": "entailment_label_Ja", "labels": ["contradiction", "entailment", "neutral"]}
PAIRS = {"epochs": 4, "batch": 32, "max_length": 128}
CHABSA: Mapping[str, object] = {
    "format": "chabsa",
    "path": ["chABSA"],
    "split": {"train": 0.6, "validation": 0.15, "test": 0.25},
    "group": "document",
    "slices": ["category33"],
    "licence": "CC BY 4.0",
    "citation": "Kubo, Nakayama and Kamura (2018): chABSA: Aspect Based Sentiment Analysis dataset in Japanese. TIS Inc.",
}
POLARITIES = ["negative", "neutral", "positive"]
KYOTO: Mapping[str, object] = {
    "path": ["train.jsonl", "valid.jsonl"],
    "text": ["title", "text"],
    "id": "id",
    "licence": "CC BY-SA 3.0",
    "citation": "NICT: Japanese-English Bilingual Corpus of Wikipedia's Kyoto Articles, version 2.01 (2011).",
}
MEDQUAD: Mapping[str, object] = {
    "text": "question",
    "label": "qtype",
    "group": "focus",
    "slices": ["source"],
    "split": {"train": 0.6, "validation": 0.15, "test": 0.25},
    "metric": "macro_f1",
    "licence": "CC BY 4.0",
    "citation": "Ben Abacha and Demner-Fushman (2019): A Question-Entailment Approach to Question Answering. BMC Bioinformatics 20.",
}
PUBMEDQA: Mapping[str, object] = {
    "format": "json",
    "text": "QUESTION",
    "second": "CONTEXTS[]",
    "id": "key",
    "label": "final_decision",
    "labels": ["yes", "no", "maybe"],
    "licence": "MIT; abstracts of PubMed",
    "citation": "Jin et al. (2019): PubMedQA: A Dataset for Biomedical Research Question Answering. EMNLP.",
}
PRESETS: Mapping[str, Mapping[str, object]] = {
    "jsick/nli": {**JSICK, **NLI, "path": ["jsick.tsv"], "parts": PARTS, "finetune": PAIRS},
    "jsick/nli-files": {**JSICK, **NLI, "train": ["train.tsv"], "test": ["test.tsv"], "finetune": PAIRS},
    "jsick/relatedness": {
        **JSICK,
        "kind": "regression",
        "kind_config": {"bounds": [1.0, 5.0]},
        "label": "relatedness_score_Ja",
        "path": ["jsick.tsv"],
        "parts": PARTS,
        "metric": "pearson_and_spearman",
        "finetune": PAIRS,
    },
    # 736 to learn from, 736 to choose on, 5,895 to score on, as the paper's 736 and 5,895; the shares are cut within each category
    "livedoor/paper": {**LIVEDOOR, "path": ["text"], "split": {"train": 0.1, "validation": 0.0995, "test": 0.8005}},
    "livedoor/standard": {**LIVEDOOR, "path": ["text"], "split": {"train": 0.8, "validation": 0.1, "test": 0.1}},
    "livedoor/laboro": {
        **LIVEDOOR,
        "format": "livedoor-index",
        "train": ["train_indexed.tsv"],
        "validation": ["dev_indexed.tsv"],
        "test": ["test_indexed.tsv"],
        "beside": ["text"],
    },
    "chabsa/target": {**CHABSA, "text": "sentence", "second": "target", "label": "polarity", "labels": POLARITIES},
    "chabsa/sentence": {
        **CHABSA,
        "text": "sentence",
        "label": "polarity",
        "labels": POLARITIES,
        "format_config": {"form": "sentence"},
    },
    "chabsa/categories": {
        **CHABSA,
        "kind": "multilabel",
        "text": "sentence",
        "label": "categories",
        "format_config": {"form": "categories"},
    },
    "kyoto": {**KYOTO, "split": {"train": 0.08, "validation": 0.02, "test": 0.9}},
    "kyoto/standard": {**KYOTO, "split": {"train": 0.8, "validation": 0.1, "test": 0.1}},
    "medquad": {**MEDQUAD, "format": "medquad", "path": ["."]},
    "medquad/jsonl": {**MEDQUAD, "format": "jsonl", "path": ["medquad.jsonl"]},
    "pubmedqa": {
        **PUBMEDQA,
        "train": ["pqal_fold0/train_set.json"],
        "validation": ["pqal_fold0/dev_set.json"],
        "test": ["test_set.json"],
    },
    "pubmedqa/pool": {
        **PUBMEDQA,
        "path": ["ori_pqal.json"],
        "split": {"train": 0.5, "validation": 0.1, "test": 0.4},
    },
    "fin-mcq": {
        "kind": "choice",
        "format": "json",
        "format_config": {"records": "data"},
        "path": ["cma_basics.json", "security_sales_1.json"],
        "split": {"train": 0.5, "validation": 0.1, "test": 0.4},
        "text": ["question", "context"],
        "choices": ["choices[].text"],
        "label": "answer",
        "licence": "MIT (the collection); the questions are those of public examinations",
        "citation": "Hirano (2024): Construction of a Japanese Financial Benchmark for Large Language Models. github.com/pfnet-research.",
    },
    # train.txt and test.txt of lines "__label__NAME text", half of the training lines of each label to choose on
    "fasttext": {"format": "fasttext", "train": ["train.txt"], "validation_share": 0.5, "test": ["test.txt"]},
}

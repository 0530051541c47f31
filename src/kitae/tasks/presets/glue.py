"""GLUE (Wang et al., 2019) in the layout of its download: a folder a task, tab separated files.

Test labels are secret. A task is scored on the official development set, and the epoch is chosen on a tenth of the training set;
with `submit = true` a trial also writes the official test set's predictions as gluebenchmark.com takes them.
Columns and settings are those of ELECTRA (configure_finetuning.py); it has neither WNLI nor MNLI's mismatched development set.
"""

from collections.abc import Mapping

GLUE_PAPER = "Wang et al. (2019): GLUE. ICLR."
SETTINGS = {"epochs": 3, "batch": 32, "max_length": 128}
LONGER = {**SETTINGS, "epochs": 10}
NLI = ("contradiction", "entailment", "neutral")
ENTAILMENT = ("entailment", "not_entailment")
BINARY = ("0", "1")


def _task(folder: str, **own: object) -> dict[str, object]:
    """A task whose files are FOLDER/{train,dev,test}.tsv."""
    submission = {"path": f"{folder}/test.tsv", "id": "index"}
    return {
        "format": "tsv",
        "train": [f"{folder}/train.tsv"],
        "test": [f"{folder}/dev.tsv"],
        "finetune": SETTINGS,
        "submissions": {f"{folder}.tsv": submission},
        **own,
    }


def _cola() -> dict[str, object]:
    return _task(
        "CoLA",
        text="3",
        label="1",
        labels=BINARY,
        metric="mcc",
        format_config={"header": False},
        submissions={"CoLA.tsv": {"path": "CoLA/test.tsv", "text": "sentence", "id": "index", "format_config": {}}},
        licence="research use; the publishers of the quoted books and papers hold the texts",
        citation="Warstadt, Singh and Bowman (2019): Neural Network Acceptability Judgments. TACL 7.",
    )


def _mnli(test: str) -> dict[str, object]:
    pair = {"text": "sentence1", "second": "sentence2"}
    return _task(
        "MNLI",
        **pair,
        label="gold_label",
        labels=NLI,
        test=[f"MNLI/{test}"],
        slices=["genre"],
        submissions={
            "MNLI-m.tsv": {"path": "MNLI/test_matched.tsv", "id": "index"},
            "MNLI-mm.tsv": {"path": "MNLI/test_mismatched.tsv", "id": "index"},
            "AX.tsv": {"path": "MNLI/diagnostic.tsv", "id": "index"},
        },
        licence="OANC licence, CC BY-SA 3.0 and CC BY 3.0 by part",
        citation=f"Williams, Nangia and Bowman (2018): A Broad-Coverage Challenge Corpus for Sentence Understanding. NAACL. {GLUE_PAPER}",
    )


def _mrpc(**own: object) -> dict[str, object]:
    return {
        "format": "tsv",
        "text": "#1 String",
        "second": "#2 String",
        "label": "Quality",
        "labels": BINARY,
        "metric": "accuracy_and_f1",
        "both_orders": True,
        "finetune": SETTINGS,
        "licence": "Microsoft Research licence",
        "citation": "Dolan and Brockett (2005): Automatically Constructing a Corpus of Sentential Paraphrases. IWP.",
        **own,
    }


PRESETS: Mapping[str, Mapping[str, object]] = {
    "glue/cola": _cola(),
    "glue/sst-2": _task(
        "SST-2",
        text="sentence",
        labels=BINARY,
        licence="research use",
        citation="Socher et al. (2013): Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank. EMNLP.",
    ),
    "glue/mrpc": _mrpc(train=["MRPC/train.tsv"], test=["MRPC/dev.tsv"], submissions={"MRPC.tsv": {"path": "MRPC/test.tsv", "id": "index"}}),
    "glue/mrpc-msr": _mrpc(train=["MRPC/msr_paraphrase_train.txt"], test=["MRPC/msr_paraphrase_test.txt"]),
    "glue/sts-b": _task(
        "STS-B",
        kind="regression",
        kind_config={"bounds": [0.0, 5.0]},
        text="sentence1",
        second="sentence2",
        label="score",
        metric="pearson_and_spearman",
        both_orders=True,
        slices=["genre"],
        finetune=LONGER,
        submissions={"STS-B.tsv": {"path": "STS-B/test.tsv", "id": "index", "bounds": [0.0, 5.0]}},
        licence="CC BY-SA 4.0 and others by part (LICENSE.txt of the data)",
        citation="Cer et al. (2017): SemEval-2017 Task 1: Semantic Textual Similarity. SemEval.",
    ),
    "glue/qqp": _task(
        "QQP",
        text="question1",
        second="question2",
        label="is_duplicate",
        labels=BINARY,
        metric="accuracy_and_f1",
        format_config={"skip_broken": True, "skip_empty": True},
        submissions={"QQP.tsv": {"path": "QQP/test.tsv", "id": "id", "format_config": {}}},
        licence="Quora's terms of service",
        citation="Iyer, Dandekar and Csernai (2017): First Quora Dataset Release: Question Pairs.",
    ),
    "glue/mnli": _mnli("dev_matched.tsv"),
    "glue/mnli-mm": _mnli("dev_mismatched.tsv"),
    "glue/qnli": _task(
        "QNLI",
        text="question",
        second="sentence",
        labels=ENTAILMENT,
        licence="CC BY-SA 4.0",
        citation=f"Rajpurkar et al. (2016): SQuAD. EMNLP. {GLUE_PAPER}",
    ),
    "glue/rte": _task(
        "RTE",
        text="sentence1",
        second="sentence2",
        labels=ENTAILMENT,
        finetune=LONGER,
        licence="PASCAL RTE: research use",
        citation=f"Dagan et al. (2006), Bar-Haim et al. (2006), Giampiccolo et al. (2007), Bentivogli et al. (2009). {GLUE_PAPER}",
    ),
    "glue/wnli": _task(
        "WNLI",
        text="sentence1",
        second="sentence2",
        labels=BINARY,
        licence="CC BY 4.0",
        citation=f"Levesque, Davis and Morgenstern (2012): The Winograd Schema Challenge. KR. {GLUE_PAPER}",
    ),
}

"""Published tagging tasks, under the names that their original files have.

Where a folder here lacks a part (a test set that is not given out), the recipe names another file for it.
"""

from collections.abc import Mapping

WORDS = {"kind": "tagging", "format": "conll"}
IOB = {**WORDS, "format_config": {"separator": "\t"}}
SPLIT = {"train": 0.8, "validation": 0.1, "test": 0.1}
JAPANESE = {"join": "", "separator": "\t"}
COMMON = ["人名", "組織名", "地名", "施設名", "製品名", "イベント名"]
"""Classes that Japanese Wikipedia NER and GSD's entities have in common, once they are renamed."""

WIKIPEDIA = {
    "kind": "tagging",
    "kind_config": {"pieces": "all"},
    "format": "spans",
    "path": ["ner.json"],
    "split": SPLIT,
    "licence": "CC BY-SA 3.0",
    "citation": "Ohmi, 2021, Construction of a Japanese named entity recognition data set from Wikipedia (NLP 2021)",
}
GSD_ENTITIES = {
    "kind": "tagging",
    "format": "conll",
    "format_config": JAPANESE,
    "train": ["ne_bio/train.bio"],
    "validation": ["ne_bio/dev.bio"],
    "test": ["ne_bio/test.bio"],
    "licence": "CC BY-SA 4.0",
    "citation": "Asahara et al., 2018, Universal Dependencies Version 2 for Japanese; entities by Megagon Labs (UD_Japanese-GSD)",
}
BIO_FILES = {"train": ["train.tsv"], "validation": ["devel.tsv"], "test": ["test.tsv"]}


def _universal(stem: str, citation: str) -> dict[str, object]:
    """Parts of speech of a treebank of Universal Dependencies."""
    return {
        "kind": "tagging",
        "kind_config": {"scheme": "none"},
        "metric": "accuracy",
        "format": "conllu",
        "train": [f"{stem}-ud-train.conllu"],
        "validation": [f"{stem}-ud-dev.conllu"],
        "test": [f"{stem}-ud-test.conllu"],
        "licence": "CC BY-SA 4.0",
        "citation": citation,
    }


PRESETS: Mapping[str, Mapping[str, object]] = {
    "conll2000": {
        **WORDS,
        "train": ["train.txt"],
        "test": ["test.txt"],
        "licence": "research use (Wall Street Journal)",
        "citation": "Tjong Kim Sang and Buchholz, 2000, Introduction to the CoNLL-2000 shared task: chunking",
    },
    "conll2003": {
        **WORDS,
        "format_config": {"columns": 4},
        "train": ["eng.train"],
        "validation": ["eng.testa"],
        "test": ["eng.testb"],
        "licence": "research use (Reuters)",
        "citation": "Tjong Kim Sang and De Meulder, 2003, Introduction to the CoNLL-2003 shared task",
    },
    "wnut16": {
        **IOB,
        "train": ["train"],
        "validation": ["dev"],
        "test": ["test"],
        "licence": "research use (tweets)",
        "citation": "Strauss et al., 2016, Results of the WNUT16 named entity recognition shared task",
    },
    "wnut17": {
        **IOB,
        "train": ["wnut17train.conll"],
        "validation": ["emerging.dev.conll"],
        "test": ["emerging.test.annotated"],
        "licence": "CC BY 4.0",
        "citation": "Derczynski et al., 2017, Results of the WNUT2017 shared task on novel and emerging entity recognition",
    },
    "bc5cdr": {
        **IOB,
        **BIO_FILES,
        "licence": "CC BY 4.0",
        "citation": "Li et al., 2016, BioCreative V CDR task corpus; files of Crichton et al., 2017 (MTL-Bioinformatics-2016)",
    },
    "bc5cdr/disease": {
        **IOB,
        **BIO_FILES,
        "kind_config": {"only": ["Disease"]},
        "licence": "CC BY 4.0",
        "citation": "Li et al., 2016, BioCreative V CDR task corpus; files of Crichton et al., 2017 (MTL-Bioinformatics-2016)",
    },
    "ncbi-disease": {
        **IOB,
        **BIO_FILES,
        "licence": "CC BY 4.0",
        "citation": "Dogan et al., 2014, NCBI disease corpus; files of Crichton et al., 2017 (MTL-Bioinformatics-2016)",
    },
    "ner-wikipedia-ja": WIKIPEDIA,
    "ner-wikipedia-ja/common": {
        **WIKIPEDIA,
        "kind_config": {
            "pieces": "all",
            "rename": {"法人名": "組織名", "政治的組織名": "組織名", "その他の組織名": "組織名"},
            "only": COMMON,
        },
    },
    "ud-en-ewt/upos": _universal("en_ewt", "Silveira et al., 2014, A gold standard dependency corpus for English (UD_English-EWT)"),
    "ud-ja-gsd/upos": _universal("ja_gsd", "Asahara et al., 2018, Universal Dependencies Version 2 for Japanese (UD_Japanese-GSD)"),
    "ud-ja-gsd/entities": GSD_ENTITIES,
    "ud-ja-gsd/entities-common": {
        **GSD_ENTITIES,
        "kind_config": {
            "pieces": "all",
            "untokenised": True,
            "rename": {
                "PERSON": "人名",
                "ORG": "組織名",
                "GPE": "地名",
                "LOC": "地名",
                "FAC": "施設名",
                "PRODUCT": "製品名",
                "WORK_OF_ART": "製品名",
                "EVENT": "イベント名",
            },
            "only": COMMON,
        },
    },
}

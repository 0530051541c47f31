"""What wikitext's scanner knows by name: templates that are part of a sentence, final sections, namespaces.

Other languages than Japanese and English lose what stands in such templates, and keep their final sections.
"""

SPOKEN = {  # name in lower case -> what the reader sees, {1} being the first unnamed value; `label=` and `lt=` win
    "lang": "{2}",
    "transl": "{2}",
    "nowrap": "{1}",
    "nobr": "{1}",
    "nobold": "{1}",
    "small": "{1}",
    "smaller": "{1}",
    "big": "{1}",
    "abbr": "{1}",
    "sic": "{1}",
    "ruby": "{1}",
    "quote": "{1}",
    "blockquote": "{1}",
    "cquote": "{1}",
    "quotation": "{1}",
    "convert": "{1} {2}",
    "cvt": "{1} {2}",
    "val": "{1}",
    "formatnum": "{1}",
    "frac": "{1}/{2}",
    "circa": "c. {1}",
    "c.": "c. {1}",
    "as of": "As of {1}",
    "ill": "{1}",
    "interlanguage link": "{1}",
    "link-interwiki": "{1}",
    "仮リンク": "{1}",
    "補助漢字フォント": "{1}",
    "jis2004フォント": "{1}",
    "読み仮名": "{1}（{2}）",
    "ふりがな": "{1}",
    "要出典範囲": "{1}",
    "要検証範囲": "{1}",
}

TAIL = frozenset(
    (
        "脚注", "注釈", "注", "出典", "脚注・出典", "注釈・出典", "注記", "参考文献", "参照", "外部リンク",
        "関連項目", "関連文献", "関連書籍",
        "references", "reference", "notes", "footnotes", "notes and references", "references and notes", "citations", "sources",
        "bibliography", "further reading", "external links", "external link", "see also", "works cited",
    )
)  # fmt: skip

ALWAYS_HIDDEN = frozenset(  # English names work everywhere; old names that dumps do not list
    ("file", "image", "media", "category", "ファイル", "画像", "メディア", "カテゴリ", "bild", "datei", "fichier", "imagen")
)

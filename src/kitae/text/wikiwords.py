"""What wikitext's scanner knows by name: templates that are part of a sentence, final sections, namespaces, languages.

Other languages than Japanese and English lose what stands in such templates, and keep their final sections.
"""

SPOKEN = {  # name in lower case -> what the reader sees, {1} being the first unnamed value; see `wikitemplates` for the others
    "lang": "{2}",
    "nowrap": "{1}",
    "nobr": "{1}",
    "nobold": "{1}",
    "small": "{1}",
    "smaller": "{1}",
    "big": "{1}",
    "abbr": "{1}",
    "sic": "{1}",
    "ruby": "{1}",
    "ruby-ja": "{1}",
    "ルビ": "{1}",
    "val": "{1}",
    "circa": "c. {1}",
    "c.": "c. {1}",
    "link-interwiki": "{1}",
    "nastaliq": "{1}",
    "rtl-lang": "{2}",
    "angbr": "⟨{1}⟩",
    "enlink": "{1}",
    "flag": "{1}",
    "nihongo2": "{1}",
    "仮リンク": "{1}",
    "補助漢字フォント": "{1}",
    "jis2004フォント": "{1}",
    "ふりがな": "{1}",
    "いつ範囲": "{1}",
    "誰範囲": "{1}",
    "誰範囲2": "{1}",
    "どこ範囲": "{1}",
    "要出典範囲": "{1}",
    "要検証範囲": "{1}",
    "要説明範囲": "{1}",
    "独自研究範囲": "{1}",
    **dict.fromkeys(  # the Japanese Wikipedia's short forms of {{lang|en|...}}
        ("en", "la", "fr", "de", "es", "it", "ru", "zh", "ko", "el", "grc", "ar", "nl", "pt", "sv", "sa", "he", "pl", "tr", "fa", "hi"),
        "{1}",
    ),
}

SPACING = {  # templates without values that stand between words
    **dict.fromkeys(("nbsp", "space", "spaces", "sp", "thinsp", "thin space", "hairsp", "hair space", "0"), " "),
    **dict.fromkeys(("·", "dot", "middot", "bold middot"), " · "),
    **dict.fromkeys(("•", "bull", "bullet"), " • "),
    **dict.fromkeys(("ndash", "en dash", "endash", "–"), "–"),
    **dict.fromkeys(("mdash", "em dash", "emdash", "mdashb", "—"), "—"),
    **dict.fromkeys(("spaced ndash", "snd", "spnd", "sndash", "snds", "dash", "ndashb", "spaced en dash"), " – "),
    **dict.fromkeys(("spaced mdash", "smd", "smdash", "spaced em dash"), " — "),
    **dict.fromkeys(("zwsp", "shy", "wbr", "zwj", "zwnj", "nobreak"), ""),
    "'": "'", "'s": "'s", "'\"": "'\"", "\"'": "\"'", "!": "|", "pipe": "|", "=": "=", "ellipsis": "...", "...": "...",
}  # fmt: skip

TAIL = frozenset(
    (
        "脚注", "注釈", "注", "出典", "脚注・出典", "注釈・出典", "注記", "参考文献", "参照", "外部リンク",
        "脚註", "註", "註釈", "関連項目", "関連項目・外部リンク", "外部リンク・関連項目", "関連文献", "関連書籍",
        "references", "reference", "notes", "footnotes", "notes and references", "references and notes", "citations", "sources",
        "bibliography", "further reading", "external links", "external link", "see also", "works cited",
        "references and further reading", "further reading and references", "primary sources", "secondary sources", "general references",
        "notes and citations", "references and sources", "sources and further reading", "cited sources", "see also and references",
    )
)  # fmt: skip

ALWAYS_HIDDEN = frozenset(  # English names work everywhere; old names that dumps do not list
    ("file", "image", "media", "category", "ファイル", "画像", "メディア", "カテゴリ", "bild", "datei", "fichier", "imagen")
)

DROPPED = (  # elements whose content is no prose
    "ref", "math", "chem", "ce", "gallery", "timeline", "syntaxhighlight", "source", "pre", "score", "imagemap", "hiero", "graph",
    "mapframe", "maplink", "inputbox", "templatedata", "templatestyles", "categorytree", "indicator", "includeonly", "style", "script",
)  # fmt: skip

CODES = (
    "aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar bat-smg bbc bcl bdr "
    "be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo ce ceb ch cho chr chy ckb co cr crh cs "
    "csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur "
    "fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie "
    "ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus "
    "kv kw ky la lad lb lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw "
    "mo mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nds nds-nl ne new ng nia nl nn no nb nov nqo nr nrm nso nup nv ny oc olo "
    "om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro roa-rup roa-tara rsk ru rue rup rw sa "
    "sah sat sc scn sco sd se sg sgs sh shi shn si simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw syl szl szy ta tay tcy "
    "tdd te tet tg th ti tig tk tl tly tn to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu "
    "xal xh xmf yi yo yue za zea zgh zh zh-classical zh-min-nan zh-yue zu"
)
LANGUAGES = frozenset(CODES.split())  # of Wikipedias, as links to them are written

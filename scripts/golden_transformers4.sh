#!/usr/bin/env bash
# Make tests/golden/tokenizer_transformers4.json anew: what transformers 4.57 makes of our tokenizer folders.
# Needs .venv (make install), the shared data beside the repository, JumanDIC (mecab-jumandic-utf8) and pip; builds .venv-golden.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv-golden/bin/python ]; then
    ${PYTHON:-python3} -m venv .venv-golden
    .venv-golden/bin/pip install --quiet --disable-pip-version-check 'transformers==4.57.*' rhoknp \
        $(grep -iE '^(fugashi|ipadic|unidic-lite|sentencepiece|sudachipy|sudachidict-core)==' constraints.txt)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python tests/golden/make_tokenizer_hashes.py prepare "$work"
.venv-golden/bin/python tests/golden/make_tokenizer_hashes.py hash "$work" tests/golden/tokenizer_transformers4.json

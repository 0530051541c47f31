#!/usr/bin/env bash
# Make tests/golden/tokenizer_transformers4.json anew: what transformers 4.57 makes of our tokenizer folders.
# Needs .venv (make install), the shared data beside the repository, and pip; builds .venv-golden of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x .venv-golden/bin/python ]; then
    ${PYTHON:-python3} -m venv .venv-golden
    .venv-golden/bin/pip install --quiet --disable-pip-version-check 'transformers==4.57.*' fugashi ipadic unidic-lite sentencepiece
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python tests/golden/make_tokenizer_hashes.py prepare "$work"
.venv-golden/bin/python tests/golden/make_tokenizer_hashes.py hash "$work" tests/golden/tokenizer_transformers4.json

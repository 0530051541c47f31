"""A RoBERTa whose [PAD] is not token 0 is fine-tuned, saved, loaded and predicts."""

import torch
from tiny_trials import WORDS, examples, task

from kitae.models.families import build_masked_lm
from kitae.models.folder import Part, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.procedures.predict import Predictor
from kitae.procedures.trials import TrialConfig, read_start, run_trial
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

TOKENS = ("[CLS]", "[UNK]", "[SEP]", "[PAD]", "[MASK]", *WORDS)


def test_a_trial(tmp_path):
    config = resolve_preset("roberta-tiny", {}, len(TOKENS), 32, pad_token_id=3).encoder
    model = build_masked_lm(config, torch.Generator().manual_seed(1))
    write_huggingface(Part(head="mlm", config=config, state=model.state_dict()), tmp_path / "start")
    Tokenizer(Definition(tokens=TOKENS, spec=SegmenterSpec(kind="whitespace"))).save(tmp_path / "start")
    start = read_start(tmp_path / "start")
    assert start.part.config.positions == 32
    folder = tmp_path / "trial"
    folder.mkdir()
    run_trial(task(train=160), start, TrialConfig(epochs=3, batch=8, learning_rate=3e-3), seed=1, folder=folder)
    texts = examples(60, name="test", seed=0)
    predicted = Predictor.load(folder / "model").predict([example.text for example in texts])
    right = sum(prediction.label == example.gold for prediction, example in zip(predicted, texts, strict=True))
    assert right > 45, "chance is 20 of 60"

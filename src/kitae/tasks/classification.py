"""What fine-tuning for single-text classification learns: an encoder with a head over [CLS], as the loop's module.

Shapes: B rows, L positions of a row, N texts, D width, C labels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitae.models.compose import Classifier
from kitae.models.folder import Part, describe
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term

TERM = "classification"


class Classification(nn.Module):
    """Cross-entropy of the label of each text (Devlin et al., 2019, section 3.2). Needs batches of `kitae.tasks.batches`.

    Its model is the part "encoder" of a checkpoint, with the head "sequence" and the labels by name.
    """

    def __init__(self, classifier: Classifier, *, labels: Sequence[str]) -> None:
        super().__init__()
        self.encoder = classifier
        self.labels = tuple(labels)

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Nothing is drawn: the batch holds its labels."""
        return batch

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many texts are predicted."""
        return {TERM: int(batch.targets["labels"].numel())}

    def logits(self, batch: Batch) -> Tensor:
        """Logits [N, C] of the texts whose [CLS] stand at targets["cls"], in that order."""
        return self.encoder(batch, batch.targets["cls"])

    def forward(self, batch: Batch) -> Loss:
        """One term: the summed cross-entropy in nats. Without labels it is a zero that has a gradient."""
        labels_N = batch.targets["labels"]
        logits_NC = self.logits(batch).float()[: len(labels_N)]  # a micro-batch without examples holds a text without a label
        total = F.cross_entropy(logits_NC, labels_N, reduction="sum")
        return Loss(terms=(Term(name=TERM, sum=total, count=len(logits_NC)),))

    def describe(self) -> dict[str, object]:
        """The content of model.json."""
        return describe({"encoder": Part(head="sequence", config=self.encoder.config, state={}, labels=self.labels)})


@torch.no_grad()
def infer(module: Classification, batch: Batch, device: torch.device, *, half: bool = False) -> Tensor:
    """Logits [N, C] without dropout or gradients; `half` computes in bf16. The module's mode is restored."""
    training = module.training
    module.eval()
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            return module.logits(batch.to(device))
    finally:
        module.train(training)

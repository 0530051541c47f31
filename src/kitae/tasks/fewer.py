"""Fewer labelled examples than there are: nested draws by label, for learning curves."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kitae.tasks.examples import Example
from kitae.tasks.records import TaskData
from kitae.tensor.random import numpy_generator


def fewer(data: TaskData, count: int, *, seed: int) -> TaskData:
    """The task with `count` of its training examples (all of them where it has no more); validation and test stay whole.

    Of one seed, the examples of a smaller count are among those of a larger one, whatever the order of the lines in the files.
    """
    return replace(data, train=tuple(nested(data.train, count, seed=seed)))


def nested(examples: Sequence[Example], count: int, *, seed: int) -> list[Example]:
    """The first `count` of an order in which every beginning is mixed as the whole is.

    First comes one example of each label, the most frequent labels first; after that always one of the label that lacks most against
    its share. Within a label the order is drawn by the seed. Examples without one label each are one group.
    """
    groups: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: example.id):
        groups.setdefault(example.gold if isinstance(example.gold, str) else "", []).append(example)
    labels = sorted(groups, key=lambda label: (-len(groups[label]), label))
    drawn = {label: [groups[label][i] for i in numpy_generator(seed, "fewer", label).permutation(len(groups[label]))] for label in labels}
    found = [drawn[label][0] for label in labels[:count]]
    sizes = np.asarray([len(groups[label]) for label in labels], np.float64)
    taken = np.ones(len(labels))
    while len(found) < min(count, len(examples)):
        lack = np.where(taken < sizes, sizes * (len(found) + 1) / len(examples) - taken, -np.inf)
        label = int(lack.argmax())
        found.append(drawn[labels[label]][int(taken[label])])
        taken[label] += 1
    return found

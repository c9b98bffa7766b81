"""Checks over which class each image shows, as its labels or its folder say."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from statistics import median

from mobilenet_export.findings import Finding, listing

LARGEST_OVER_MEDIAN = 10
"""A class with so many times the images of the class in the middle is too large. With one image a class on
average, chance gives ten to one class in a million."""
LEAST_TO_MISS = 3
"""A class with so many images that is never recognised is worth a word."""


def folder_classes(names: Sequence[str]) -> dict[str, str]:
    """Take the folders that the images lie in for classes, if all lie in one and there are several."""
    parents = {name: str(PurePosixPath(name).parent) for name in names}
    found = set(parents.values())
    return parents if len(found) > 1 and "." not in found else {}


def check_skew(classes: Mapping[str, Hashable]) -> Iterator[Finding]:
    """Yield a finding where one class has most of the images, or far more than the others."""
    counts = Counter(classes.values())
    if len(counts) < 2:
        return
    (largest, most), *others = counts.most_common()
    share = most / len(classes)
    over_half = share > (1 + 1 / len(counts)) / 2
    if over_half or most >= LARGEST_OVER_MEDIAN * median(counts.values()):
        rest = f"{median(count for _, count in others):g}"
        of_rest = (
            f"the other has {rest}"
            if len(others) == 1
            else f"the {len(others):,} others {rest} in the middle"
        )
        problem = f"class {largest} has {most:,} of {len(classes):,} images ({100 * share:.0f} %), {of_rest}"
        hint = "take about as many of each, as the network will see all of them"
        yield Finding("warning", "class-skew", problem, hint)


def check_unlabelled(labels: Mapping[str, int], of: int) -> Iterator[Finding]:
    """Yield a finding where some images have a label and others have none."""
    if 0 < len(labels) < of:
        problem = f"{of - len(labels):,} of {of:,} images have no label"
        hint = "add the rows that are missing; without one an image calibrates, but is left out of accuracy"
        yield Finding("warning", "unlabelled", problem, hint)


def check_predictions(
    predictions: Mapping[str, int], labels: Mapping[str, int], class_names: Sequence[str]
) -> Iterator[Finding]:
    """Yield a finding where the network gives one class to all images, or never gives one that is there.

    Args:
        predictions: Image → best class of the float network.
        labels: Image → class; of none, some or all.
        class_names: In the order of the outputs.
    """
    predicted = set(predictions.values())
    if len(predicted) == 1 and len(predictions) > 1:
        name = class_names[next(iter(predicted))]
        problem = f"the network takes all {len(predictions):,} images for class {name}"
        hint = "check the weights and the preprocessing (--arch), or give images that differ"
        yield Finding("warning", "one-class", problem, hint)
        return
    counts = Counter(labels[name] for name in predictions if name in labels)
    missed = [label for label, count in sorted(counts.items()) if count >= LEAST_TO_MISS]
    missed = [label for label in missed if label not in predicted]
    if missed:
        names = listing(f"{label} ({class_names[label]})" for label in missed)
        problem = f"never predicted, though {LEAST_TO_MISS} images or more show them: class {names}"
        hint = "if it is every class, labels may be one off; else the network has not learned these"
        yield Finding("warning", "never-predicted", problem, hint)

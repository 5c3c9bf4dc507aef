"""Fashion-MNIST as a picture problem: its pictures, and a small classifier that judges samples (docs/fashion.md).

``pictures``: the data set as tensors; ``classifier``: the embedded network; ``Classifier.judge``: what it says of
samples, among it whether they are valid. ``python -m priorpaint.lab.fashion`` trains and checks the classifier.
"""

from .classifier import Classifier, Judgement, classifier
from .data import CLASSES, SIZE, pictures

__all__ = ["CLASSES", "SIZE", "Classifier", "Judgement", "classifier", "pictures"]

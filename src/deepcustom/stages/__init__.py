"""One short file per DVC stage, of the same name; each has one function, ``run``."""

NAMES = (
    "prepare",
    "train_target",
    "relevance",
    "suspiciousness",
    "train_dgn",
    "generate",
    "attack",
    "adversarial_train",
    "train_online",
    "evaluate",
    "report",
    "gallery",
    "page",
)
"""In the order of the pipeline."""

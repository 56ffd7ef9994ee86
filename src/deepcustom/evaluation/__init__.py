"""Scoring networks: a file for each protocol, the checks on them, and where scores are kept."""

FOR_OTHERS = {
    "by_class": "accuracy per class",
    "check_table": "the checks on an evaluation, a row each",
    "checks": "what a check is",
    "comparison": "results held against earlier ones",
    "files": "checks, curves and pairs as files",
    "full": "every attack on one network",
    "material": "what attackers bring along",
    "own_network": "a user's own network from a file",
    "points": "accuracy at a radius and a number of steps",
    "results": "accuracies and their table",
    "score_store": "scores kept by what they depend on",
    "scored_files": "the files that a scoring writes",
    "scoring": "scoring all networks of a subject",
    "sets": "adversarial sets as they are scored",
    "statistics": "paired tests",
    "transfer": "images made against another network",
    "trial": "a user's network tried before it is scored",
    "victim": "a network under attack",
    "whitebox": "attacks by someone who knows the weights",
}
"""The modules that other rooms may import, and what each has."""

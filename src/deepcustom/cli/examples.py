"""An example of every command, which its help ends with."""

from __future__ import annotations

from inspect import getdoc

import typer

EXAMPLES = {
    "": "deepcustom evaluate --network mine.pt2 --images photos --eps 8/255",
    "prepare": "deepcustom prepare --dataset mnist",
    "train_target": "deepcustom train_target --subject mnist",
    "relevance": "deepcustom relevance --subject mnist",
    "suspiciousness": "deepcustom suspiciousness --subject mnist",
    "train_dgn": "deepcustom train_dgn --subject mnist --bank nce",
    "generate": "deepcustom generate --subject mnist --bank nce --split test",
    "attack": "deepcustom attack --subject mnist --attack pgd --split test",
    "adversarial_train": "deepcustom adversarial_train --subject mnist --network madry",
    "train_online": "deepcustom train_online --subject mnist --network online",
    "evaluate": "deepcustom evaluate --subject mnist --network mine.safetensors --architecture my_nets:Mine",
    "report": "deepcustom report --subject mnist",
    "gallery": "deepcustom gallery --subject mnist",
    "page": "deepcustom page",
    "init": "deepcustom init mine --images photos --network small --eps 8/255",
    "repro": "deepcustom repro train_target@mnist --profile smoke",
    "watch": "deepcustom watch --once --profile smoke",
    "doctor": "deepcustom doctor --json",
    "results": "deepcustom results --json > results.json",
    "leaderboard": "deepcustom leaderboard --csv leaderboard.csv",
    "rescore": "deepcustom rescore --quiet",
    "push": "deepcustom push --remote storage",
    "pull": "deepcustom pull --remote storage",
    "trace": "deepcustom trace mnist/nce/transfer/pgd",
    "upgrade": "deepcustom upgrade",
    "losses": "deepcustom losses",
    "ui": "deepcustom ui --port 5001",
    "runs": "deepcustom runs sync",
    "runs sync": "deepcustom runs sync --profile smoke",
    "add": "deepcustom add bank mild --subject mnist --loss nce --dry-run",
    "add bank": "deepcustom add bank mild --subject mnist --loss nce --set training.epochs=5",
    "add attack": "deepcustom add attack pgd-40 --subject mnist --method pgd --set max_iter=40",
    "add network": "deepcustom add network madry-long --subject mnist --type madry --set training.epochs=8",
    "add subject": "deepcustom add subject mnist-small --like mnist --eps 0.1 --only nce --only madry",
    "remove": "deepcustom remove bank mild --subject mnist --dry-run",
    "remove bank": "deepcustom remove bank mild --subject mnist",
    "remove attack": "deepcustom remove attack pgd-40 --subject mnist",
    "remove network": "deepcustom remove network madry-long --subject mnist",
    "remove subject": "deepcustom remove subject mnist-small --dry-run",
}
"""Command, as it is typed after ``deepcustom`` → a command line that works."""


def show(app: typer.Typer, path: str = "") -> None:
    """Let the help of ``app``, of its commands and of its groups end with their examples."""
    app.info.epilog = _line(path)
    for command in app.registered_commands:
        name = command.name or ""
        command.epilog = _line(f"{path} {name}".strip())
        command.short_help = (getdoc(command.callback) or "").partition("\n")[
            0
        ]  # else it is cut short
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.epilog = _line(f"{path} {group.name}".strip())
            show(group.typer_instance, f"{path} {group.name}".strip())


def _line(path: str) -> str | None:
    return f"Example: {EXAMPLES[path]}" if path in EXAMPLES else None

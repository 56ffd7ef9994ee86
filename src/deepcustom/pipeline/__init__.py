"""Running stages in a project: where files lie, what a run declares and records, which code it runs."""

FOR_OTHERS = {
    "adversarial_set": "making a set and drawing some of it",
    "brought": "a target network as it is brought, and tried",
    "cards": "the cards of a subject's models",
    "change.added": "the rows of a new bank, attack, network or subject",
    "change.draft": "new rows as they are drawn up",
    "change.forecast": "what a change of rows will run",
    "change.plan": "rows added and removed",
    "dgns": "the DGNs of a subject by name",
    "dvc": "DVC, asked through its command line",
    "hardened": "which attack each network was hardened with",
    "load": "what several stages read",
    "profile": "whole sets of settings",
    "push": "models pushed to a remote",
    "rescore": "the published networks scored again",
    "run": "one run of a stage",
    "score_inputs": "what a scoring reads",
    "start.estimate": "how long a new project's first run takes",
    "start.images": "what the images of a new project are",
    "start.project": "a new project's files and folders",
    "start.starter": "a new project's first settings",
    "template": "dvc.yaml",
    "trace.view": "a lineage as a tree",
    "trace.walk": "where a number comes from",
    "workspace": "where every file lies",
}
"""The modules that other rooms may import, and what each has."""

"""What every room uses: settings and rows as they are checked, errors, files, progress."""

FOR_OTHERS = {
    "account": "what a run measured and made",
    "cores": "how many processors there are",
    "errors": "what can go wrong, a class for each kind of mistake",
    "experiment": "which project an experiment's folder is a copy of",
    "files": "writing beside, then renaming",
    "hashes": "hashes as DVC counts them",
    "helper": "whether this process only helps another to train",
    "image_settings": "the models of rows of prepare",
    "names": "package.module:Class",
    "once": "YAML and JSON in which no key stands twice",
    "params": "reading and checking settings",
    "progress": "saying how far long work is",
    "rows": "the layout of params.yaml",
    "settings": "the models of its sections",
    "waiting": "threads that wait asleep",
}
"""The modules that other rooms may import, and what each has."""

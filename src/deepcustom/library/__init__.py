"""The package in a few lines of Python: tensors in, plain results out, without a project, DVC or MLflow."""

FOR_OTHERS = {
    "alone": "a network and test images from files, scored",
    "attacking": "images attacked",
    "bank": "DGNs trained and read",
    "evaluating": "a network scored",
    "hardening": "a network hardened",
    "starting": "the settings that all begins with",
}
"""The modules that other rooms may import, and what each has."""

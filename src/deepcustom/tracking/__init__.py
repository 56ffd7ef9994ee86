"""Records of runs, and MLflow as a view of them; the only room that knows MLflow."""

FOR_OTHERS = {
    "curves": "the curves of a training that is under way",
    "live": "a run in MLflow while its stage is under way",
    "record": "what a run leaves behind",
    "store": "sending it",
    "ui": "MLflow's page",
}
"""The modules that other rooms may import, and what each has."""

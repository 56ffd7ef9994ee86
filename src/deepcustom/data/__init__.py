"""Data sets: where they come from, how they lie in memory and in files, and what is drawn from them."""

FOR_OTHERS = {
    "arrays": "splits and adversarial sets",
    "datasets": "what a data set is",
    "draws": "stratified draws",
    "mapped": "images that are read when they are needed",
    "sources": "where a built-in data set comes from",
}
"""The modules that other rooms may import, and what each has."""

"""Data sets: where they come from, how they lie in memory and in files, and what is drawn from them."""

FOR_OTHERS = {
    "arrays": "splits and adversarial sets",
    "datasets": "what a data set is",
    "doubts": "what is suspicious about images",
    "draws": "stratified draws",
    "mapped": "images that are read when they are needed",
    "official": "a data set before anything is drawn from it",
    "own.folder": "images in a folder of one's own",
    "own.parquet": "images in parquet files of one's own",
    "sources": "where a built-in data set comes from",
    "to_score": "test images without a project",
    "whole": "splits written from many images",
}
"""The modules that other rooms may import, and what each has."""

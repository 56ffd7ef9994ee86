"""One page for a whole project, which opens from disk: sentences, tables, charts, images, traces."""

"""Records of runs, and MLflow as a view of them; the only room that knows MLflow."""

"""Action detection: boxes and label maps, the detector, its training and test, and the evaluator."""

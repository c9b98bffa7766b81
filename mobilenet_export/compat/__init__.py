"""Whether a model file loads in a release of a runtime, on a board: facts as values, and a judgement over them."""

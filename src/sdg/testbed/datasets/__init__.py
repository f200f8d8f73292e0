"""Data sets of the testbed: injected pictures, the corpus, samples of the generator."""

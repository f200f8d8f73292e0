"""Data sets of diagnosed images: file formats, splits, statistics and annotator agreement."""

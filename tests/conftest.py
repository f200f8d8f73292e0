"""Settings of every test: one thread a process, for the suite itself runs on all cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is first imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

"""Training the detector: supervised fine-tuning, then GRPO with the composite reward."""

"""Models in memory: vision-language models that generate, adapters, devices and precision."""

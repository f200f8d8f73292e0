"""The testbed's detector: a Qwen3-VL of six million parameters that knows this small world and no other."""

"""The testbed's text-to-image model: a FluxPipeline of FLUX's own classes, small enough for two CPU cores."""

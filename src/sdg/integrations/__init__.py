"""SDG as a reward in other trainers: one file a trainer, which alone imports that trainer's package."""

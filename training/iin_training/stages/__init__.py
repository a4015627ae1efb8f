"""The training loops, one a stage, and the latents that T learns from."""

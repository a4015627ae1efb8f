"""The training loops, one a stage, the plans that put them in a row, and the latents that T learns from."""

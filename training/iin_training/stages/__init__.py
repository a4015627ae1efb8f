"""The training loops, one a stage: judge, first stage, transform."""

"""Offline training of invertible interpretation networks: data, models, flows, recipes, evaluation, export."""

import os

# Threads of torch that wait for each other by spinning lose most of their time on a busy machine; OpenMP
# reads this when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

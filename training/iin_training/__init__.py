"""Offline training of invertible interpretation networks: data, models, flows, recipes, evaluation, export."""

import os

# How long torch's threads spin while they wait for each other; OpenMP reads it when torch is loaded. Its own
# choice is so long that two threads on busy cores run tens of times slower than one; none at all costs an idle
# machine half of its speed.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
# onnxruntime tells Microsoft of every session unless this is set when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

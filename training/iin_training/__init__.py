"""Offline training of invertible interpretation networks: data, models, flows, recipes, evaluation, export."""

"""Recipes: functions that return the complete configuration of a run; ours, and those in a user's file."""

from iin_training.recipes.digits import cmnist, cmnist_classifier, digits
from iin_training.recipes.finding import RECIPES, find_recipe, told_of

__all__ = ["RECIPES", "cmnist", "cmnist_classifier", "digits", "find_recipe", "told_of"]

"""From a recipe of ours to what is interpreted: its data at hand, checked, and the stages before T in a row."""

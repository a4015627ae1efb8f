"""Plans lead from one of our recipes to what is interpreted: they load and check data and run the stages before T."""

"""Images to train on: fetching, reading, drawing in colour, pairing."""

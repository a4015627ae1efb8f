"""Images to train on: fetching, reading, checking, distorting, drawing in colour."""

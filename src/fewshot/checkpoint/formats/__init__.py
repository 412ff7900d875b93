"""Weight formats of other programs, a file for each: read into our model, written from it."""

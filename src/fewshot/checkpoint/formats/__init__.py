"""Weight formats of others, a file each: read into our model, written from it."""

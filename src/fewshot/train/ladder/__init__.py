"""A series of smaller models, trained before a large one to predict its loss."""

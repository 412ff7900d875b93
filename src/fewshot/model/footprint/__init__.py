"""What training a model needs on each process of a layout: numbers from numbers, without torch and without a model."""

"""Language models that can be evaluated: the protocol, and the classes that implement it."""

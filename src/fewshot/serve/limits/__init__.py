"""What clients may take of the server: who may ask, how much at once, how slowly."""

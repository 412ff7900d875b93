"""Networks and operations through which an inner loop can be differentiated."""

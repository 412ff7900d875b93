"""The programs that an export is for, and whether they compute what the model computes."""

"""Several processes that train one model: who holds what, who computes what, and how the parts become one again."""

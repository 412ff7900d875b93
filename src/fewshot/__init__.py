"""GPT-3 as software that people can use: raw text in, a trained few-shot learner out."""

__version__ = "0.1.0"

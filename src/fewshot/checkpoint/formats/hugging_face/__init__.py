"""The folders of Hugging Face's transformers library: stock classes, and one of our own."""

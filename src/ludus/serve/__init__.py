"""A model at an OpenAI-compatible address."""

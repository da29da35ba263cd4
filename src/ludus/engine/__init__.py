"""Engines: tokens in, tokens out, and the gradient back."""

"""The seam behind the model where every call is recorded."""

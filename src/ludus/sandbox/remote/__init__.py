"""Sandboxes in containers and at services: thin adapters on the official clients of six of them.

All that a sandbox does is said in shell scripts (`scripts.py`), so an adapter has three things to do: make a computer,
run a script there and return what it prints, and remove the computer. `sandbox.py` is everything else.
"""

"""What runs in the process of somebody else's environments: the standard library, and whatever verifiers brings.

Its Python may be another one, with other versions of everything: nothing here imports Ludus.
"""

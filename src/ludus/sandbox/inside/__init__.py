"""What runs beyond the wall: the process that makes sandboxes and the one that is each sandbox's first.

Standard library only, and relative imports only: an interpreter with an empty environment, without site-packages and
without the rest of Ludus, loads this folder as a package of its own. Nothing of the host process can leak from there.
"""

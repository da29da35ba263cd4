"""What an environment's author writes with: no torch, no training code."""

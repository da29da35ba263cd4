"""What gymnasium's toy-text environments don't say themselves: their rules, and the names of their actions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guide:
    """How to play one family of environments."""

    rules: str = ""
    actions: tuple[str, ...] = ()
    """Names of the numbered actions, from 0 on."""


GUIDES = {
    "FrozenLake": Guide(
        "Walk over a frozen lake from S to G. F is ice, which may be slippery; H is a hole, where the walk ends. You "
        "are at the square in [brackets].",
        ("left", "down", "right", "up"),
    ),
    "CliffWalking": Guide(
        "Walk from the bottom row on the left to T on the right, around the cliff C, from which you are put back to the "
        "start. You are at x.",
        ("up", "right", "down", "left"),
    ),
    "Taxi": Guide(
        "Drive a taxi: pick the passenger up and drop them off at the destination. R, G, Y and B are places, | is a "
        "wall. The passenger waits at the <place>, the destination is the (place), the taxi is in [brackets], or in "
        "{braces} with the passenger in it.",
        ("south", "north", "east", "west", "pickup", "dropoff"),
    ),
    "Blackjack": Guide(
        "Blackjack: come closer to 21 than the dealer, and not above it. You see your sum, the dealer's open card, and "
        "1 if you have an ace that counts as 11.",
        ("stick", "hit"),
    ),
}


def guide_to(world: str) -> Guide:
    """The guide to a family by the id of one of its environments; an empty one where there is none."""
    return next((guide for family, guide in GUIDES.items() if world.startswith(family)), Guide())

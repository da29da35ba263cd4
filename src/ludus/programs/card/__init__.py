"""The card of a model: what an evaluation says of its skill, calibration and use of tokens, as one HTML page."""

from ludus.programs.card.page import Card as Card
from ludus.programs.card.page import card as card

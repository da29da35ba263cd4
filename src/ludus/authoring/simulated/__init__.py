"""Simulated tools: a model stands in for an API that can't be called a million times."""

from ludus.authoring.simulated.api import Example as Example
from ludus.authoring.simulated.api import SimulatedApi as SimulatedApi
from ludus.authoring.simulated.consistency import Memory as Memory
from ludus.authoring.simulated.divergence import compare as compare
from ludus.authoring.simulated.environment import API as API
from ludus.authoring.simulated.environment import SimulatedTools as SimulatedTools

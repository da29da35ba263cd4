"""Prompt optimisation: GEPA on an environment, and what its prompt is worth on tasks that it has not seen."""

from ludus.programs.optimize.asked import OptimizeConfig as OptimizeConfig
from ludus.programs.optimize.asked import Optimized as Optimized
from ludus.programs.optimize.program import optimize_async as optimize_async

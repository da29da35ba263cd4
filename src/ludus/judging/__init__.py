"""Judges: rewards that a model gives, checked one criterion at a time, against a reference, or by comparing a group.

A judge is a role of the environment, so its model is named where the environment is run, it is frozen unless a recipe
trains it, and every call of it is recorded with the rollout. Whatever goes wrong with a judge is the failure of a scorer
with nobody of the rollout to blame, and never a score.
"""

from ludus.judging.generated import RubricStore as RubricStore
from ludus.judging.judge import Judge as Judge
from ludus.judging.maths import MathChecker as MathChecker
from ludus.judging.rubric import TERSE as TERSE
from ludus.judging.rubric import Criterion as Criterion
from ludus.judging.rubric import Rubric as Rubric
from ludus.judging.rubric import Wording as Wording
from ludus.judging.rubric import reference_judge as reference_judge
from ludus.judging.ruler import Ruler as Ruler

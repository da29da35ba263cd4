"""How far a judge can be trusted: measured against labels, or against what a program knows to be true."""

from ludus.judging.labelled import Labelled as Labelled
from ludus.judging.labelled import from_labels as from_labels
from ludus.programs.judging.check import check_judge as check_judge
from ludus.programs.judging.check import check_judge_async as check_judge_async
from ludus.programs.judging.labels import from_people as from_people
from ludus.programs.judging.labels import from_run as from_run
from ludus.programs.judging.result import JudgeCheck as JudgeCheck

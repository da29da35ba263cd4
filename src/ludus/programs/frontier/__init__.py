"""Models side by side: accuracy against cost and time, with intervals, and which of them none of the others beats."""

from ludus.programs.frontier.compared import Section as Section
from ludus.programs.frontier.compared import compared as compared
from ludus.programs.frontier.measured import Measured as Measured
from ludus.programs.frontier.page import Frontier as Frontier
from ludus.programs.frontier.page import frontier as frontier

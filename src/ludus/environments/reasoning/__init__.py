"""Ways of reasoning around any environment: plan first, keep to a budget, hand sub-tasks on, try several times.

And two that change what is asked: other words, another prompt.
"""

from ludus.environments.reasoning.attempts import Attempts as Attempts
from ludus.environments.reasoning.budget import Budget as Budget
from ludus.environments.reasoning.delegate import Delegate as Delegate
from ludus.environments.reasoning.plan import Plan as Plan
from ludus.environments.reasoning.prompt import Prompt as Prompt
from ludus.environments.reasoning.reword import Reword as Reword

"""Code that a model writes, judged by tests that it never sees."""

from ludus.environments.tested_code.checking import check_code as check_code
from ludus.environments.tested_code.environment import TestedCode as TestedCode
from ludus.environments.tested_code.environment import TestedFiles as TestedFiles

"""The reward-hacking audit: can an environment's reward be had without doing its tasks?"""

from ludus.testing.audit.program import audit_environment as audit_environment
from ludus.testing.audit.program import audit_environment_async as audit_environment_async
from ludus.testing.audit.verdict import Audit as Audit
from ludus.testing.audit.verdict import Line as Line

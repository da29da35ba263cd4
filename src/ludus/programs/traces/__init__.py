"""From recorded conversations to an environment: read, mend, redact, split, and write a package."""

from ludus.programs.traces.build import Built as Built
from ludus.programs.traces.build import environment_from_traces as environment_from_traces

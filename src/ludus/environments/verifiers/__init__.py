"""Environments of the verifiers library, as they are: `verifiers:MODULE`."""

from ludus.environments.verifiers.environment import VerifiersEnvironment as VerifiersEnvironment

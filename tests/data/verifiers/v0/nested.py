"""Groups of environments within groups: one compares rollouts, one needs to be torn down."""

import compared
import sessions
import verifiers as vf


def load_environment(place: str):
    inner = vf.EnvGroup(envs=[compared.load_environment(), sessions.load_environment(place)], env_names=["say", "go"])
    return vf.EnvGroup(envs=[inner], env_names=["all"])

"""Simulated users: people whom an agent talks to, played by a model, by rules, or from a record."""

from ludus.authoring.users.diversity import diversity as diversity
from ludus.authoring.users.environment import USER as USER
from ludus.authoring.users.environment import UserEnvironment as UserEnvironment
from ludus.authoring.users.errors import find_errors as find_errors
from ludus.authoring.users.fault import fault_of as fault_of
from ludus.authoring.users.persona import Change as Change
from ludus.authoring.users.persona import Persona as Persona
from ludus.authoring.users.persona import persona_of as persona_of
from ludus.authoring.users.recorded import RecordedUser as RecordedUser
from ludus.authoring.users.scripted import ScriptedUser as ScriptedUser
from ludus.authoring.users.simulated import SimulatedUser as SimulatedUser
from ludus.authoring.users.user import User as User
from ludus.authoring.users.user import Utterance as Utterance

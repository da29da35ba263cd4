"""Task folders in Harbor's format, behind `harbor:FOLDER`."""

from ludus.environments.harbor.environment import Harbor as Harbor

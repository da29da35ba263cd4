"""Training data from rollouts: sampled, filtered, without duplicates, in the usual chat format, with a data card."""

from ludus.programs.data.make import DataConfig as DataConfig
from ludus.programs.data.make import Made as Made
from ludus.programs.data.make import make_data as make_data

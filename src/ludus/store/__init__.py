"""The run folder: what a run writes, what resume and reports read."""

from ludus.store.index import IndexRow as IndexRow
from ludus.store.index import PurposeSummary as PurposeSummary
from ludus.store.index import RolloutIndex as RolloutIndex
from ludus.store.rollout_log import Location as Location
from ludus.store.rollout_log import RolloutLog as RolloutLog
from ludus.store.run_folder import RunFolder as RunFolder
from ludus.store.run_folder import is_run_folder as is_run_folder
from ludus.store.states import State as State

"""Where a run's rows go beside metrics.jsonl: TensorBoard, trackio, Weights & Biases, or an author's own."""

from ludus.sinks.sink import RunInfo as RunInfo
from ludus.sinks.sink import Sink as Sink
from ludus.sinks.sink import figures as figures
from ludus.sinks.sink import run_id as run_id
from ludus.sinks.sink import sink as sink
from ludus.sinks.sinks import Sinks as Sinks
from ludus.sinks.sinks import check_sinks as check_sinks

"""What a recipe will take, before it starts: `ludus train --dry-run`."""

from __future__ import annotations

from ludus.cli.output import align, faint, heading
from ludus.display.numbers import duration, short
from ludus.programs.dry_run import DryRun, gib

MEMORY_NOTES = {
    "head": "the output projection in float32",
    "masters": "trained weights in float32",
    "moments": "AdamW's two",
    "activations": "kept of one micro-batch for the backward pass",
    "logits": "of one chunk",
}


def foreseen(found: DryRun) -> list[str]:
    """Lines of text on what a recipe will take."""
    share = "" if found.num_trained == found.num_parameters else f", {short(found.num_trained)} of them in an adapter"
    rows = [(part, gib(size), faint(MEMORY_NOTES.get(part, ""))) for part, size in found.memory.parts().items()]
    rows += [("in all", gib(found.memory.total), faint(f"{gib(found.free_bytes)} are free"))]
    tokens = found.tokens
    return [
        "",
        f"{heading('memory')}  " + faint(f"{short(found.num_parameters)} parameters{share}"),
        *("  " + line for line in align(rows, right=[1])),
        "  "
        + faint(
            "beside it the sampler's cache, up to a quarter of what is free, and on a CPU packed copies of matrices"
        ),
        "",
        f"{heading('work')}  " + faint("if every reply is as long as it may be"),
        f"  a rollout  {found.rollout_tokens:,.0f} tokens, of them {found.prompt_tokens:,.0f} prompt",
        f"  sampled    {short(int(tokens['sampled']))} tokens",
        f"  trained    {short(int(tokens['trained']))} tokens",
        f"  computing  {duration(found.seconds)}" + faint("  of matrix products, at the speed measured here"),
        "",
    ]
